// The editor of the program: Ace, which its classic scripts define as the global `ace`. Its colors are in code-editor.css.

const THEME = { cssClass: "ace-playground", cssText: "", isDark: false };
const ERROR_CLASS = "error-line";

/** Create the editor in an element. `onRun` is called on Ctrl+Enter, `onChange` after each change. */
export function createEditor(container, { onRun, onChange }) {
  const { ace } = window;
  ace.config.set("useStrictCSP", true); // it would insert style elements, which the page's policy forbids
  ace.config.set("loadWorkerFromBlob", false);
  const editor = ace.edit(container, {
    mode: "ace/mode/python",
    useWorker: false,
    fontSize: 14,
    showPrintMargin: false,
    showFoldWidgets: false,
    scrollPastEnd: 0.3,
    tabSize: 4,
    useSoftTabs: true,
    enableKeyboardAccessibility: true, // Tab does not get caught: Enter starts editing, Escape ends it
    textInputAriaLabel: "Program",
  });
  editor.setTheme(THEME);
  editor.commands.addCommand({ name: "run", bindKey: { win: "Ctrl-Enter", mac: "Command-Enter|Ctrl-Enter" }, exec: onRun });
  editor.commands.removeCommand("showSettingsMenu"); // loads another file
  editor.commands.removeCommand("goToNextError");
  editor.commands.removeCommand("goToPreviousError");
  const error = new ErrorMarker(editor.session, ace.require("ace/range").Range);
  editor.session.on("change", () => {
    error.clear();
    onChange();
  });
  return {
    getCode: () => editor.getValue(),
    setCode: (code) => {
      editor.setValue(code, -1); // can be undone, unlike session.setValue()
      error.clear();
    },
    markError: (line, message) => error.mark(line, message),
    clearError: () => error.clear(),
    goToLine: (line) => {
      editor.gotoLine(line, 0, !matchMedia("(prefers-reduced-motion: reduce)").matches);
      editor.focus();
    },
    focus: () => editor.focus(),
  };
}

/** Marks the line of an exception: its background, its number, and a tooltip at the number. */
class ErrorMarker {
  constructor(session, Range) {
    this.session = session;
    this.Range = Range;
    this.row = null;
    this.marker = null;
  }

  mark(line, message) {
    this.clear();
    const row = line - 1;
    if (!Number.isInteger(row) || row < 0 || row >= this.session.getLength()) return;
    this.row = row;
    this.marker = this.session.addMarker(new this.Range(row, 0, row, 1), ERROR_CLASS, "fullLine");
    this.session.addGutterDecoration(row, ERROR_CLASS);
    this.session.setAnnotations([{ row, column: 0, text: message, type: "error" }]);
  }

  clear() {
    if (this.row === null) return;
    this.session.removeMarker(this.marker);
    this.session.removeGutterDecoration(this.row, ERROR_CLASS);
    this.session.clearAnnotations();
    this.row = null;
  }
}
