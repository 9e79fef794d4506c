// Tabs as in https://www.w3.org/WAI/ARIA/apg/patterns/tabs/: arrow keys move, Home and End jump.

/** Set up the tabs of a tablist. `onSelect` gets the id of each tab that becomes selected. */
export function setUpTabs(tablist, onSelect = () => {}) {
  const tabs = [...tablist.querySelectorAll("[role=tab]")];
  const steps = { ArrowLeft: -1, ArrowRight: 1, Home: -tabs.length, End: tabs.length };

  function select(tab) {
    for (const other of tabs) {
      const isSelected = other === tab;
      other.setAttribute("aria-selected", isSelected);
      other.tabIndex = isSelected ? 0 : -1;
      document.getElementById(other.getAttribute("aria-controls")).hidden = !isSelected;
    }
    onSelect(tab.id);
  }

  tablist.addEventListener("click", (event) => {
    const tab = event.target.closest("[role=tab]");
    if (tab) select(tab);
  });
  tablist.addEventListener("keydown", (event) => {
    if (!(event.key in steps)) return;
    event.preventDefault();
    const index = tabs.indexOf(event.target.closest("[role=tab]"));
    const isJump = event.key === "Home" || event.key === "End";
    const next = index + steps[event.key];
    const last = tabs.length - 1;
    const target = isJump ? Math.min(Math.max(next, 0), last) : (next + tabs.length) % tabs.length;
    tabs[target].focus();
    select(tabs[target]);
  });
  select(tabs.find((tab) => tab.getAttribute("aria-selected") === "true"));
  return { select: (id) => select(tabs.find((tab) => tab.id === id)) };
}
