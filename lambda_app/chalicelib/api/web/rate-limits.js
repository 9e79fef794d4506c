// Shows what is left of the key's plan: from GET /usage, and from the RateLimit header of each response.
import { byId, element } from "./dom.js";
import { count } from "./format.js";

// draft-ietf-httpapi-ratelimit-headers: "rate";r=19;t=1, "month";r=99999;t=621571
const ITEM = /"([a-z]+)"((?:;[a-z]+=\d+)*)/g;
const PARAMETER = /;([a-z]+)=(\d+)/g;

const state = { plan: null, rate: null, burst: null, month: null };

/** Return the items of a RateLimit or RateLimit-Policy header by name, each as an object of its numbers. */
export function parseRateLimit(header) {
  const items = {};
  for (const [, name, parameters] of (header ?? "").matchAll(ITEM)) {
    items[name] = Object.fromEntries([...parameters.matchAll(PARAMETER)].map(([, key, value]) => [key, Number(value)]));
  }
  return items;
}

/** Update what is shown from the headers of a response. */
export function updateFromHeaders(headers) {
  const left = parseRateLimit(headers.get("RateLimit"));
  const policy = parseRateLimit(headers.get("RateLimit-Policy"));
  if (!left.rate) return; // a response to a request without a valid key
  Object.assign(state, { rate: left.rate.r, burst: policy.rate?.q ?? null, month: left.month?.r ?? state.month });
  show();
}

/** Update what is shown from the body of GET /usage. */
export function updateFromUsage(usage) {
  Object.assign(state, { plan: usage.plan, month: usage.left });
  byId("timeout").max = usage.limits.timeout_s;
  show();
}

/** Show nothing: the key was forgotten. */
export function clearLimits() {
  Object.assign(state, { plan: null, rate: null, burst: null, month: null });
  show();
}

function show() {
  const burst = state.burst === null ? "" : ` / ${count(state.burst)}`;
  byId("limits").replaceChildren(
    ...fact("Plan", state.plan),
    ...fact("Requests left", state.rate === null ? null : `${count(state.rate)}${burst}`),
    ...fact("Runs left this month", state.month === null ? null : count(state.month)),
  );
}

function fact(name, value) {
  return value === null ? [] : [element("div", {}, element("dt", {}, name), element("dd", {}, value))];
}
