// Shows the verdict and the output of each run of a batch.
import { element } from "./dom.js";
import { milliseconds, plural } from "./format.js";
import { badge } from "./result-view.js";

const VERDICTS = { true: ["passed", "ok"], false: ["failed", "error"], null: ["not checked", "none"] };

/** Return the elements that show the result of a batch. `runs` are those of the request. */
export function batchElements(result, runs) {
  return [
    element("div", { class: "headline" }, badge(...overall(result)), element("span", { class: "headline-text" }, batchSummary(result))),
    element(
      "div",
      { class: "table-frame", tabindex: 0, role: "region", "aria-label": "Runs of the batch" },
      element(
        "table",
        {},
        element("thead", {}, element("tr", {}, ...["Run", "Verdict", "Status", "Time", "Details"].map((name) => element("th", { scope: "col" }, name)))),
        element("tbody", {}, ...result.runs.map((run, index) => row(run, runs[index] ?? {}, index))),
      ),
    ),
  ];
}

/** Return one sentence on the result of a batch. */
export function batchSummary({ passed, failed, not_run: notRun, runs }) {
  const counts = { passed, failed, "not run": notRun, "not checked": runs.length - passed - failed - notRun };
  const parts = Object.entries(counts).filter(([name, value]) => value || name === "passed");
  return `${parts.map(([name, value]) => `${value} ${name}`).join(", ")} of ${plural(runs.length, "run")}`;
}

function overall({ passed, failed, runs }) {
  if (failed) return ["failed", "error"];
  return passed === runs.length ? ["passed", "ok"] : ["done", "none"];
}

function row(run, { input = "", args = [], expected_output: expected }, index) {
  const texts = [
    ["Input", input],
    ["Arguments", args.join("\n")],
    ["Expected output", expected],
    ["stdout", run.stdout],
    ["stderr", run.stderr],
  ].filter(([, text]) => text);
  const details = texts.flatMap(([name, text]) => [element("dt", {}, name), element("dd", {}, element("pre", {}, text))]);
  return element(
    "tr",
    {},
    element("th", { scope: "row" }, index + 1),
    element("td", {}, badge(...(run.status === "not_run" ? ["not run", "none"] : VERDICTS[run.passed ?? null]))),
    element("td", {}, run.status.replaceAll("_", " ")),
    element("td", { class: "number" }, run.usage ? milliseconds(run.usage.duration_ms) : "–"),
    element("td", { class: "details" }, details.length ? element("details", { open: run.passed === false }, element("summary", {}, "Input and output"), element("dl", {}, ...details)) : "–"),
  );
}
