// The program and its settings: reads them from the page, writes them to it, and builds request bodies from them.
import { byId } from "./dom.js";
import { readRuns, writeRuns } from "./batch-form.js";
import { readFiles, writeFiles } from "./input-files.js";

export const DEFAULT_TIMEOUT_S = 3;
const DEFAULT_RUNTIME = "python";
const DEFAULT_ARTIFACTS = ["*"]; // all files that the program leaves in its working directory

/** Return everything that the page has of a program. */
export function readProgram(editor) {
  return {
    code: editor.getCode(),
    input: byId("input").value,
    args: byId("args").value === "" ? [] : byId("args").value.split("\n"),
    files: readFiles(),
    artifacts: byId("artifacts").value.split(/\s+/).filter(Boolean),
    runtime: byId("runtime").value,
    timeout_s: Number(byId("timeout").value) || DEFAULT_TIMEOUT_S,
    runs: readRuns(),
    stop_on_failure: byId("stop-on-failure").checked,
  };
}

/** Replace everything that the page has of a program. Raise TypeError if the program is malformed. */
export function writeProgram(editor, program) {
  const { code = "", input = "", args = [], files = [], artifacts = DEFAULT_ARTIFACTS, runs = [] } = program;
  writeFiles(files);
  writeRuns(runs);
  editor.setCode(String(code));
  byId("input").value = String(input);
  byId("args").value = args.join("\n");
  byId("artifacts").value = artifacts.join(" ");
  byId("timeout").value = Number(program.timeout_s) || DEFAULT_TIMEOUT_S;
  byId("stop-on-failure").checked = program.stop_on_failure === true;
  selectRuntime(program.runtime ?? DEFAULT_RUNTIME);
}

/** Return the body of POST /, without members that have their default. */
export function runBody({ code, input, args, files, artifacts, runtime, timeout_s: timeoutS }) {
  return {
    code,
    ...(input ? { input } : {}),
    ...(args.length ? { args } : {}),
    ...(files.length ? { files } : {}),
    ...(artifacts.length ? { artifacts } : {}),
    ...commonMembers(runtime, timeoutS),
  };
}

/** Return the body of POST /batch. */
export function batchBody({ code, files, runtime, timeout_s: timeoutS, runs, stop_on_failure: stopOnFailure }) {
  return {
    code,
    runs,
    ...(stopOnFailure ? { stop_on_failure: true } : {}),
    ...(files.length ? { files } : {}),
    ...commonMembers(runtime, timeoutS),
  };
}

/** Offer the runtimes of GET /runtimes. */
export function offerRuntimes(names) {
  const chosen = byId("runtime").value;
  byId("runtime").replaceChildren(...names.map((name) => new Option(name, name)));
  selectRuntime(chosen);
}

function commonMembers(runtime, timeoutS) {
  return {
    ...(runtime === DEFAULT_RUNTIME ? {} : { runtime }),
    ...(timeoutS === DEFAULT_TIMEOUT_S ? {} : { timeout_s: timeoutS }),
  };
}

/** Select a runtime. One that this API may not have is kept, so that the API says so. */
function selectRuntime(name) {
  const select = byId("runtime");
  if (![...select.options].some((option) => option.value === name)) select.add(new Option(name, name));
  select.value = name;
}
