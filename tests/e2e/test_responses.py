"""Responses to requests whose program ran."""

import base64
import hashlib
import json
import random
import re
import struct
import time

import pytest

from chalicelib.contract import MAX_ARGS, MAX_ARGS_BYTES, MAX_CODE_BYTES, MAX_INPUT_BYTES

ONE_LINE_OF_CONTROLS = "".join(map(chr, range(1, 32))).replace("\n", "").replace("\r", "")
TEXTS = {
    "latin": "\u00e4\u00f6\u00fc\u00df",
    "astral": "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467\U0010ffff",
    "combining": "e\u0301 o\u0328\u0304\u0323 \u0915\u094d\u0937\u093f",
    "noncharacters": "\ufdd0\ufffe\uffff",
    "byte_order_mark": "\ufeff",
    "line_separators": "\u0085\u2028\u2029",
    "controls": ONE_LINE_OF_CONTROLS + "\x7f\x80\x9f",
    "json": '"\\/\\u0041\\',
    "bidirectional": "\u202eabc\u061c",
}


def test_response_contains_every_field(client):
    status, headers, body = client.post(code="import time; time.sleep(0.2); print(input()[::-1])", input="hello")
    usage = body.pop("usage")
    assert (status, headers["Content-Type"], headers["Cache-Control"]) == (200, "application/json", "no-store")
    assert re.fullmatch("[0-9a-f]{32}", body.pop("id"))
    assert re.fullmatch(r"3\.\d+", body.pop("python_version"))
    assert body == {
        "runtime": "python",
        "artifacts": [],
        "artifacts_omitted": [],
        "status": "ok",
        "exit_code": 0,
        "signal": None,
        "stdout": "olleh\n",
        "stderr": "",
        "truncated": {"stdout": False, "stderr": False},
        "output_bytes": {"stdout": 6, "stderr": 0},
        "error": None,
    }
    assert sorted(usage) == ["cpu_ms", "duration_ms", "memory_bytes", "queued_ms"]
    assert 200 <= usage["duration_ms"] < 3000
    assert 0 <= usage["cpu_ms"] <= usage["duration_ms"]
    assert 1_000_000 < usage["memory_bytes"] <= 256 * 1024 * 1024
    assert 0 <= usage["queued_ms"] < 20_000


def test_data_runtime_returns_figures(client):
    code = "import matplotlib.pyplot as plt\nplt.plot([1, 2, 3], [1, 4, 9])\nplt.show()"
    status, _, body = client.run_until_done(code=code, runtime="data", timeout_s=10)
    assert (status, body["status"], body["runtime"], body["stderr"]) == (200, "ok", "data", "")
    (figure,) = body["artifacts"]
    content = base64.b64decode(figure["content_base64"])
    assert (figure["path"], content[1:4], struct.unpack(">II", content[16:24])) == ("figure-1.png", b"PNG", (640, 480))


def test_unknown_runtime_is_refused(client):
    status, _, body = client.post(code="1", runtime="ruby")
    assert (status, body["field"], body["code"]) == (400, "runtime", "unknown_runtime")


ENDS = {
    "ok": ("print(1)", "ok", 0, None),
    "exit": ("print(1); raise SystemExit(7)", "error", 7, None),
    "exception": ("print(1); 1/0", "error", 1, None),
    "timeout": ("print(1)\nwhile True: pass", "timeout", None, None),
    "out_of_memory": ("print(1); x = b'x' * (400 << 20)", "out_of_memory", 137, "SIGKILL"),
    "output_limit": ("print(1)\nwhile True: print(end='x' * 1000)", "output_limit", None, None),
    "killed": ("print(1); import os; os.abort()", "killed", 134, "SIGABRT"),
}


@pytest.mark.parametrize(("code", "status", "exit_code", "signal"), ENDS.values(), ids=ENDS)
def test_exit_maps_to_status_and_keeps_output(client, code, status, exit_code, signal):
    timeout_s = 1 if status == "timeout" else 5  # a busy machine may need seconds to fill the memory
    body = client.run(code, timeout_s=timeout_s)
    assert (body["status"], body["exit_code"], body["signal"]) == (status, exit_code, signal)
    assert body["stdout"].startswith("1\n")


def test_uncaught_exception_is_reported_with_python_traceback(client):
    body = client.run("def f():\n    raise ValueError('no')\n\nf()\n")
    assert body["error"] == {"type": "ValueError", "message": "no", "line": 2}
    assert re.sub(r"\n +[~^]+(?=\n)", "", body["stderr"]) == (
        'Traceback (most recent call last):\n  File "/tmp/main.py", line 4, in <module>\n    f()\n'
        "  File \"/tmp/main.py\", line 2, in f\n    raise ValueError('no')\nValueError: no\n"
    )


def test_timeout_is_respected(client):
    body = client.run("import time; time.sleep(60)", timeout_s=0.5)
    assert body["status"] == "timeout"
    assert 500 <= body["usage"]["duration_ms"] < 2500


def test_response_is_sent_when_program_exits(client):
    client.run("print(1)")
    started_at = time.monotonic()
    client.run("print(1)")
    assert time.monotonic() - started_at < 10  # without a wake-up, the poll would answer after some 20 s


def test_default_timeout_is_three_seconds(client):
    answer = client.post(code="import time; time.sleep(60)")
    assert answer.body["status"] == "timeout"
    assert 3000 <= answer.body["usage"]["duration_ms"] < 5000


def test_longer_timeout_lets_a_program_run_longer(client):
    assert client.run("import time; time.sleep(3.5); print(1)", timeout_s=10)["stdout"] == "1\n"


def test_null_counts_as_absent(client):
    body = client.post(code="print(repr(__import__('sys').stdin.read()))", input=None, timeout_s=None).body
    assert (body["status"], body["stdout"]) == ("ok", "''\n")


@pytest.mark.parametrize("escaped", [True, False], ids=["escaped", "raw"])
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_unicode_round_trips_through_code_and_input(client, text, escaped):
    code = f"import sys\nsys.stdout.buffer.write(sys.stdin.buffer.read())\nsys.stderr.write({as_literal(text)})"
    answer = client.send(json.dumps({"code": code, "input": text}, ensure_ascii=escaped).encode())
    assert (answer.body["stdout"], answer.body["stderr"]) == (text, text)


def as_literal(text):
    """Return Python source that contains the characters themselves instead of escapes."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def test_line_endings_are_preserved(client):
    body = client.run("import sys; sys.stdout.buffer.write(sys.stdin.buffer.read())", "a\r\nb\rc\n\n")
    assert body["stdout"] == "a\r\nb\rc\n\n"


@pytest.mark.parametrize("filler", ["x", "\x01", "ü", "\U0001f600"], ids=ascii)
def test_largest_code_runs(client, filler):
    head = "print(len(open('main.py', 'rb').read()))  #"
    code = head + filler * ((MAX_CODE_BYTES - len(head)) // len(filler.encode()))
    assert client.run(code)["stdout"] == f"{len(code.encode())}\n"


LARGE_INPUTS = {
    "largest": "a\n\x01b" * (MAX_INPUT_BYTES // 4 - 1) + "\U0001f600",
    "random": "".join(random.Random(1).choices(list(map(chr, range(128))), k=MAX_INPUT_BYTES)),  # noqa: S311
}


@pytest.mark.parametrize("text", LARGE_INPUTS.values(), ids=LARGE_INPUTS)
def test_large_input_is_read(client, text):
    code = "import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())"
    assert client.run(code, text)["stdout"] == hashlib.sha256(text.encode()).hexdigest() + "\n"


def test_nul_in_input_is_read(client):
    assert client.run("print(ascii(input()))", "a\0b\n\0")["stdout"] == "'a\\x00b'\n"


ARGUMENTS = {
    "options": ["-n", "--", "-", "a=b"],
    "texts": ["", " ", "\u00fc \U0001f600", "a\n\x01b", '"$HOME" * ;'],
    "most": ["x" * (MAX_ARGS_BYTES // MAX_ARGS)] * MAX_ARGS,
    "longest": ["\u00fc" * (MAX_ARGS_BYTES // 2)],
}


@pytest.mark.parametrize("args", ARGUMENTS.values(), ids=ARGUMENTS)
def test_arguments_reach_the_program(client, args):
    body = client.post(code="import json, sys; print(json.dumps(sys.argv))", args=args).body
    assert json.loads(body["stdout"]) == ["main.py", *args]
