# ruff: noqa: E501  # tables of programs
"""Test the limits of code, input, arguments and output. test_programs.py tests what else a program may notice."""

import pytest

from chalicelib.contract import (
    MAX_CODE_BYTES,
    MAX_INPUT_BYTES,
    MAX_STDOUT_BYTES,
    MAX_STREAM_BYTES,
    STDERR_HEAD_BYTES,
    STDERR_TAIL_BYTES,
    OutputBytes,
    Truncated,
)
from tests.support.plain_python import ending_of

READERS = {
    "read": "import sys\nprint(repr(sys.stdin.read()[-50:]), sys.stdin.read())",
    "input_until_eof": "try:\n    while True: print(repr(input('> ')))\nexcept EOFError as e: print(repr(e))",
    "iterating": "import sys\nfor line in sys.stdin: print(repr(line))",
    "binary": "import sys\nprint(sys.stdin.buffer.read()[-50:])",
    "descriptor": "import os\nprint(os.read(0, 5), os.read(0, 5))",
    "open_0": "print(len(open(0).read()))",
    "readline_then_child": "import subprocess, sys\nprint(sys.stdin.readline(), flush=True)\nsubprocess.run([sys.executable, '-c', 'import sys; print(len(sys.stdin.read()))'])",
    "unread": "print('done')",
    "partly_read": "import sys\nprint(sys.stdin.read(3))",
    "closed": "import sys\nsys.stdin.close()\nprint(sys.stdin.closed)",
    "closed_descriptor": "import os\nos.close(0)\ntry: input()\nexcept OSError as e: print(e)",
    "fileinput": "import fileinput\nprint(len(list(fileinput.input())))",
    "late": "import sys, time\ntime.sleep(.1)\nprint(len(sys.stdin.read()))",
    "select": "import select, sys\nprint([len(x) for x in select.select([0], [], [], 5)])",
}  # fmt: skip
INPUTS = {
    "nothing": "",
    "unicode_crlf_and_no_final_newline": "\u20ac\U0001f600\r\n\tx\x00y\n\nz",
    "largest": "0123456\n" * (MAX_INPUT_BYTES // 8),
}


@pytest.mark.parametrize("stdin", INPUTS.values(), ids=INPUTS)
@pytest.mark.parametrize("program", READERS.values(), ids=READERS)
def test_stdin_matches_plain_python(run, plain_python, program, stdin):
    if program == READERS["input_until_eof"]:
        stdin = stdin[:1000]
    elif program == READERS["iterating"]:
        stdin = stdin[:10000]
    outcome = run(program, stdin)
    assert ending_of(outcome) == plain_python(program, stdin)
    assert outcome.exit_code == 0


STDERR_BYTES = STDERR_HEAD_BYTES + STDERR_TAIL_BYTES


@pytest.mark.parametrize("written", [0, MAX_STDOUT_BYTES, MAX_STDOUT_BYTES + 1, 2_000_000])
def test_stdout_returns_its_first_bytes(run, written):
    outcome = run(f"import os, sys\nsys.stdout.write(''.join(map(str, range(10**6)))[:{written}])")
    expected = "".join(map(str, range(10**6)))[:written]
    assert (outcome.status, outcome.stdout) == ("ok", expected[:MAX_STDOUT_BYTES])
    assert outcome.truncated == Truncated(stdout=written > MAX_STDOUT_BYTES)
    assert outcome.output_bytes == OutputBytes(stdout=written, stderr=0)


@pytest.mark.parametrize(
    "written", [STDERR_HEAD_BYTES + 1, STDERR_BYTES, STDERR_BYTES + 1, 300_000, 310_000, 400_000, 2_000_000]
)
def test_stderr_returns_its_first_and_last_bytes(run, written):
    outcome = run(f"import os, sys\nsys.stderr.write(''.join(map(str, range(10**6)))[:{written}])\nprint('done')")
    text = "".join(map(str, range(10**6)))[:written]
    expected = text if written <= STDERR_BYTES else text[:STDERR_HEAD_BYTES] + text[-STDERR_TAIL_BYTES:]
    assert (outcome.status, outcome.stdout, outcome.stderr) == ("ok", "done\n", expected)
    assert outcome.truncated == Truncated(stderr=written > STDERR_BYTES)
    assert outcome.output_bytes == OutputBytes(stdout=5, stderr=written)


@pytest.mark.parametrize("fd", [1, 2])
def test_only_a_stream_above_16_mib_ends_the_run(run, fd):
    program = "import os\nfor _ in range({}): os.write({}, bytes(1 << 16))\nos._exit(3)"
    at_limit, above = (run(program.format(MAX_STREAM_BYTES // (1 << 16) + more, fd)) for more in (0, 1))
    assert (at_limit.status, at_limit.exit_code) == ("error", 3)
    assert (above.status, above.exit_code, above.error) == ("output_limit", None, None)
    written = max(at_limit.output_bytes.stdout, at_limit.output_bytes.stderr)
    assert written == MAX_STREAM_BYTES < max(above.output_bytes.stdout, above.output_bytes.stderr)


def test_truncation_preserves_utf8_characters(run):
    outcome = run(f"import os\nos.write(1, b'x' * {MAX_STDOUT_BYTES - 2} + '\u20ac'.encode() * 9)")
    assert outcome.stdout == "x" * (MAX_STDOUT_BYTES - 2)
    outcome = run("import os\nos.write(2, b'x' + '\u20ac'.encode() * 30000)")
    assert outcome.stderr == "x" + "\u20ac" * ((STDERR_HEAD_BYTES - 1) // 3 + STDERR_TAIL_BYTES // 3)


def test_arguments_are_in_argv(run):
    args = ["a b", "", "-x", "\u20ac\n", "'", "\x1b"]
    program = "import sys\nprint(sys.argv, sys.orig_argv)"
    outcome = run(program, args=args)
    assert outcome.stdout == f"{['main.py', *args]} {['python3', 'main.py', *args]}\n"


def test_invalid_utf8_becomes_replacement_characters(run):
    assert run(r"import os; os.write(1, b'a\xff\xe2\x82b\xed\xa0\x80')").stdout == "a\ufffd\ufffdb\ufffd\ufffd\ufffd"


def test_largest_code_runs(run):
    tail = "\nprint(len(open(__file__, 'rb').read()), x[-2:])"
    code = "x = '\u20ac" + "y" * (MAX_CODE_BYTES - 9 - len(tail)) + "'" + tail
    assert len(code.encode()) == MAX_CODE_BYTES
    assert run(code).stdout == f"{MAX_CODE_BYTES} yy\n"


def test_sleep_to_just_under_the_timeout_is_ok(run):
    outcome = run("import time\ntime.sleep(1.5)\nprint('awake')", timeout_s=2.5)
    assert (outcome.status, outcome.stdout) == ("ok", "awake\n")


PARTIAL_OUTPUT = {  # what a program writes, and what is kept at the timeout
    "line": ("print('a')", "a\n"),
    "lines": ("for n in range(3): print(n)", "0\n1\n2\n"),
    "flush": ("print('a', end='', flush=True)", "a"),
    "no_newline": ("print('a\\nb', end='')", "a\nb"),  # a newline flushes all that is buffered
    "after_a_line": ("print('a')\nprint('b', end='')", "a\n"),
    "bytes": ("sys.stdout.buffer.write(b'a\\n')", ""),
    "flushed_bytes": ("sys.stdout.buffer.write(b'a')\nsys.stdout.flush()", "a"),
    "more_than_a_buffer": ("sys.stdout.write('x' * 30000 + '\\n')", "x" * 30000 + "\n"),
    "carriage_return": ("print('10 %', end='\\r')", "10 %\r"),
    "split_character": ("os.write(1, b'a\\xe2\\x82')", "a\ufffd"),
    "child": ("if os.fork() == 0: print('child'); time.sleep(9)\ntime.sleep(.1)\nprint('parent')", "child\nparent\n"),
}


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize(("write", "kept"), PARTIAL_OUTPUT.values(), ids=PARTIAL_OUTPUT)
def test_output_is_kept_at_timeout_up_to_the_last_newline_or_flush(run, stream, write, kept):
    swap = "os.dup2(2, 1)\n" if stream == "stderr" else ""
    outcome = run(f"import os, sys, time\n{swap}{write}\ntime.sleep(9)", timeout_s=0.8)
    assert (outcome.status, getattr(outcome, stream)) == ("timeout", kept)
    assert getattr(outcome.output_bytes, stream) == len(kept.encode()) - ("\ufffd" in kept)


def test_hash_seed_and_random_state_differ_between_sandboxes(run):
    program = "import random, uuid, os\nprint(hash('x'), random.random(), uuid.uuid4(), os.urandom(8).hex())"
    first, second = (run(program).stdout.split() for _ in range(2))
    assert [a == b for a, b in zip(first, second, strict=True)] == [False] * 4
