"""The playground as a page: accessibility, narrow screens, weight, and screenshots in .local/screenshots."""

import pytest
from playwright.sync_api import expect

from infra.paths import LOCAL
from tests.support.browser import serious_violations
from tests.support.page_load import MAX_FIRST_LOAD_KB, MAX_INTERACTIVE_MS, load_page
from tests.support.playground import Playground

SCREENSHOTS = LOCAL / "screenshots"
SCHEMES = ("light", "dark")
SIZES = {"wide": {"width": 1280, "height": 800}, "narrow": {"width": 360, "height": 740}}
FAILING = (
    "def average(numbers):\n    return sum(numbers) / len(numbers)\n\nprint(average([3, 4, 5]))\nprint(average([]))\n"
)
BUSY = 10  # tests share the machine; `python -m tests.load.page_load` measures without them


@pytest.fixture(params=[(size, scheme) for size in SIZES for scheme in SCHEMES], ids="-".join)
def view(request, new_context, stack):
    """An open playground of each size in each color scheme, and its name."""
    size, scheme = request.param
    context = new_context(viewport=SIZES[size], color_scheme=scheme, reduced_motion="reduce")
    return Playground(context.new_page(), stack.url, stack.api_key).open(), f"{size}-{scheme}"


def overflow(page):
    """Return by how many pixels the page is wider than its window."""
    return page.evaluate("document.documentElement.scrollWidth - innerWidth")


def check(playground, name):
    """Save a screenshot, and check accessibility and width."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    playground.page.screenshot(path=SCREENSHOTS / f"{name}.png")
    assert (serious_violations(playground.page), overflow(playground.page)) == ([], 0)


def test_every_state_is_accessible_and_fits(view):
    playground, name = view
    check(playground, f"{name}-start")
    playground.run(FAILING, status="error")
    expect(playground.page.locator(".ace_gutter-cell.error-line")).to_be_visible()
    check(playground, f"{name}-exception")
    playground.drop_file("sales.csv", "product,units\npencil,120\n")
    check(playground, f"{name}-files")
    playground.page.get_by_label("Example").select_option("Batch: leap years")
    playground.run(status="failed")
    check(playground, f"{name}-batch")
    playground.tab("curl")
    check(playground, f"{name}-curl")
    playground.page.get_by_role("button", name="API key").click()
    check(playground, f"{name}-key")


def test_first_load_is_small_and_fast(browser, stack):
    load = load_page(browser, stack.url)
    assert load.requests > 20
    assert load.compressed_kb < MAX_FIRST_LOAD_KB
    assert load.interactive_ms < BUSY * MAX_INTERACTIVE_MS
