"""Load a page in a new browser profile, and measure that first load."""

from typing import NamedTuple

from playwright.sync_api import Browser, Request

from tests.support.browser import TIMEOUT_MS

MAX_FIRST_LOAD_KB = 500
MAX_INTERACTIVE_MS = 1000  # on a machine that does nothing else


class PageLoad(NamedTuple):
    """What a first load takes."""

    requests: int
    compressed_kb: float
    interactive_ms: float


def load_page(browser: Browser, url: str) -> PageLoad:
    """Load a page that marks the time `interactive`, without a cache."""
    finished: list[Request] = []
    context = browser.new_context()
    try:
        context.set_default_timeout(TIMEOUT_MS)
        page = context.new_page()
        page.on("requestfinished", lambda request: finished.append(request))  # noqa: PLW0108 - it sets attributes
        page.goto(url)
        page.wait_for_function("performance.getEntriesByName('interactive').length === 1")
        page.wait_for_load_state("networkidle")
        interactive_ms = page.evaluate("performance.getEntriesByName('interactive')[0].startTime")
        sizes = [request.sizes()["responseBodySize"] for request in finished]
        return PageLoad(len(sizes), sum(sizes) / 1000, interactive_ms)
    finally:
        context.close()
