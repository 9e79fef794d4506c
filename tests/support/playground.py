"""The playground as its user sees it: by labels, roles and text."""

from typing import Any

from playwright.sync_api import Locator, Page, expect


class Playground:
    """An open playground."""

    def __init__(self, page: Page, url: str, api_key: str) -> None:
        self.page = page
        self.url = url
        self.api_key = api_key

    def open(self, *, with_key: bool = True, fragment: str = "") -> "Playground":
        """Load the page, with the key entered before unless `with_key` is false."""
        if with_key:
            self.page.goto(f"{self.url}/health")  # loads faster than the playground, and has the same storage
            self.page.evaluate("key => sessionStorage.setItem('python-exec-key', key)", self.api_key)
        self.page.goto("about:blank")  # else a fragment alone would not load the page again
        self.page.goto(f"{self.url}/{fragment}")
        expect(self.run_button).to_be_enabled()
        return self

    @property
    def run_button(self) -> Locator:
        """Return the button that runs the program."""
        return self.page.get_by_role("button", name="Run", exact=False).and_(self.page.locator("#run"))

    @property
    def result(self) -> Locator:
        """Return the panel with the result."""
        return self.page.get_by_role("tabpanel", name="Result")

    @property
    def status(self) -> Locator:
        """Return the colored status of a result."""
        return self.result.locator(".badge").first

    @property
    def dialog(self) -> Locator:
        """Return the dialog that asks for the key."""
        return self.page.get_by_role("dialog", name="API key")

    def stream(self, name: str) -> Locator:
        """Return the text of stdout or stderr."""
        return self.result.get_by_role("region", name=name)

    def tab(self, name: str) -> None:
        """Select a tab."""
        self.page.get_by_role("tab", name=name).click()

    def type_code(self, code: str) -> None:
        """Replace the program, as pasting does."""
        self.page.evaluate("code => ace.edit('editor').session.setValue(code)", code)

    def code(self) -> str:
        """Return the program in the editor."""
        text: str = self.page.evaluate("ace.edit('editor').getValue()")
        return text

    def run(self, code: str | None = None, *, status: str | None = None) -> "Playground":
        """Run the program, or this one, and wait for this status if it is not None."""
        if code is not None:
            self.type_code(code)
        self.run_button.click()
        if status is not None:
            expect(self.status).to_have_text(status)
        return self

    def submit_key(self, key: str) -> None:
        """Enter a key into the open dialog."""
        self.dialog.get_by_label("Your key").fill(key)
        self.dialog.get_by_role("button", name="Use this key").click()

    def drop_file(self, name: str, content: str) -> None:
        """Drop a file onto the page."""
        transfer = self.page.evaluate_handle(
            """([name, text]) => {
              const data = new DataTransfer();
              data.items.add(new File([text], name));
              return data;
            }""",
            [name, content],
        )
        for event in ("dragover", "drop"):
            self.page.dispatch_event("body", event, {"dataTransfer": transfer})

    def answer_with(self, path: str, *, status: int, body: str, headers: dict[str, str] | None = None) -> None:
        """Answer requests to a path in place of the API."""
        sent: dict[str, Any] = {"status": status, "body": body, "headers": headers or {}}
        self.page.route(f"{self.url}{path}", lambda route: route.fulfill(**sent))
