// Asks for the API key once and keeps it for this tab: sessionStorage ends with it, and other tabs do not see it.
import { byId } from "./dom.js";

const NAME = "python-exec-key";
let memory = null; // where storage is blocked

/** Return the key, or null. */
export function getKey() {
  try {
    return sessionStorage.getItem(NAME) ?? memory;
  } catch {
    return memory;
  }
}

/** Remember the key, or forget it with null. */
export function setKey(key) {
  memory = key;
  try {
    if (key === null) sessionStorage.removeItem(NAME);
    else sessionStorage.setItem(NAME, key);
  } catch {
    // Storage is blocked: the key is kept until the page is closed.
  }
  showState();
}

/** Ask for the key and return whether there is one now. `error` says why the former one is not good. */
export function askForKey(error = "") {
  const dialog = byId("key-dialog");
  byId("key-error").textContent = error;
  byId("key").value = "";
  byId("key").setAttribute("aria-invalid", error !== "");
  byId("key-forget").hidden = getKey() === null;
  dialog.returnValue = "";
  if (!dialog.open) dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "changed"), { once: true });
  });
}

/** Set up the dialog and the button that opens it. `onChange` is called after the key was set or forgotten. */
export function setUpKeyDialog(onChange) {
  const dialog = byId("key-dialog");
  const close = (key) => {
    setKey(key);
    dialog.close(key === null ? "" : "changed");
    byId("key").value = "";
    onChange();
  };
  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const key = byId("key").value.trim();
    // A header has no other characters, and fetch() would throw.
    if (/^[!-~]+$/.test(key)) close(key);
    else byId("key-error").textContent = "A key consists of letters, digits and underscores.";
  });
  byId("key-forget").addEventListener("click", () => close(null));
  byId("key-cancel").addEventListener("click", () => dialog.close(""));
  byId("key-button").addEventListener("click", () => askForKey());
  showState();
}

function showState() {
  byId("key-button").textContent = getKey() === null ? "Enter API key" : "API key ✓";
}
