"""The reference page and a problem page in a real browser, which watches for blocked content and other hosts."""

import json
import re

import pytest
from playwright.sync_api import expect

from chalicelib.api import mcp_tools
from tests.support.browser import serious_violations
from tests.support.openapi_contract import document


def test_reference_page_lists_every_operation(new_context, stack):
    page = new_context().new_page()
    page.goto(f"{stack.url}/docs")
    expect(page.get_by_role("link", name="Playground")).to_have_attribute("href", "/")
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


def test_patterns_of_schemas_are_regular_expressions_of_javascript(new_context, stack):
    texts = [json.dumps(schemas) for schemas in (document()["components"], mcp_tools.list_tools())]
    patterns = sorted({pattern for text in texts for pattern in patterns_in(json.loads(text))})
    assert len(patterns) > 5
    page = new_context().new_page()
    page.goto(f"{stack.url}/docs")
    assert (
        page.evaluate(
            """(patterns) => patterns.filter((pattern) => {
          try { new RegExp(pattern, "u"); return false; } catch { return true; }
        })""",
            patterns,
        )
        == []
    )


def patterns_in(schema):
    """Yield each pattern of a schema."""
    members = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
    for member in members:
        yield from patterns_in(member)
    if isinstance(schema, dict) and isinstance(schema.get("pattern"), str):
        yield schema["pattern"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_problem_page_is_accessible_and_fits_narrow_screens(new_context, stack, scheme):
    page = new_context(viewport={"width": 360, "height": 740}, color_scheme=scheme).new_page()
    page.goto(f"{stack.url}/problems/rate-limited")
    expect(page.get_by_role("heading", name="Rate limit exceeded")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert serious_violations(page) == []
