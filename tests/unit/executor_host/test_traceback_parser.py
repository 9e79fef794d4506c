import time
import traceback
from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.contract import MAX_ERROR_MESSAGE_CHARS, UncaughtException
from executor_host.traceback_parser import parse_uncaught_exception
from tests.support.exception_programs import PROGRAMS
from tests.support.stderr_recorder import recorded

_, RECORDINGS = recorded()
HEADER = "Traceback (most recent call last):\n"
FRAME = '  File "/tmp/main.py", line 7, in <module>\n'
GROUP = '  + Exception Group Traceback (most recent call last):\n  |   File "/tmp/main.py", line 7, in <module>\n'


def error(type_, message, line):
    return UncaughtException(type=type_, message=message, line=line)


def test_every_program_is_recorded():
    assert list(RECORDINGS) == list(PROGRAMS)
    assert {recording.exit_code for recording in RECORDINGS.values()} == {1, 120}


@pytest.mark.parametrize("name", RECORDINGS)
def test_recorded_exception_is_read(name):
    recording = RECORDINGS[name]
    assert parse_uncaught_exception(recording.stderr) == recording.expected(name)


TEXTS = {  # what the sandbox's Python does not write, or not in every run
    "nothing": ("", None),
    "header_only": (HEADER, None),
    "frames_only": (HEADER + FRAME, None),  # killed while Python was printing
    "no_final_newline": (HEADER + FRAME + "E: m", error("E", "m", 7)),
    "type_only": (HEADER + FRAME + "E", error("E", "", 7)),
    "half_of_a_type": (HEADER + FRAME + "Key", error("Key", "", 7)),
    "half_of_a_group": (GROUP + "  | E: a\n  | b", error("E", "a\nb", 7)),
    "huge_line_number": (HEADER + FRAME.replace("7", "7" * 5000) + "E: m", error("E", "m", None)),
    "other_digits": (HEADER + FRAME.replace("7", "\u0667") + "E: m", None),
    "other_file_of_the_same_name": (HEADER + FRAME.replace("/tmp", "/tmp/a") + "E: m", error("E", "m", None)),
    "huge_type": (HEADER + FRAME + "E" * 5000 + ": m", error("E" * MAX_ERROR_MESSAGE_CHARS, "m", 7)),
    "huge_message": (HEADER + FRAME + "E: " + "m\n" * 100_000, error("E", "m\n" * (MAX_ERROR_MESSAGE_CHARS // 2), 7)),
    "recursion_with_other_output": (
        "x" * 40_000 + HEADER + FRAME + '  File "/tmp/main.py", line 3, in f\n    f()\n' * 5000 + "RecursionError: r\n",
        error("RecursionError", "r", 3),
    ),
    "file_name_with_a_newline": (HEADER + FRAME + '  File "a\nb", line 1, in f\nE: m\n', error("E", "m", 7)),
    "header_in_source_line": (
        HEADER + FRAME + '    x = """Traceback (most recent call last):\n' + FRAME + "E: m\n",
        error("E", "m", 7),
    ),
    "half_of_a_traceback_before": (
        HEADER + '  File "x.py", line 1, in f\n    working... ' + HEADER + FRAME + "E: m\n",
        error("E", "m", 7),
    ),
    "table": ("Table:\n  | name: value\n  | E: m\n", None),
    "group_of_python_3_12": (  # which does not repeat the margin in a message
        GROUP + "  | E: a\n  +-b\n\nc (2 sub-exceptions)\n  +-+---------------- 1 ----------------\n    | F\n",
        error("E", "a\n  +-b\n\nc (2 sub-exceptions)", 7),
    ),
    "warning_of_python_3_12": (HEADER + FRAME + "E: m\nsys:1: ResourceWarning: unclosed file\n", error("E", "m", 7)),
    "finalizer_of_python_3_14": (
        HEADER + FRAME + "E: m\nException ignored while calling deallocator <function f>:\n" + HEADER,
        error("E", "m", 7),
    ),
    "fatal_error": (HEADER + FRAME + "E: m\nFatal Python error: Aborted\n\nThread 0x1\n", error("E", "m", 7)),
    "process_of_two_words": (HEADER + FRAME + "E: m\nProcess My child:\n" + GROUP, error("E", "m", 7)),
    "thread_in_first_line": (HEADER + FRAME + "E: Exception in thread T:\n", error("E", "Exception in thread T:", 7)),
    "warning_in_first_line": (HEADER + FRAME + "E: a:1: UserWarning: b\n", error("E", "a:1: UserWarning: b", 7)),
}  # fmt: skip


@pytest.mark.parametrize(("stderr", "expected"), TEXTS.values(), ids=TEXTS)
def test_exception_is_read(stderr, expected):
    assert parse_uncaught_exception(stderr) == expected


RECURSION = (
    HEADER + FRAME + "".join(f'  File "/tmp/main.py", line {n}, in f\n    f(n)\n    ~^^^\n' for n in range(8000))
)
HEAD_CHARS = 48 * 1024


@pytest.mark.parametrize("start", range(-100_000, -99_940))
def test_gap_in_traceback_is_ignored(start):
    stderr = RECURSION[:HEAD_CHARS] + RECURSION[start:] + "RecursionError: r\n"
    assert parse_uncaught_exception(stderr) == error("RecursionError", "r", 7999)


@pytest.mark.parametrize("tail", ["f(n)\n", "(n)\n", "^^\n", '.py", line 7, in f\n', "7, in f\n"])
def test_gap_at_start_of_line_is_ignored(tail):
    stderr = HEADER + FRAME + "    f(n)\n" + tail + '  File "/tmp/main.py", line 8, in f\n    f(n)\nE: m\n'
    assert parse_uncaught_exception(stderr) == error("E", "m", 8)


def test_gap_in_message_is_not_visible():
    stderr = HEADER + FRAME + "E: " + "a" * 2000 + "b" * 2000 + "\n"
    assert parse_uncaught_exception(stderr) == error("E", "a" * MAX_ERROR_MESSAGE_CHARS, 7)


STARTS = {
    "nothing": "",
    "frame": HEADER + FRAME,
    "half_of_a_frame": HEADER + '  File "',
    "message": HEADER + FRAME + "E: ",
    "group_message": GROUP + "  | E: ",
    "syntax_error": '  File "/tmp/main.py", line 7\n',
    "color": "  File \x1b[m\n",
}
REPEATED = {
    "header": HEADER,
    "header_in_line": HEADER[:-1],
    "frame": FRAME,
    "frame_in_line": FRAME[:-1],
    "function": FRAME.replace("<module>", "f"),
    "block": HEADER + FRAME + "E: m\n",
    "block_of_two_lines": HEADER + FRAME,
    "block_of_function": HEADER + FRAME.replace("<module>", "f") + "E: m\n",
    "block_of_frozen_module": HEADER + '  File "<frozen x>", line 7, in f\n' * 9,
    "header_in_frozen_frame": '  File "<frozen ' + HEADER,
    "header_in_message": "E: " + HEADER,
    "group": GROUP,
    "group_line": "  | E: m\n",
    "margin": "  | ",
    "border": "  +-+---------------- 1 ---",
    "border_line": "  +-+---------------- 1 ----------------\n",
    "syntax_error": '  File "/tmp/main.py", line 7\n    x\nSyntaxError: y\n',
    "end_of_file_name": '", line 1',
    "end_of_frame": '", line 1, in ',
    "digits": '", line 1234567890',
    "path": "/./",
    "warning": "a:1: UserWarning",
    "warning_line": "a:1: UserWarning: \n",
    "digits_of_warning": "a:1",
    "unraisable": "Exception ignored",
    "process": "Process x:\n",
    "finalizer": HEADER + '  File "weakref.py", line 1, in _exitfun\n',
    "color": "\x1b[1;",
    "letters": "x",
    "words": "x ",
    "types": "x: ",
    "type_lines": "x: \n",
    "newlines": "\n",
    "spaces": " ",
    "indented_lines": "  x\n",
    "carriage_returns": "\r",
    "separators": "\x0b",
}


def cpu_time_s(text):
    started_s = time.process_time()
    parse_uncaught_exception(text)
    return time.process_time() - started_s


ATTEMPTS = 5  # on a busy machine


@pytest.mark.parametrize("unit", REPEATED.values(), ids=REPEATED)
def test_time_is_linear(unit):
    growth = 8
    for start in STARTS.values():
        short, long = (start + (unit * chars)[:chars] for chars in (20_000, growth * 20_000))
        ratios = (cpu_time_s(long) / max(cpu_time_s(short), 1e-4) for _ in range(ATTEMPTS))
        assert any(ratio < 3 * growth for ratio in ratios)  # a quadratic time would grow by 64


FRAGMENTS = st.sampled_from(
    [*STARTS.values(), *REPEATED.values(), FRAME, "E: m\n", "E", ": ", "\n", "  ", "SyntaxError"]
)
HOSTILE_TEXTS = st.lists(FRAGMENTS | st.text(max_size=10), max_size=30).map("".join)


@given(HOSTILE_TEXTS)
def test_any_text_is_accepted(text):
    exception = parse_uncaught_exception(text)
    if exception is not None:
        assert 1 <= len(exception.type) <= MAX_ERROR_MESSAGE_CHARS
        assert len(exception.message) <= MAX_ERROR_MESSAGE_CHARS


SOURCE = dedent("""
    def raise_after(calls):
        if calls:
            raise_after(calls - 1)
        raise error from cause
    raise_after(calls)
""")
MESSAGES = st.lists(
    st.text(max_size=20)
    | st.sampled_from(
        ["\n", "\r", "\n  ", "\n\n", ": ", HEADER, "E: m\n", '  File "x.py", line 1, in <module>\n', "  | ", "\x85"]
    ),
    max_size=8,
).map("".join)


def stderr_of(exception, cause, calls):
    """Return what Python writes to stderr when main.py raises an exception."""
    program = compile(SOURCE, "/tmp/main.py", "exec")
    try:
        exec(program, {"error": exception, "cause": cause, "calls": calls})  # noqa: S102 - SOURCE
    except Exception as raised:  # noqa: BLE001 - the exceptions of the tests
        return "".join(traceback.format_exception(type(raised), raised, raised.__traceback__.tb_next))


CAUSES = (
    st.none() | MESSAGES.map(ValueError) | MESSAGES.map(lambda message: ExceptionGroup(message, [OSError(message)]))
)


@given(MESSAGES, CAUSES, st.integers(0, 5))
def test_printed_exception_is_read_back(message, cause, calls):
    stderr = stderr_of(ValueError(message), cause, calls)
    assert parse_uncaught_exception(stderr) == error("ValueError", message[:MAX_ERROR_MESSAGE_CHARS], 5)


@given(MESSAGES, CAUSES, st.integers(0, 5))
def test_printed_group_is_read_back(message, cause, calls):
    stderr = stderr_of(ExceptionGroup(message, [OSError(message)]), cause, calls)
    assert parse_uncaught_exception(stderr) == error("ExceptionGroup", f"{message} (1 sub-exception)", 5)


@given(st.text(), MESSAGES)
def test_text_before_traceback_is_ignored(text, message):
    stderr = text + stderr_of(ValueError(message), None, 0)
    assert parse_uncaught_exception(stderr) == error("ValueError", message[:MAX_ERROR_MESSAGE_CHARS], 5)
