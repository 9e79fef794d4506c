"""The reference page and a problem page in a real browser, which watches for blocked content and other hosts."""

import re

from playwright.sync_api import expect

from tests.support.openapi_contract import document


def test_reference_page_lists_every_operation(new_context, stack):
    page = new_context().new_page()
    page.goto(f"{stack.url}/docs")
    operations = sum(map(len, document()["paths"].values()))
    expect(page.locator(".opblock")).to_have_count(operations + len(document()["webhooks"]))


def test_request_of_reference_page_runs_a_program(new_context, stack):
    page = new_context().new_page()
    page.goto(f"{stack.url}/docs")
    page.get_by_role("button", name="Authorize").first.click()
    page.get_by_label("Value").first.fill(stack.api_key)
    page.locator(".auth-container").first.get_by_role("button", name="Apply credentials").click()
    page.get_by_role("button", name="Close").last.click()
    page.locator(".opblock-post").first.locator(".opblock-summary-control").click()
    page.get_by_role("button", name="Execute").first.click()
    expect(page.locator(".live-responses-table .response .response-col_status").first).to_have_text(re.compile("200"))


def test_problem_page_fits_narrow_screens(new_context, stack):
    page = new_context(viewport={"width": 360, "height": 740}).new_page()
    page.goto(f"{stack.url}/problems/rate-limited")
    expect(page.get_by_role("heading", name="Rate limit exceeded")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
