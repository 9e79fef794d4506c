"""The value of a last expression, which the tool run_python shows."""

import subprocess
import sys

import pytest

from chalicelib.api.last_expression import MAX_PARSED_BYTES, display_last_expression

pytestmark = pytest.mark.filterwarnings("ignore::SyntaxWarning")  # pytest replaces the filter of the module
PROGRAMS = {
    "number": ("6 * 7", "42\n"),
    "name": ("x = 3\nx", "3\n"),
    "tuple": ("1, 2", "(1, 2)\n"),
    "starred": ("*range(2), 9", "(0, 1, 9)\n"),
    "generator": ("type((i for i in 'a'))", "<class 'generator'>\n"),
    "several_lines": ("x = [\n1,\n2]\n[i\n for i in x]  # comment", "[1, 2]\n"),
    "after_semicolon": ("x = 1; x", "1\n"),
    "non_ascii_before": ("ä = 'ü'; ä + 'ö'  # é", "'üö'\n"),
    "string": ("'''a\nb'''", "'a\\nb'\n"),
    "continued": ("x = 5\n\\\nx", "5\n"),
    "form_feed": ("x = 5\n\x0cx", "5\n"),
    "crlf": ("x = 3\r\nx\r\n", "3\n"),
    "future_import": ("from __future__ import annotations\n3", "3\n"),
    "redefined_print": ("print = repr = None\n3", "3\n"),
    "none": ("None", ""),
    "print": ("print(1)", "1\n"),
    "hidden": ("6 * 7;", ""),
    "statement": ("x = 6 * 7", ""),
    "in_block": ("if True:\n    6 * 7", ""),
    "empty": ("", ""),
    "comment": ("# nothing", ""),
}
UNPARSABLE = {
    "syntax_error": "1 +",
    "nul": "1\0",
    "parentheses": "(" * 20_000,
    "minus": "-" * 60_000 + "1",
    "attributes": "a" + ".b" * 30_000,
    "calls": "f(" * 9_000 + ")" * 9_000,
    "operators": "1" + "+1" * 30_000,
    "conditions": "1if 1else " * 6_000 + "1",
    "lambdas": "lambda:" * 9_000 + "1",
    "nested_formats": "f'{" * 3_000,
    "digits": "1" * 60_000,
    "blocks": "".join(" " * depth + "if 1:\n" for depth in range(300)),
}


def run(tmp_path, code):
    """Run a program with Python, as the sandbox does, and return its output and its restored traceback."""
    program = display_last_expression(code)
    (tmp_path / "main.py").write_bytes(program.code.encode())
    ended = subprocess.run([sys.executable, "main.py"], cwd=tmp_path, capture_output=True, check=False, timeout=60)
    return ended.stdout.decode(), program.restore_traceback(ended.stderr.decode())


@pytest.mark.parametrize(("code", "stdout"), PROGRAMS.values(), ids=PROGRAMS)
def test_value_of_last_expression_is_printed(tmp_path, code, stdout):
    assert run(tmp_path, code) == (stdout, "")


@pytest.mark.parametrize("code", ["1 / 0", "x = 1\n\ny = 2; x / 0  # comment", "(1 /\n 0)", "def f():\n    1 / 0\nf()"])
def test_traceback_is_that_of_the_original_program(tmp_path, code):
    (tmp_path / "main.py").write_text(code)
    original = subprocess.run([sys.executable, "main.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    _, stderr = run(tmp_path, code)
    assert stderr == original.stderr


@pytest.mark.parametrize("code", UNPARSABLE.values(), ids=UNPARSABLE)
def test_unparsable_program_is_handled(code):
    program = display_last_expression(code)
    assert program.code.replace('__import__("sys").displayhook((', "", 1).count("1") == code.count("1")


def test_large_program_is_not_parsed():
    code = "1\n" * (MAX_PARSED_BYTES // 2)
    assert display_last_expression(code).code != code
    assert display_last_expression(code + "\n").code == code + "\n"


def test_parsing_writes_no_warning():
    program = "from chalicelib.api.last_expression import *; display_last_expression('1if 1else 2')"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (ended.stdout, ended.stderr) == ("", "")
