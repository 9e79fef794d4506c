// The theme: the system's, or the one chosen here, which the browser remembers.
import { byId } from "./dom.js";

const NAME = "python-exec-theme";
const CHOICES = ["auto", "light", "dark"];

/** Apply the remembered theme and let the select element change it. */
export function setUpTheme() {
  const select = byId("theme");
  select.value = remembered();
  apply(select.value);
  select.addEventListener("change", () => {
    apply(select.value);
    try {
      localStorage.setItem(NAME, select.value);
    } catch {
      // Storage is blocked: the choice lasts until the page is closed.
    }
  });
}

function apply(choice) {
  if (choice === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = choice;
}

function remembered() {
  try {
    const choice = localStorage.getItem(NAME);
    return CHOICES.includes(choice) ? choice : "auto";
  } catch {
    return "auto";
  }
}
