// Builds elements. Text only ever becomes text: no function here parses HTML.

/** Return the element of the page with this id. */
export function byId(id) {
  return document.getElementById(id);
}

/** Return a new element with attributes, listeners (`onclick`) and children, which are elements or text. */
export function element(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes)) {
    if (attribute.startsWith("on")) node.addEventListener(attribute.slice(2), value);
    else if (value === true) node.setAttribute(attribute, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(attribute, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

let toastTimer;

/** Show a short confirmation for some seconds. */
export function toast(text) {
  const node = byId("toast");
  node.textContent = text;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => (node.textContent = ""), 4000);
}

/** Tell a screen reader what happened, without showing it. */
export function announce(text) {
  byId("announcer").textContent = text;
}

/** Copy text, also where the page is not a secure context and so has no navigator.clipboard. */
export async function copyText(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = element("textarea", { class: "visually-hidden", readonly: true });
  area.value = text;
  (document.querySelector("dialog[open]") ?? document.body).append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

/** Return a button that copies what `text` returns. */
export function copyButton(label, text) {
  return element(
    "button",
    {
      type: "button",
      class: "small",
      "aria-label": `Copy ${label}`,
      onclick: async () => {
        await copyText(text());
        toast(`Copied ${label}.`);
      },
    },
    "Copy",
  );
}
