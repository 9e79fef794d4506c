// Shows why a request has no result, and what to do about it.
import { ApiError, UnreachableError } from "./api-client.js";
import { element } from "./dom.js";
import { retryTime } from "./format.js";

const HINTS = {
  413: "Send less input, or fewer or smaller files.",
  429: "Nothing is lost: run the program again then.",
  503: "The service is busy or starting. Run the program again then.",
};

/** Return the title, detail and wait of an error. */
export function describe(error) {
  if (error instanceof UnreachableError) {
    const isOffline = navigator.onLine === false;
    return {
      title: isOffline ? "You are offline" : "The service cannot be reached",
      detail: isOffline ? "Connect to the network and run the program again." : "It may be restarting, or the connection was lost. Run the program again.",
      retryAfterS: null,
    };
  }
  if (!(error instanceof ApiError)) return { title: "The page failed", detail: String(error), retryAfterS: null };
  const { title, detail, status } = error.problem;
  return { title, detail: detail ?? "", hint: HINTS[status], status, field: error.problem.field, retryAfterS: error.retryAfterS };
}

/** Return the elements that show a description. */
export function problemElements({ title, detail, hint, status, field, retryAfterS }) {
  return [
    element(
      "div",
      { class: "problem", role: "alert" },
      element("div", { class: "headline" }, status ? element("span", { class: "badge error" }, `HTTP ${status}`) : null, element("strong", {}, title)),
      detail ? element("p", {}, detail) : null,
      field ? element("p", { class: "hint" }, "Field: ", element("code", {}, field)) : null,
      hint ? element("p", { class: "hint" }, hint) : null,
      retryAfterS ? element("p", {}, "You can try again ", countdown(retryAfterS), ".") : null,
    ),
  ];
}

/** Return the element in which runner.js counts down. It changes often, so a screen reader does not follow it. */
function countdown(retryAfterS) {
  return element("strong", { id: "countdown", "aria-live": "off" }, retryTime(retryAfterS));
}
