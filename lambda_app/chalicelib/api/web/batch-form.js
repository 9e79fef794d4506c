// The runs of a batch: for each an input, arguments and the output that is expected.
import { byId, element } from "./dom.js";

let onChange = () => {};

/** Set up the list with its button. */
export function setUpBatch({ changed }) {
  onChange = changed;
  byId("add-case").addEventListener("click", () => {
    const run = addRun({});
    run.querySelector("textarea").focus();
    onChange();
  });
  byId("stop-on-failure").addEventListener("change", () => onChange());
  writeRuns([]);
}

/** Return the runs as the request has them. */
export function readRuns() {
  return [...byId("cases").children].map((item) => {
    const value = (name) => item.querySelector(`[name=${name}]`).value;
    const run = {};
    if (value("input")) run.input = value("input");
    if (value("args")) run.args = value("args").split("\n");
    if (value("expected_output")) run.expected_output = value("expected_output");
    return run;
  });
}

/** Replace all runs by those of a request; an empty list shows one empty run. */
export function writeRuns(runs) {
  byId("cases").replaceChildren();
  for (const run of runs.length ? runs : [{}]) addRun(run);
}

function addRun({ input = "", args = [], expected_output: expected = "" }) {
  const item = element(
    "li",
    {},
    area("Input", "input", input),
    area("Arguments", "args", args.join("\n")),
    area("Expected output", "expected_output", expected),
    element("button", { type: "button", class: "small", "aria-label": "Remove this run", onclick: () => remove(item) }, "Remove"),
  );
  byId("cases").append(item);
  return item;
}

function area(label, name, value) {
  const attributes = { class: "mono", name, rows: 1, "aria-label": label, spellcheck: "false", autocapitalize: "off" };
  const node = element("textarea", { ...attributes, oninput: () => onChange() });
  node.value = value;
  return element("label", { class: "field stacked" }, element("span", { class: "label" }, label), node);
}

function remove(item) {
  item.remove();
  if (!byId("cases").children.length) addRun({});
  byId("add-case").focus();
  onChange();
}
