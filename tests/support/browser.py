"""Chromium for the browser tests: an installed one, or Debian's, which this installs.

`python -m tests.support.browser` only installs it.
"""

import contextlib
import shutil
from collections.abc import Iterator

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Dialog, Page, Request, expect, sync_playwright

from infra import progress
from infra.errors import CommandError, exit_on_error
from infra.images.debian_base import apt_install

PACKAGE = "chromium-headless-shell"  # without the user interface of the package chromium
COMMANDS = (PACKAGE, "chromium", "chromium-browser", "google-chrome")
TIMEOUT_MS = 60_000
EXPECTED_ERROR = "Failed to load resource"  # the console names each response of 400 and above


def executable() -> str:
    """Return the path of a Chromium. Install it as root on Debian. Raises CommandError."""
    for command in COMMANDS:
        if path := shutil.which(command):
            return path
    progress.report("Installing headless Chromium with apt-get (about 100 MB)...")
    apt_install(PACKAGE)
    if path := shutil.which(PACKAGE):
        return path
    raise CommandError(f"The browser tests need one of {', '.join(COMMANDS)}.")


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Yield a running browser."""
    expect.set_options(timeout=TIMEOUT_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable())
        try:
            yield browser
        finally:
            browser.close()


def serious_violations(page: Page) -> list[tuple[str, list[str]]]:
    """Return the rules of axe that elements of the page break, with those elements."""
    violations = Axe().run(page).response["violations"]
    return [
        (violation["id"], [node["html"][:200] for node in violation["nodes"]])
        for violation in violations
        if violation["impact"] in {"serious", "critical"}
    ]


class Watch:
    """Records what no page of the API may do: errors of scripts, blocked content, dialogs, requests to other hosts."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.incidents: list[str] = []
        self._url = url.rstrip("/") + "/"
        context.on("request", self._check_request)
        context.on("page", self._watch)

    def _watch(self, page: Page) -> None:
        page.on("console", self._check_message)
        page.on("pageerror", lambda error: self.incidents.append(f"error: {error}"))
        page.on("dialog", self._dismiss)

    def _dismiss(self, dialog: Dialog) -> None:
        self.incidents.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _check_message(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and not message.text.startswith(EXPECTED_ERROR):
            self.incidents.append(f"{message.type}: {message.text}")

    def _check_request(self, request: Request) -> None:
        if not request.url.startswith((self._url, f"blob:{self._url}")):
            self.incidents.append(f"request: {request.url}")


if __name__ == "__main__":
    with exit_on_error():
        executable()
