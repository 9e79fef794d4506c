// Calls the API that serves this page.

// Static files are one level below the API, whose path has a stage on API Gateway.
export const ROOT = new URL("..", import.meta.url);

const POLL_S = 1; // without Retry-After
const SLOW_POLL_S = 5; // after a minute
const MINUTE_MS = 60_000;

/** The API refused a request, or a job failed. `problem` has its members (RFC 9457). */
export class ApiError extends Error {
  constructor(problem, retryAfterS = null) {
    super(problem.title ?? "Error");
    this.problem = problem;
    this.retryAfterS = retryAfterS;
  }
}

/** No response arrived. */
export class UnreachableError extends Error {}

/** Sends requests with the key that `getKey` returns; `onHeaders` gets the headers of each response. */
export class ApiClient {
  constructor({ getKey, onHeaders }) {
    this.getKey = getKey;
    this.onHeaders = onHeaders;
  }

  /** Run a program, or a batch; return the result. `onPending` gets the id of a job that is accepted first. */
  async run(path, body, { isAsync = false, signal, onPending }) {
    const headers = { "Content-Type": "application/json", ...(isAsync ? { Prefer: "respond-async" } : {}) };
    const first = await this.send("POST", path, { headers, body: JSON.stringify(body), signal });
    if (first.status !== 202) return first.body;
    onPending(first.body.id);
    return this.poll(first.body.id, { pauseS: first.retryAfterS, signal });
  }

  /** Return the result of an accepted job once it is there. */
  async poll(jobId, { pauseS, signal }) {
    const startedAt = Date.now();
    for (;;) {
      const isSlow = Date.now() - startedAt > MINUTE_MS;
      await sleep(isSlow ? Math.max(pauseS ?? 0, SLOW_POLL_S) : (pauseS ?? POLL_S), signal);
      try {
        const response = await this.send("GET", `jobs/${encodeURIComponent(jobId)}`, { signal });
        if (response.status !== 202) return finished(response.body);
        pauseS = response.retryAfterS;
      } catch (error) {
        if (!(error instanceof ApiError) || error.retryAfterS === null) throw error;
        pauseS = error.retryAfterS;
      }
    }
  }

  /** Delete a job and its result. */
  async delete(jobId) {
    await this.send("DELETE", `jobs/${encodeURIComponent(jobId)}`);
  }

  /** Return the body of a resource. */
  async get(path) {
    return (await this.send("GET", path)).body;
  }

  async send(method, path, { headers = {}, body, signal } = {}) {
    const key = this.getKey();
    let response;
    let text;
    try {
      response = await fetch(new URL(path, ROOT), {
        method,
        headers: { Accept: "application/json", ...(key ? { "X-Api-Key": key } : {}), ...headers },
        body,
        signal,
        credentials: "omit",
        cache: "no-store",
      });
      text = await response.text();
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new UnreachableError("No response", { cause: error });
    }
    this.onHeaders(response.headers);
    const retryAfterS = seconds(response.headers.get("Retry-After"));
    const value = parseJson(text);
    if (response.ok) return { status: response.status, body: value, retryAfterS };
    throw new ApiError(asProblem(value, response), retryAfterS);
  }
}

function finished(body) {
  if (body.status === "failed") throw new ApiError(body.problem ?? {});
  return body;
}

/** Return the problem of an error response. Gateways in between return something else. */
function asProblem(value, response) {
  const isProblem = value !== null && typeof value === "object" && typeof value.title === "string";
  return isProblem ? value : { title: response.statusText || `HTTP ${response.status}`, status: response.status };
}

function parseJson(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function seconds(text) {
  const value = Number(text);
  return text === null || !Number.isFinite(value) || value < 0 ? null : value;
}

function sleep(durationS, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, durationS * 1000);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
