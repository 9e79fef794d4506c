"""The playground in a real browser: each control, against the whole stack."""

import json
import os
import re
import subprocess
import sys

import pytest
from playwright.sync_api import expect

from tests.support.playground import Playground

PNG = (  # one pixel
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de000"
    "0000c49444154789c6308a8b8030002c001a55258d8400000000049454e44ae426082"
)
EXAMPLES = {  # the status of each
    "Hello": "ok",
    "Read input": "ok",
    "Arguments": "ok",
    "Exception": "error",
    "Files": "ok",
    "Chart": "ok",
    "Batch: leap years": "failed",
    "Timeout": "timeout",
    "No network": "error",
}


@pytest.fixture
def opened(playground):
    return playground.open()


def clipboard(page):
    return page.evaluate("navigator.clipboard.readText()")


def width(image):
    """Return the width of a displayed image, which is also a proof that the browser could decode it."""
    return image.evaluate("async (image) => { await image.decode(); return image.naturalWidth; }")


def test_run_shows_streams_apart_with_status_and_usage(opened):
    opened.run("import sys\nprint('out')\nprint('err', file=sys.stderr)\nsys.exit(3)", status="error")
    expect(opened.stream("stdout")).to_have_text("out\n")
    expect(opened.stream("stderr")).to_have_text("err\n")
    expect(opened.page.locator("#result")).to_have_attribute("aria-busy", "false")
    facts = opened.result.locator(".facts")
    assert re.search(r"Exit code\s*3", facts.inner_text())
    assert re.search(r"Time\s*\d+ ms", facts.inner_text())
    assert re.search(r"Memory\s*[\d.]+ MiB", facts.inner_text())
    opened.result.get_by_role("button", name="Copy stderr").click()
    expect(opened.page.locator("#toast")).to_have_text("Copied stderr.")
    assert clipboard(opened.page) == "err\n"


@pytest.mark.parametrize("place", ["editor", "input"])
def test_ctrl_enter_runs_the_program(opened, place):
    if place == "input":
        opened.type_code("print(input()[::-1])")
        opened.page.get_by_label("Standard input").fill("hello")
    else:
        opened.page.locator("#editor").click()
        opened.page.keyboard.press("Control+A")
        opened.page.keyboard.type("print('olleh')")
    opened.page.keyboard.press("Control+Enter")
    expect(opened.stream("stdout")).to_have_text("olleh\n")


def test_keyboard_alone_runs_a_program(opened):
    page = opened.page
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the editor")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("textbox", name="Program")).to_be_focused()
    page.keyboard.press("Control+A")
    page.keyboard.type("print('by keyboard')")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Copy link").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "run"
    page.keyboard.press("Enter")
    expect(opened.stream("stdout")).to_have_text("by keyboard\n")


def test_key_is_asked_for_once_and_kept_for_the_tab(playground):
    playground.open(with_key=False)
    playground.run("print(1)")
    playground.submit_key(playground.api_key)
    expect(playground.status).to_have_text("ok")
    playground.page.reload()
    playground.run("print(2)", status="ok")
    expect(playground.dialog).to_be_hidden()
    assert playground.api_key not in json.dumps(playground.page.evaluate("({...localStorage})"))
    assert playground.api_key not in playground.page.content()

    other_tab = Playground(playground.page.context.new_page(), playground.url, playground.api_key).open(with_key=False)
    other_tab.run("print(3)")
    expect(other_tab.dialog).to_be_visible()


def test_key_can_be_forgotten(opened):
    expect(opened.page.locator("#limits")).to_contain_text("internal")
    opened.page.get_by_role("button", name="API key").click()
    opened.dialog.get_by_role("button", name="Forget the key").click()
    assert opened.page.evaluate("sessionStorage.length") == 0
    expect(opened.page.locator("#limits")).to_be_empty()
    opened.run("print(1)")
    expect(opened.dialog).to_be_visible()


def test_line_of_exception_is_marked_until_the_program_changes(opened):
    opened.run("x = 1\n\n1 / 0\n", status="error")
    expect(opened.result).to_contain_text("ZeroDivisionError: division by zero")
    expect(opened.page.locator(".ace_gutter-cell.error-line")).to_have_text("3")
    opened.result.get_by_role("button", name="Go to line 3").click()
    opened.page.keyboard.type("#")
    assert opened.code() == "x = 1\n\n#1 / 0\n"
    expect(opened.page.locator(".error-line")).to_have_count(0)


def test_arguments_are_passed_one_a_line(opened):
    opened.tab("Arguments")
    opened.page.get_by_label("Arguments, one a line").fill("-n\ntwo words")
    opened.run("import sys; print(sys.argv[1:])", status="ok")
    expect(opened.stream("stdout")).to_have_text("['-n', 'two words']\n")


def test_chosen_and_dropped_files_are_sent_and_returned(opened):
    opened.tab("Files")
    chosen = {"name": "data.bin", "mimeType": "application/octet-stream", "buffer": b"\xff\x00"}
    opened.page.get_by_label("choose files").set_input_files([chosen])
    opened.drop_file("a.txt", "first\n")
    opened.page.get_by_label("Path of the file").last.fill("sub/a.txt")
    opened.drop_file("unused.txt", "")
    opened.page.get_by_role("button", name="Remove unused.txt").click()
    expect(opened.page.locator("#file-total")).to_have_text("2 files, 8 B")
    opened.page.get_by_label("Files to return").fill("*.out sub/*")
    opened.run(
        "import pathlib\n"
        "print(pathlib.Path('data.bin').read_bytes(), pathlib.Path('sub/a.txt').read_text(), end='')\n"
        "pathlib.Path('copy.out').write_bytes(bytes(range(256)))",
        status="ok",
    )
    expect(opened.stream("stdout")).to_have_text("b'\\xff\\x00' first\n")
    with opened.page.expect_download() as download:
        opened.result.get_by_role("button", name="Download copy.out").click()
    assert download.value.path().read_bytes() == bytes(range(256))
    expect(opened.result).not_to_contain_text("sub/a.txt")


def test_image_is_displayed(opened):
    opened.run(f"open('pixel.png', 'wb').write(bytes.fromhex('{PNG}'))", status="ok")
    image = opened.result.get_by_role("img", name="Image pixel.png")
    expect(image).to_be_visible()
    assert width(image) == 1


def test_omitted_file_is_listed_with_its_reason(opened):
    opened.run("import os; os.mkdir('directory'); open('kept.txt', 'w').close()", status="ok")
    expect(opened.result).to_contain_text("not a file")
    expect(opened.result.get_by_role("button", name="Download kept.txt")).to_be_visible()


def test_batch_shows_verdict_and_output_of_each_run(opened):
    opened.page.get_by_label("Example").select_option("Batch: leap years")
    opened.run()
    expect(opened.result).to_contain_text("3 passed, 1 failed of 4 runs")
    rows = opened.result.locator("tbody tr")
    assert [re.split(r"\s+", row.inner_text())[1] for row in rows.all()] == ["passed", "passed", "passed", "failed"]
    assert rows.last.locator("pre").all_inner_texts() == ["2023", "leap", "common\n"]


def test_batch_is_edited_and_ends_at_its_first_failure(opened):
    opened.tab("Batch")
    opened.page.get_by_role("button", name="Add a run").click()
    opened.page.get_by_role("button", name="Add a run").click()
    opened.page.get_by_role("button", name="Remove this run").last.click()
    for name, values in {"Input": ("a", "b"), "Arguments": ("", "-n\n2"), "Expected output": ("x", "")}.items():
        for field, value in zip(opened.page.locator("#cases").get_by_label(name).all(), values, strict=True):
            field.fill(value)
    opened.page.get_by_label("Stop at the first failure").check()
    opened.run("import sys; print(input(), sys.argv[1:])")
    expect(opened.result).to_contain_text("0 passed, 1 failed, 1 not run of 2 runs")
    opened.page.get_by_label("Stop at the first failure").uncheck()
    opened.run()
    expect(opened.result).to_contain_text("0 passed, 1 failed, 1 not checked of 2 runs")
    opened.result.get_by_text("Input and output").last.click()
    expect(opened.result.locator("tbody tr").last).to_contain_text("b ['-n', '2']")


def test_timeout_is_sent_and_reported(opened):
    opened.page.get_by_label("Timeout").fill("0.3")
    opened.run("print('before', flush=True)\nwhile True: pass", status="timeout")
    expect(opened.stream("stdout")).to_have_text("before\n")


def test_invalid_timeout_is_not_sent(opened):
    opened.page.get_by_label("Timeout").fill("11")
    opened.run()
    assert opened.page.evaluate("document.activeElement.id") == "timeout"
    expect(opened.result).to_contain_text("to run the program")


def test_asynchronous_run_shows_its_result(opened):
    opened.page.get_by_label("Asynchronous").check()
    opened.run("print('later')")
    expect(opened.result).to_contain_text("Accepted as a job")
    expect(opened.stream("stdout")).to_have_text("later\n")


def test_canceled_job_is_deleted(opened):
    opened.page.get_by_label("Asynchronous").check()
    opened.run("import time; time.sleep(2)")
    expect(opened.result).to_contain_text("Accepted as a job")
    with opened.page.expect_response(lambda response: response.request.method == "DELETE") as deletion:
        opened.page.get_by_role("button", name="Cancel").click()
    assert deletion.value.status == 204
    expect(opened.result).to_contain_text("Canceled.")


def test_cut_output_says_how_much_was_written(opened):
    opened.run("print('x' * 300_000)", status="ok")
    expect(opened.result).to_contain_text("300,001 bytes written, not all of them shown here")


def test_limits_show_what_is_left(opened, create_key):
    opened.api_key = create_key("pro")
    opened.open().run("print(1)", status="ok")
    limits = opened.page.locator("#limits")
    expect(limits).to_contain_text("pro")
    expect(limits).to_contain_text("99,999")
    expect(limits).to_contain_text(re.compile(r"Requests left\s*(19|20) / 20"))


@pytest.mark.parametrize("tab", ["curl", "Python"])
def test_copied_request_runs(opened, tab):
    opened.type_code("import sys\nprint('''it's \"\\\\n\" é''', input(), sys.argv[1:])")
    opened.page.get_by_label("Standard input").fill("$HOME `x` \U0001f40d\n")
    opened.tab("Arguments")
    opened.page.get_by_label("Arguments, one a line").fill("JSON")
    opened.tab(tab)
    opened.page.get_by_role("button", name="Copy the").click()
    expect(opened.page.locator("#toast")).to_contain_text("Copied")
    command = {"curl": ["bash", "-c"], "Python": [sys.executable, "-c"]}[tab]
    environment = {"PATH": os.environ["PATH"], "API_KEY": opened.api_key, "LANG": "C.UTF-8"}
    completed = subprocess.run(
        [*command, clipboard(opened.page)], env=environment, capture_output=True, text=True, check=True
    )
    assert json.loads(completed.stdout)["stdout"] == "it's \"\\n\" é $HOME `x` \U0001f40d ['JSON']\n"
    assert opened.api_key not in clipboard(opened.page)


@pytest.mark.parametrize(("name", "status"), EXAMPLES.items(), ids=EXAMPLES)
def test_example_runs(opened, name, status):
    opened.page.get_by_label("Example").select_option(name)
    if status != "timeout":
        opened.page.get_by_label("Timeout").fill("10")  # on a slow machine, the chart may need more than its own
    opened.run(status=status)
    figures = opened.result.get_by_role("img").all()
    assert [width(image) for image in figures] == ([640] if name == "Chart" else [])


def test_every_example_is_run(opened):
    assert opened.page.get_by_label("Example").locator("option").all_inner_texts()[1:] == list(EXAMPLES)


def test_loading_an_example_can_be_undone(opened):
    opened.type_code("print('mine')")
    opened.page.get_by_label("Example").select_option("Timeout")
    opened.page.locator("#editor").click()
    opened.page.keyboard.press("Control+Z")
    assert opened.code() == "print('mine')"


def test_chosen_runtime_runs_the_program(opened):
    runtimes = opened.page.get_by_label("Runtime")
    expect(runtimes.locator("option")).to_have_text(["python", "data"])
    runtimes.select_option("data")
    opened.page.get_by_label("Timeout").fill("10")
    opened.run("import numpy; print(numpy.arange(3).sum())", status="ok")
    expect(opened.stream("stdout")).to_have_text("3\n")
    expect(opened.result.locator(".facts")).to_contain_text("data 3.13")


def test_long_output_scrolls_in_its_panel(opened):
    opened.run("import sys\nprint('out\\n' * 200)\nprint('err\\n' * 200, file=sys.stderr)", status="ok")
    expect(opened.stream("stderr")).to_contain_text("err")
    assert opened.page.evaluate("document.documentElement.scrollHeight - innerHeight") == 0


def test_link_holds_the_program_and_does_not_run_it(opened, new_context, stack):
    opened.type_code("print(input(), '\u00e9')")
    opened.page.get_by_label("Standard input").fill("from the link")
    opened.page.get_by_label("Timeout").fill("1.5")
    opened.page.get_by_role("button", name="Copy link").click()
    expect(opened.page.locator("#toast")).to_contain_text("Copied a link")
    link = clipboard(opened.page)
    assert link.startswith(f"{stack.url}/#program=")

    other = Playground(new_context().new_page(), stack.url, stack.api_key)
    other.open(fragment=link.removeprefix(f"{stack.url}/"))
    expect(other.page.locator("#toast")).to_contain_text("Read it before you run it")
    assert other.code() == "print(input(), '\u00e9')"
    assert other.page.get_by_label("Timeout").input_value() == "1.5"
    expect(other.result).to_contain_text("to run the program")
    other.run(status="ok")
    expect(other.stream("stdout")).to_have_text("from the link \u00e9\n")


@pytest.mark.parametrize("fragment", ["#program=", "#program=!!", "#program=AAAA", "#program=q1YqSS0uUbJSUEoqKAIA"])
def test_damaged_link_is_reported(playground, fragment):
    playground.open(fragment=fragment)
    expect(playground.page.locator("#toast")).to_have_text("The link is damaged: it holds no program.")
    assert playground.code().startswith("import sys")


def test_theme_is_applied_and_remembered(opened):
    def background():
        return opened.page.evaluate("getComputedStyle(document.body).backgroundColor")

    light = background()
    opened.page.get_by_label("Theme").select_option("dark")
    dark = background()
    opened.page.reload()
    assert (background(), light) == (dark, "rgb(244, 245, 248)")
    assert dark != light


def test_arrow_keys_move_between_tabs(opened):
    opened.page.get_by_role("tab", name="Input").focus()
    for key, name in (("ArrowRight", "Arguments"), ("End", "Batch"), ("ArrowRight", "Input"), ("ArrowLeft", "Batch")):
        opened.page.keyboard.press(key)
        expect(opened.page.get_by_role("tab", name=name)).to_be_focused()
        expect(opened.page.get_by_role("tabpanel", name=name)).to_be_visible()
