"""Batches, from the request over a host to the verdicts."""

import json
import secrets

import pytest

from chalicelib.contract import MAX_BATCH_RUNS, batch_output_limits
from tests.support.polling import eventually

REVERSE = "print(input()[::-1])"


def post_batch(client, runs, *, headers=None, **fields):
    body = json.dumps({"code": REVERSE, "runs": runs, **fields})
    return client.send(body, path="/batch", headers={"Content-Type": "application/json", **(headers or {})})


def test_batch_returns_the_verdict_of_each_run(client):
    runs = [
        {"input": "abc", "expected_output": "cba"},
        {"input": "abc", "expected_output": "abc\n"},
        {"input": "abc"},
        {"input": "", "expected_output": ""},
    ]
    status, _, body = post_batch(client, runs)
    assert status == 200
    assert (body["status"], body["passed"], body["failed"], body["not_run"]) == ("finished", 1, 2, 0)
    assert [run["passed"] for run in body["runs"]] == [True, False, None, False]
    assert [run["status"] for run in body["runs"]] == ["ok", "ok", "ok", "error"]
    assert body["runs"][3]["error"]["type"] == "EOFError"
    assert body["usage"]["cpu_ms"] == sum(run["usage"]["cpu_ms"] for run in body["runs"])


def test_largest_batch_returns_each_output(client):
    tokens = [secrets.token_hex(16) for _ in range(MAX_BATCH_RUNS)]
    _, _, body = post_batch(client, [{"input": token, "expected_output": token[::-1]} for token in tokens])
    assert [run["stdout"] for run in body["runs"]] == [f"{token[::-1]}\n" for token in tokens]
    assert (body["passed"], body["failed"]) == (MAX_BATCH_RUNS, 0)


@pytest.mark.parametrize("code", ["raise SystemExit(input())", REVERSE], ids=["status", "output"])
def test_stop_on_failure_ends_the_batch(client, code):
    runs = [{"input": "0", "expected_output": "0" if code == REVERSE else ""}, {"input": "1", "expected_output": "x"}]
    _, _, body = post_batch(client, [*runs, *runs], code=code, stop_on_failure=True)
    expected = ["ok", "ok", "not_run", "not_run"] if code == REVERSE else ["error", *["not_run"] * 3]
    assert [run["status"] for run in body["runs"]] == expected


def test_late_batch_is_fetched_later(client):
    code, runs = "import time; time.sleep(1.5); print(input())", [{"input": "1", "expected_output": "1"}] * 3
    status, headers, pending = post_batch(client, runs, code=code, headers={"Prefer": "wait=1"})
    assert (status, pending["status"]) == (202, "pending")

    def result():
        answer = client.send(method="GET", path=headers["Location"], headers={})
        return answer.body if answer.status == 200 else None

    body = eventually(result, timeout_s=60)
    assert (body["id"], body["passed"]) == (pending["id"], 3)


def test_output_of_a_run_is_cut_at_its_limit(client):
    for runs in (1, MAX_BATCH_RUNS // 2):
        limit_bytes = batch_output_limits(runs).stdout_bytes
        _, _, body = post_batch(client, [{}] * runs, code=f"print('x' * {limit_bytes})")
        assert {len(run["stdout"]) for run in body["runs"]} == {limit_bytes}
        assert all(run["truncated"]["stdout"] for run in body["runs"])


def test_hostile_run_does_not_change_the_next(client):
    code = "import os\nif input() == 'hostile':\n    while True: os.fork()\nprint(sorted(os.listdir()), os.getppid())"
    runs = [{"input": "hostile"}, {"input": "\n", "expected_output": "['main.py'] 1"}]
    _, _, body = post_batch(client, runs, code=code, timeout_s=0.5)
    assert [run["passed"] for run in body["runs"]] == [None, True]
