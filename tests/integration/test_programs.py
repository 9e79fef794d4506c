"""Test that each program of programs/ behaves in a sandbox as under plain `python3 main.py < input`.

Programs must not depend on what differs by design: stdout is line-buffered in a sandbox, so complete lines survive
os._exit and signals, and some modules are loaded before the program starts.
"""

import difflib
from pathlib import Path

import pytest

from tests.support.plain_python import ending_of
from tests.support.program_files import load_programs

PROGRAMS = load_programs(Path(__file__).with_name("programs"))
TIMEOUT_S = 3.0


def lines(ending):
    """Return the lines of an ending with their stream."""
    ends = [f"exit code {ending.exit_code}, signal {ending.signal}"]
    for name, text in (("stdout", ending.stdout), ("stderr", ending.stderr)):
        ends += [f"{name}: {line!r}" for line in text.splitlines(keepends=True)]
    return ends


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_program_behaves_as_under_plain_python(run, plain_python, program):
    outcome = run(program.code, program.stdin, timeout_s=TIMEOUT_S)
    expected, actual = lines(plain_python(program.code, program.stdin)), lines(ending_of(outcome))
    difference = "\n".join(difflib.unified_diff(expected, actual, "plain Python", "sandbox", n=1, lineterm=""))
    assert difference == "", f"status {outcome.status}\n{difference}"
    assert outcome.exit_code == program.exit_code
