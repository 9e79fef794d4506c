"""Read the exceptions of programs from what the sandbox image's Python writes today.

If a test fails after a change of Python, run `python -m tests.support.stderr_recorder` and look at what differs.
"""

import pytest

from executor_host.traceback_parser import parse_uncaught_exception
from tests.support.exception_programs import PROGRAMS
from tests.support.stderr_recorder import recorded, recorder

VERSION, RECORDINGS = recorded()


@pytest.fixture(scope="module")
def python(image):
    with recorder(image) as python:
        yield python


@pytest.mark.parametrize("name", PROGRAMS)
def test_exception_of_program_is_read(python, name):
    stderr = python.run(PROGRAMS[name]).stderr
    assert parse_uncaught_exception(stderr) == RECORDINGS[name].expected(name)
    assert python.version != VERSION or stderr == RECORDINGS[name].stderr
