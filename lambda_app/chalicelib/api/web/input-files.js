// The files of the program: chosen or dropped here, and sent with the request.
import { fromBase64, toBase64 } from "./base64.js";
import { byId, element } from "./dom.js";
import { bytes, plural } from "./format.js";

let files = []; // of { path, content: Uint8Array }
let onChange = () => {};

/** Set up the list, the file input and the drop zone, which is the whole page. */
export function setUpFiles({ changed, dropped }) {
  onChange = changed;
  byId("file-input").addEventListener("change", async (event) => {
    await addFiles(event.target.files);
    event.target.value = "";
  });
  const isFileDrag = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragover", (event) => {
    if (!isFileDrag(event)) return;
    event.preventDefault(); // else the browser would leave the page and open the file
    dropped();
    byId("drop-zone").classList.add("active");
  });
  addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) byId("drop-zone").classList.remove("active");
  });
  addEventListener("drop", async (event) => {
    if (!isFileDrag(event)) return;
    event.preventDefault();
    byId("drop-zone").classList.remove("active");
    await addFiles(event.dataTransfer.files);
  });
  show();
}

/** Return the files as the request has them. */
export function readFiles() {
  return files.map(({ path, content }) => ({ path, ...encode(content) }));
}

/** Replace all files by those of a request. Raise TypeError if one is malformed. */
export function writeFiles(requestFiles) {
  files = requestFiles.map((file) => ({ path: String(file.path), content: decode(file) }));
  show();
}

async function addFiles(list) {
  for (const file of list) {
    const content = new Uint8Array(await file.arrayBuffer());
    files = [...files.filter(({ path }) => path !== file.name), { path: file.name, content }];
  }
  show();
  onChange();
}

function encode(content) {
  try {
    return { content: new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(content) };
  } catch {
    return { content_base64: toBase64(content) };
  }
}

function decode(file) {
  return typeof file.content === "string" ? new TextEncoder().encode(file.content) : fromBase64(file.content_base64);
}

function show() {
  byId("file-list").replaceChildren(...files.map(item));
  const total = files.reduce((sum, { content }) => sum + content.length, 0);
  byId("file-total").textContent = files.length ? `${plural(files.length, "file")}, ${bytes(total)}` : "";
  byId("tab-files").textContent = files.length ? `Files (${files.length})` : "Files";
}

function item(file) {
  const path = element("input", {
    class: "mono grow",
    "aria-label": "Path of the file",
    spellcheck: "false",
    oninput: (event) => {
      file.path = event.target.value;
      onChange();
    },
  });
  path.value = file.path;
  const remove = element(
    "button",
    {
      type: "button",
      class: "small",
      "aria-label": `Remove ${file.path}`,
      onclick: () => {
        files = files.filter((other) => other !== file);
        show();
        onChange();
        byId("file-input").focus();
      },
    },
    "Remove",
  );
  return element("li", {}, path, element("span", { class: "hint" }, bytes(file.content.length)), remove);
}
