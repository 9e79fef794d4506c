// Connects the parts of the playground.
import { ApiClient, ROOT } from "./api-client.js";
import { setUpBatch } from "./batch-form.js";
import { createEditor } from "./code-editor.js";
import { byId, copyButton, copyText, element, toast } from "./dom.js";
import { EXAMPLES } from "./examples.js";
import { setUpFiles } from "./input-files.js";
import { getKey, setUpKeyDialog } from "./key-dialog.js";
import { batchBody, offerRuntimes, readProgram, runBody, writeProgram } from "./program-form.js";
import { clearLimits, updateFromHeaders, updateFromUsage } from "./rate-limits.js";
import { Runner } from "./runner.js";
import { linkTo, programInLink } from "./share-link.js";
import { curlSnippet, pythonSnippet } from "./snippets.js";
import { setUpTabs } from "./tabs.js";
import { setUpTheme } from "./theme.js";

const SNIPPETS = { "panel-curl": ["the command", curlSnippet], "panel-python": ["the program", pythonSnippet] };

const client = new ApiClient({ getKey, onHeaders: updateFromHeaders });
const editor = createEditor(byId("editor"), { onRun: run, onChange: showSnippets });
const inputTabs = setUpTabs(byId("input-tabs"), showMode);
const responseTabs = setUpTabs(byId("response-tabs"), showSnippets);
const runner = new Runner({ client, editor, getRequest });

function isBatch() {
  return byId("tab-batch").getAttribute("aria-selected") === "true";
}

/** Return the request of the page, or null if a setting is invalid, which the browser then shows. */
function getRequest() {
  if (!byId("timeout").reportValidity()) return null;
  const program = readProgram(editor);
  const [path, body] = isBatch() ? ["batch", batchBody(program)] : ["", runBody(program)];
  return { path, body, isAsync: byId("async").checked };
}

function run() {
  responseTabs.select("tab-result");
  runner.run();
}

function showMode() {
  byId("run-label").textContent = isBatch() ? "Run batch" : "Run";
  showSnippets();
}

function showSnippets() {
  for (const [id, [label, snippet]] of Object.entries(SNIPPETS)) {
    const panel = byId(id);
    if (panel.hidden) continue;
    const program = readProgram(editor);
    const [path, body] = isBatch() ? ["batch", batchBody(program)] : ["", runBody(program)];
    const text = snippet({ url: new URL(path, ROOT).href, body, isAsync: byId("async").checked });
    const note = element("p", { class: "hint grow" }, "Put your key into the environment variable ", element("code", {}, "API_KEY"), ".");
    panel.replaceChildren(
      element("div", { class: "stream-bar" }, note, copyButton(label, () => text)),
      element("pre", { class: "stream", tabindex: 0, role: "region", "aria-label": `The request as ${label}` }, text),
    );
  }
}

async function loadUsage() {
  clearLimits();
  if (!getKey()) return;
  await client.get("usage").then(updateFromUsage, () => {}); // a run shows what is wrong with the key
}

async function loadRuntimes() {
  const { runtimes } = await client.get("runtimes").catch(() => ({}));
  if (Array.isArray(runtimes)) offerRuntimes(runtimes.map(({ name }) => name));
}

function load(program) {
  writeProgram(editor, program);
  inputTabs.select(firstUsedTab(program));
  showSnippets();
}

function firstUsedTab({ runs = [], input, args = [], files = [] }) {
  if (runs.length) return "tab-batch";
  if (input) return "tab-input";
  if (args.length) return "tab-args";
  return files.length ? "tab-files" : "tab-input";
}

async function share() {
  const program = readProgram(editor);
  if (!isBatch()) delete program.runs;
  try {
    const link = await linkTo(program);
    history.replaceState(null, "", link);
    await copyText(link);
    toast("Copied a link that holds the program, its input and files.");
  } catch (error) {
    toast(error instanceof RangeError ? error.message : "The link could not be copied. It is in the address bar.");
  }
}

async function loadLink() {
  try {
    const program = await programInLink();
    if (!program) return;
    load(program);
    toast("Loaded the program of the link. Read it before you run it.");
  } catch {
    toast("The link is damaged: it holds no program.");
  }
}

function setUpExamples() {
  byId("example").append(...Object.keys(EXAMPLES).map((name) => new Option(name, name)));
  byId("example").addEventListener("change", (event) => {
    if (event.target.value) load(EXAMPLES[event.target.value]);
    event.target.value = "";
  });
}

function setUpConnectionBanner() {
  const show = () => {
    byId("banner").textContent = "You are offline. Programs cannot run until the connection is back.";
    byId("banner").hidden = navigator.onLine;
  };
  addEventListener("online", show);
  addEventListener("offline", show);
  show();
}

function setUpKeys() {
  document.addEventListener("keydown", (event) => {
    const isShortcut = event.key === "Enter" && (event.ctrlKey || event.metaKey);
    if (!isShortcut || event.defaultPrevented || document.querySelector("dialog[open]")) return;
    event.preventDefault();
    run();
  });
}

setUpTheme();
setUpFiles({ changed: showSnippets, dropped: () => inputTabs.select("tab-files") });
setUpBatch({ changed: showSnippets });
setUpKeyDialog(loadUsage);
setUpExamples();
setUpConnectionBanner();
setUpKeys();
for (const id of ["input", "args", "artifacts", "timeout", "runtime", "async"]) byId(id).addEventListener("input", showSnippets);
byId("run").addEventListener("click", run);
byId("cancel").addEventListener("click", () => runner.cancel());
byId("share").addEventListener("click", share);
byId("skip-link").addEventListener("click", (event) => {
  event.preventDefault();
  editor.focus();
});
addEventListener("hashchange", loadLink);
load(EXAMPLES.Hello);
loadLink();
loadUsage();
loadRuntimes();
byId("run").disabled = false;
performance.mark("interactive");
