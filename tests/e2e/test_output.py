"""What a program writes reaches the caller, on each way there, up to the limits and not beyond."""

import base64
import json
import random
import uuid

import pytest

from chalicelib.contract import MAX_STDOUT_BYTES, MAX_STREAM_BYTES, STDERR_HEAD_BYTES, STDERR_TAIL_BYTES
from tests.support.http_client import JSON
from tests.support.polling import eventually
from tests.support.webhook_receiver import WebhookReceiver

MAX_STDERR_BYTES = STDERR_HEAD_BYTES + STDERR_TAIL_BYTES
NOTHING_CUT = {"stdout": False, "stderr": False}
ECHO_TO_BOTH = f"""
import sys
data = sys.stdin.buffer.read()
sys.stdout.buffer.write(data[:{MAX_STDOUT_BYTES}])
sys.stderr.buffer.write(data[{MAX_STDOUT_BYTES}:])
"""
# The largest output. It is far above the size of a message, so it goes through the payload store.
RANDOM_TEXT = "".join(random.Random(1).choices(list(map(chr, range(128))), k=MAX_STDOUT_BYTES + MAX_STDERR_BYTES))  # noqa: S311


def run_synchronously(client, body, _webhook_port):
    return client.send(json.dumps(body)).body


def run_asynchronously(client, body, _webhook_port):
    answer = client.send(json.dumps(body), headers={**JSON, "Prefer": "respond-async"})
    path = f"/jobs/{answer.body['id']}"
    return eventually(lambda: (got := client.send(method="GET", path=path, headers={})).status == 200 and got.body)


def run_twice(client, body, _webhook_port):
    headers = {**JSON, "Idempotency-Key": uuid.uuid4().hex}
    first, replay = (client.send(json.dumps(body), headers=headers).body for _ in range(2))
    assert first == replay
    return replay


def run_with_webhook(client, body, webhook_port):
    with WebhookReceiver(port=webhook_port) as receiver:
        body = {**body, "callback_url": f"http://127.0.0.1:{receiver.port}/"}
        client.send(json.dumps(body), headers={**JSON, "Prefer": "respond-async"})
        ((_, _, delivered),) = eventually(lambda: receiver.requests)
    return json.loads(delivered)


WAYS = {
    "synchronous": run_synchronously,
    "asynchronous": run_asynchronously,
    "replay": run_twice,
    "webhook": run_with_webhook,
}


@pytest.mark.parametrize("run", WAYS.values(), ids=WAYS)
def test_largest_output_is_returned_in_full(client, webhook_port, run):
    body = run(client, {"code": ECHO_TO_BOTH, "input": RANDOM_TEXT}, webhook_port)
    assert (body["status"], body["truncated"]) == ("ok", NOTHING_CUT)
    assert body["output_bytes"] == {"stdout": MAX_STDOUT_BYTES, "stderr": MAX_STDERR_BYTES}
    assert body["stdout"] + body["stderr"] == RANDOM_TEXT


@pytest.mark.parametrize("run", WAYS.values(), ids=WAYS)
def test_artifacts_are_returned_in_full(client, webhook_port, run):
    content = random.Random(2).randbytes(100_000)  # noqa: S311
    file = {"path": "data/in.bin", "content_base64": base64.b64encode(content).decode()}
    program = "import shutil; shutil.copy('data/in.bin', 'out.bin')"
    request = {"code": program, "files": [file], "artifacts": ["out.bin", "data/**", "missing"]}
    body = run(client, request, webhook_port)
    assert (body["status"], body["stderr"]) == ("ok", "")
    (artifact,) = body["artifacts"]
    assert (artifact["path"], artifact["size"]) == ("out.bin", len(content))
    assert base64.b64decode(artifact["content_base64"]) == content
    assert body["artifacts_omitted"] == [{"path": "data/in.bin", "reason": "unchanged", "count": 1}]


@pytest.mark.parametrize("filler", ["x", "\x01", "\ufffd", "\U0001f600"], ids=ascii)
def test_output_at_limit_is_returned_in_full(client, filler):
    sizes = {"stdout": MAX_STDOUT_BYTES, "stderr": MAX_STDERR_BYTES}
    texts = {stream: filler * (size // len(filler.encode())) for stream, size in sizes.items()}
    writes = (f"sys.{stream}.write({filler!r} * {len(text)})" for stream, text in texts.items())
    body = client.run("\n".join(["import sys", *writes]))
    assert (body["status"], body["truncated"]) == ("ok", NOTHING_CUT)
    assert body["output_bytes"] == {stream: len(text.encode()) for stream, text in texts.items()}
    assert {stream: body[stream] for stream in texts} == texts


def test_output_above_limit_is_cut_and_counted(client):
    body = client.run("import sys\nfor n in range(10**5): print(n); print(n, file=sys.stderr)\nsys.exit(3)")
    text = "".join(f"{n}\n" for n in range(10**5))
    assert (body["status"], body["exit_code"], body["truncated"]) == ("error", 3, {"stdout": True, "stderr": True})
    assert body["output_bytes"] == {"stdout": len(text), "stderr": len(text)}
    assert body["stdout"] == text[:MAX_STDOUT_BYTES]
    assert body["stderr"] == text[:STDERR_HEAD_BYTES] + text[-STDERR_TAIL_BYTES:]


def test_traceback_at_the_end_of_a_long_stderr_is_returned(client):
    body = client.run("import sys\nfor n in range(10**5): print(n, file=sys.stderr)\n1 / 0")
    assert "99999\nTraceback (most recent call last):\n" in body["stderr"]
    assert body["error"] == {"type": "ZeroDivisionError", "message": "division by zero", "line": 3}


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_stream_above_16_mib_returns_output_limit(client, stream):
    body = client.run(f"import sys; sys.{stream}.write('x' * {MAX_STREAM_BYTES + 1})\nwhile True: pass")
    assert (body["status"], body["exit_code"], body["truncated"][stream]) == ("output_limit", None, True)
    assert body["output_bytes"][stream] > MAX_STREAM_BYTES
    assert body[stream] == "x" * (MAX_STDOUT_BYTES if stream == "stdout" else MAX_STDERR_BYTES)
