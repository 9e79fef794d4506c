// Shows how one run ended and what it wrote.
import { artifactElements } from "./artifacts.js";
import { copyButton, element } from "./dom.js";
import { bytes, count, milliseconds } from "./format.js";

export const STATUS_TEXT = {
  ok: "The program exited with code 0.",
  error: "The program exited with an error.",
  timeout: "The program was still running after its timeout.",
  out_of_memory: "The program ran out of memory.",
  output_limit: "The program wrote too much output.",
  killed: "The program was ended by a signal.",
};

/** Return the elements that show a result. `onLine` is called with the line of the exception. */
export function resultElements(result, { onLine }) {
  return [
    headline(result, onLine),
    facts(result),
    ...stream("stdout", result),
    ...stream("stderr", result),
    ...artifactElements(result),
  ];
}

/** Return one sentence on a result, for screen readers. */
export function resultSummary(result) {
  const error = result.error ? ` ${result.error.type}, line ${result.error.line ?? "unknown"}.` : "";
  return `${STATUS_TEXT[result.status] ?? result.status}${error} ${milliseconds(result.usage.duration_ms)}.`;
}

/** Return the status as a colored badge. */
export function badge(status, className = status) {
  return element("span", { class: `badge ${className}` }, status.replaceAll("_", " "));
}

function headline(result, onLine) {
  const { error } = result;
  const text = error ? `${error.type}${error.message ? `: ${error.message}` : ""}` : STATUS_TEXT[result.status];
  const line = error?.line
    ? element("button", { type: "button", class: "small", onclick: () => onLine(error.line) }, `Go to line ${error.line}`)
    : null;
  return element("div", { class: "headline" }, badge(result.status), element("span", { class: "headline-text" }, text ?? ""), line);
}

function facts({ exit_code: exitCode, signal, usage, runtime, python_version: version }) {
  const values = [
    ["Exit code", exitCode ?? "none"],
    ["Signal", signal],
    ["Time", milliseconds(usage.duration_ms)],
    ["CPU", milliseconds(usage.cpu_ms)],
    ["Memory", bytes(usage.memory_bytes)],
    ["Queued", milliseconds(usage.queued_ms)],
    ["Runtime", `${runtime} ${version}`],
  ];
  const shown = values.filter(([, value]) => value !== null && value !== undefined);
  return element("dl", { class: "facts" }, ...shown.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))));
}

function stream(name, result) {
  const text = result[name];
  const written = result.output_bytes[name];
  if (!text) return [streamBar(name, "nothing written")];
  const size = result.truncated[name] ? `${count(written)} bytes written, not all of them shown here` : bytes(written);
  return [
    streamBar(name, size, copyButton(name, () => text)),
    element("pre", { class: `stream ${name}`, tabindex: 0, role: "region", "aria-label": name }, text),
  ];
}

function streamBar(name, hint, button = null) {
  return element("div", { class: "stream-bar" }, element("h3", {}, name), element("span", { class: "hint" }, hint), button);
}
