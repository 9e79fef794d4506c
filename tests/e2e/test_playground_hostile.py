"""Hostile code, output, file names and artifacts in the playground are text: nothing of them is executed.

The fixture new_context fails the test for each dialog, blocked script and request to another host.
"""

import base64
import json

import pytest
from playwright.sync_api import expect

MARKUP = (
    "<script>alert(1)</script><img src=x onerror=alert(2)><svg onload=alert(3)>"
    "<a href=javascript:alert(4)>x</a><iframe srcdoc='<script>alert(5)</script>'></iframe>"
    "<style>body{display:none}</style><link rel=stylesheet href=//evil.test/x.css>"
)
SVG = f"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(6)'><script>alert(7)</script>{MARKUP}</svg>"
RESULT = {
    "id": "0" * 32,
    "status": "error",
    "exit_code": 1,
    "signal": None,
    "stdout": MARKUP,
    "stderr": MARKUP,
    "truncated": {"stdout": False, "stderr": False},
    "output_bytes": {"stdout": 1, "stderr": 1},
    "error": {"type": MARKUP, "message": MARKUP, "line": 1},
    "usage": {"duration_ms": 1, "cpu_ms": 1, "memory_bytes": 1, "queued_ms": 1},
    "runtime": MARKUP,
    "python_version": MARKUP,
}


@pytest.fixture
def opened(playground):
    return playground.open()


def encoded(text):
    return base64.b64encode(text.encode()).decode()


def answer(playground, result):
    headers = {"Content-Type": "application/json"}
    playground.answer_with("/", status=200, body=json.dumps(result), headers=headers)


def assert_only_text(playground):
    """Fail if the page contains an element of MARKUP."""
    elements = "main :is(script, iframe, style, link, a, svg:not(.logo)), [onerror], [onload], .ace_tooltip img"
    assert playground.page.locator(elements).count() == 0
    assert playground.page.locator("body").is_visible()


def test_hostile_program_and_output_stay_text(opened):
    code = f"import sys\nprint({MARKUP!r})\nraise ValueError({MARKUP!r})"
    opened.run(code, status="error")
    expect(opened.stream("stdout")).to_have_text(MARKUP)
    expect(opened.stream("stderr")).to_contain_text(MARKUP)
    opened.page.locator(".ace_gutter-cell.error-line").hover()
    expect(opened.page.locator(".ace_tooltip")).to_contain_text("<script>")
    for tab in ("curl", "Python"):
        opened.tab(tab)
        expect(opened.page.get_by_role("tabpanel", name=tab)).to_contain_text("<script>")
    assert_only_text(opened)


def test_every_member_of_a_result_stays_text(opened):
    artifacts = [
        {"path": "<img src=x onerror=alert(8)>.svg", "content_base64": encoded(SVG)},
        {"path": "page.html", "content_base64": encoded(MARKUP)},
        {"path": f"{MARKUP}.png", "content_base64": encoded(SVG)},
    ]
    answer(opened, {**RESULT, "artifacts": artifacts, "artifacts_omitted": [{"path": MARKUP, "reason": MARKUP}]})
    opened.run(status="error")
    expect(opened.result).to_contain_text("page.html")
    images = opened.result.get_by_role("img")
    assert images.count() == 1
    assert images.evaluate("image => [image.src.startsWith('blob:'), image.naturalWidth]") == [True, 0]
    assert_only_text(opened)


def test_hostile_files_of_a_program_stay_text(opened):
    name = "<img src=x onerror=alert(9)>.png"
    opened.run(
        "from pathlib import Path\n"
        f"Path({name!r}).write_text({SVG!r})\n"
        f"Path('image.svg').write_text({SVG!r})\n"
        f"Path('page.html').write_text({MARKUP!r})",
        status="ok",
    )
    expect(opened.result.get_by_role("button", name="Download")).to_have_count(3)
    images = opened.result.get_by_role("img")
    assert images.evaluate_all("images => images.map((image) => [image.alt, image.naturalWidth])") == [
        [f"Image {name}", 0]
    ]
    assert_only_text(opened)


@pytest.mark.parametrize("name", ["image.svg", "page.html"])
def test_hostile_artifact_is_saved_and_not_opened(opened, name):
    answer(opened, {**RESULT, "artifacts": [{"path": f"../{name}", "content_base64": encoded(SVG)}]})
    opened.run(status="error")
    with opened.page.expect_download() as download:
        opened.result.get_by_role("button", name="Download").click()
    assert download.value.suggested_filename == name
    assert download.value.path().read_text() == SVG
    assert len(opened.page.context.pages) == 1


def test_hostile_problem_stays_text(opened):
    body = {"type": MARKUP, "title": MARKUP, "status": 400, "detail": MARKUP, "field": MARKUP}
    opened.answer_with("/", status=400, body=json.dumps(body), headers={"Content-Type": "application/problem+json"})
    opened.run()
    expect(opened.result).to_contain_text("<script>")
    assert_only_text(opened)


def test_hostile_file_name_stays_text(opened):
    opened.drop_file(MARKUP, MARKUP)
    assert opened.page.get_by_label("Path of the file").input_value() == MARKUP
    opened.page.get_by_label("Path of the file").fill(f"{MARKUP}2")
    assert_only_text(opened)


def test_hostile_link_stays_text(opened):
    program = {
        "code": MARKUP,
        "input": MARKUP,
        "args": [MARKUP],
        "files": [{"path": MARKUP, "content": MARKUP}],
        "artifacts": ["*"],
        "runtime": MARKUP,
        "runs": [{"input": MARKUP, "args": [MARKUP], "expected_output": MARKUP}],
    }
    fragment = opened.page.evaluate(
        """async (text) => {
          const stream = new Blob([text]).stream().pipeThrough(new CompressionStream("deflate-raw"));
          const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
          return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
        }""",
        json.dumps(program),
    )
    opened.open(fragment=f"#program={fragment}")
    expect(opened.page.locator("#toast")).to_contain_text("Loaded the program")
    assert opened.code() == MARKUP
    assert_only_text(opened)


def test_link_cannot_expand_without_bound(opened):
    fragment = opened.page.evaluate(
        """async () => {
          const text = '{"code": "' + "x".repeat(32 * 1024 * 1024) + '"}';
          const stream = new Blob([text]).stream().pipeThrough(new CompressionStream("deflate-raw"));
          const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
          const binary = Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
          return btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
        }"""
    )
    opened.open(fragment=f"#program={fragment}")
    expect(opened.page.locator("#toast")).to_have_text("The link is damaged: it holds no program.")


def test_policy_blocks_markup_even_if_it_were_parsed(browser, stack):
    page = browser.new_page()
    page.goto(stack.url)
    blocked = page.evaluate(
        """async (markup) => {
          const violations = [];
          addEventListener("securitypolicyviolation", (event) => violations.push(event.effectiveDirective));
          document.body.insertAdjacentHTML("beforeend", markup);
          const isReported = () => violations.length >= 3;
          for (let tries = 0; tries < 200 && !isReported(); tries++) await new Promise((done) => setTimeout(done, 50));
          return violations;
        }""",
        "<img src=x onerror=alert(1)><style>body{color:red}</style><img src=//evil.test/x.png>",
    )
    page.close()
    assert {"script-src-attr", "style-src-elem", "img-src"} <= set(blocked)
