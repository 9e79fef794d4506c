// Runs the program of the page: shows progress, the result or the problem, and when the next try is possible.
import { ApiError } from "./api-client.js";
import { batchElements, batchSummary } from "./batch-view.js";
import { announce, byId, element } from "./dom.js";
import { retryTime } from "./format.js";
import { askForKey, getKey } from "./key-dialog.js";
import { describe, problemElements } from "./problem-view.js";
import { resultElements, resultSummary } from "./result-view.js";

const NARROW = matchMedia("(max-width: 900px)");
const TICK_MS = 250;

export class Runner {
  /** `getRequest` returns the path, body and isAsync of the request; `editor` is that of code-editor.js. */
  constructor({ client, editor, getRequest }) {
    this.client = client;
    this.editor = editor;
    this.getRequest = getRequest;
    this.current = null; // { controller, jobId } of the run under way
    this.blockedUntil = 0; // the time of Retry-After, in ms
  }

  /** Run the program, unless one is running, the API asked to wait, or there is no key. */
  async run() {
    if (this.current || Date.now() < this.blockedUntil) return;
    const request = this.getRequest();
    if (!request) return;
    if (!getKey() && !(await askForKey())) return;
    const controller = new AbortController();
    this.current = { controller, jobId: null };
    this.editor.clearError();
    this.showProgress("Running…");
    let hasBadKey = false;
    try {
      const result = await this.client.run(request.path, request.body, {
        isAsync: request.isAsync,
        signal: controller.signal,
        onPending: (jobId) => {
          this.current.jobId = jobId;
          this.showProgress("Accepted as a job. Waiting for its result…", jobId);
        },
      });
      this.showResult(result, request.body);
    } catch (error) {
      if (controller.signal.aborted) this.show([element("p", { class: "empty" }, "Canceled.")], "Canceled.");
      else this.showProblem(error);
      hasBadKey = error instanceof ApiError && error.problem.status === 401;
    } finally {
      this.current = null;
      this.updateButtons();
    }
    if (hasBadKey && (await askForKey("The API does not accept this key. Check it and enter it again."))) await this.run();
  }

  /** Stop waiting, and delete the job if there is one. */
  cancel() {
    if (!this.current) return;
    const { controller, jobId } = this.current;
    controller.abort();
    if (jobId) this.client.delete(jobId).catch(() => {}); // else its result expires by itself
    byId("run").focus();
  }

  showProgress(text, jobId = null) {
    this.updateButtons();
    const id = jobId ? element("p", { class: "hint" }, "Job ", element("code", {}, jobId)) : null;
    this.show([element("div", { class: "empty" }, element("div", { class: "spinner" }), element("p", {}, text), ...(id ? [id] : []))], text);
  }

  showResult(result, body) {
    if (result.runs) {
      this.show(batchElements(result, body.runs), batchSummary(result));
    } else {
      this.show(resultElements(result, { onLine: (line) => this.editor.goToLine(line) }), resultSummary(result));
      if (result.error?.line) this.editor.markError(result.error.line, `${result.error.type}: ${result.error.message}`);
    }
  }

  showProblem(error) {
    const description = describe(error);
    this.show(problemElements(description), "");
    if (description.retryAfterS) this.blockFor(description.retryAfterS);
  }

  show(elements, announcement) {
    byId("result").replaceChildren(...elements);
    if (NARROW.matches) byId("response").scrollIntoView(); // it is below the editor there
    announce(announcement);
  }

  /** Count down to the time when the API will accept a request again. */
  blockFor(durationS) {
    this.blockedUntil = Date.now() + durationS * 1000;
    const timer = setInterval(() => {
      const leftS = (this.blockedUntil - Date.now()) / 1000;
      const node = byId("countdown");
      if (node) node.textContent = leftS > 0 ? retryTime(leftS) : "now";
      if (leftS > 0) return;
      clearInterval(timer);
      this.updateButtons();
      announce("You can run the program again.");
    }, TICK_MS);
    this.updateButtons();
  }

  updateButtons() {
    const isRunning = this.current !== null;
    byId("run").setAttribute("aria-disabled", String(isRunning || Date.now() < this.blockedUntil));
    byId("cancel").hidden = !isRunning;
    byId("result").setAttribute("aria-busy", String(isRunning));
  }
}
