"""Send the largest results to customers: every response is one that Lambda can return, which `send` checks."""

import json

import pytest
from msgspec.structs import replace

from chalicelib import contract
from chalicelib.api import mcp
from chalicelib.contract import (
    Artifact,
    OmissionReason,
    OmittedArtifact,
    OutputBytes,
    UncaughtException,
    batch_output_limits,
)
from chalicelib.jobs import job_view
from chalicelib.jobs.response_size import MAX_BODY_BYTES, escaped_bytes
from tests.support.api_requests import send
from tests.support.records import make_batch_result, make_result, make_run_result

CHARACTERS = {  # bytes that a program writes, and the characters that they become
    "letters": "x",
    "quotes": '"',
    "control_characters": "\x01",
    "invalid_bytes": "\ufffd",
    "line_separators": "\u2028",
}
each_character = pytest.mark.parametrize("character", CHARACTERS.values(), ids=CHARACTERS)
PNG = b"\x89PNG\r\n\x1a\n"


def stream(character, written_bytes):
    return character * (written_bytes // (1 if character == "\ufffd" else len(character.encode())))


def exception(character):
    text = character * contract.MAX_ERROR_MESSAGE_CHARS
    return UncaughtException(type=text, message=text, line=1)


def path(character, number):
    return (
        (str(number) + character * contract.MAX_PATH_BYTES).encode()[: contract.MAX_PATH_BYTES].decode(errors="ignore")
    )


def largest_result(character, *, start=b"", **changes):
    """Return a result with as much as possible in each member."""
    size = contract.MAX_ARTIFACTS_BYTES // contract.MAX_ARTIFACTS
    members = {
        "stdout": stream(character, contract.MAX_STDOUT_BYTES),
        "stderr": stream(character, contract.STDERR_HEAD_BYTES + contract.STDERR_TAIL_BYTES),
        "output_bytes": OutputBytes(stdout=contract.MAX_STREAM_BYTES, stderr=contract.MAX_STREAM_BYTES),
        "error": exception(character),
        "artifacts": tuple(
            Artifact(path=path(character, number), content=start.ljust(size, b"\1"))
            for number in range(contract.MAX_ARTIFACTS)
        ),
        "artifacts_omitted": tuple(
            OmittedArtifact(path=path(character, number), reason=OmissionReason.NOT_A_FILE)
            for number in range(contract.MAX_LISTED_OMISSIONS)
        ),
    }
    return make_result("0" * 32, **members | changes)


def largest_batch(character, runs):
    limits = batch_output_limits(runs)
    run = make_run_result(
        stdout=stream(character, limits.stdout_bytes),
        stderr=stream(character, limits.stderr_head_bytes) + stream(character, limits.stderr_tail_bytes - 1) + "e",
        error=exception(character),
    )
    return make_batch_result("0" * 32, runs=[run] * runs)


@each_character
def test_largest_result_fits_and_accounts_for_every_artifact(jobs, character):
    jobs.outcome = largest_result(character)
    status, _, body = send()
    assert (status, body["stdout"], body["stderr"]) == (200, jobs.outcome.stdout, jobs.outcome.stderr)
    too_large = [item["path"] for item in body["artifacts_omitted"] if item["reason"] == "too_large"]
    assert [item["path"] for item in body["artifacts"]] + too_large == [item.path for item in jobs.outcome.artifacts]
    assert bool(too_large) == (character == "\x01")
    assert body["artifacts_omitted"][len(too_large) :] == [
        {"path": item.path, "reason": "not_a_file", "count": 1} for item in jobs.outcome.artifacts_omitted
    ]


def test_artifact_that_does_not_fit_leaves_room_for_smaller_ones(jobs):
    large, small = (
        Artifact(path="large", content=bytes(contract.MAX_ARTIFACTS_BYTES - 1)),
        Artifact(path="small", content=b"1"),
    )
    jobs.outcome = largest_result("\x01", artifacts=(large, small), artifacts_omitted=())
    body = send()[2]
    assert [item["path"] for item in body["artifacts"]] == ["small"]
    assert body["artifacts_omitted"] == [{"path": "large", "reason": "too_large", "count": 1}]


@each_character
@pytest.mark.parametrize("runs", [contract.MAX_RUNS_WITH_LONG_OUTPUT, contract.MAX_BATCH_RUNS])
def test_largest_batch_fits_and_says_which_streams_were_cut(jobs, character, runs):
    jobs.outcome = largest_batch(character, runs)
    body = json.dumps({"code": "1", "runs": [{}] * runs})
    status, _, answer = send(path="/batch", body=body)
    assert (status, len(answer["runs"])) == (200, runs)
    for run, whole in zip(answer["runs"], jobs.outcome.runs, strict=True):
        assert whole.stdout.startswith(run["stdout"])
        assert run["stderr"].endswith("e")
        cut = {name: len(run[name]) < len(getattr(whole, name)) for name in ("stdout", "stderr")}
        assert run["truncated"] == cut
    is_cut = any(run["truncated"]["stdout"] for run in answer["runs"])
    assert is_cut == (escaped_bytes(jobs.outcome) > MAX_BODY_BYTES)
    assert not is_cut or escaped_bytes(answer) > MAX_BODY_BYTES * 0.95


def test_short_streams_of_a_large_batch_are_whole(jobs):
    limits = batch_output_limits(contract.MAX_BATCH_RUNS)
    long = make_run_result(stdout="\x01" * limits.stdout_bytes, stderr="\x01" * limits.stdout_bytes)
    short = make_run_result(stdout="\x01" * 1000, stderr="e" * 1000)
    jobs.outcome = make_batch_result("0" * 32, runs=[long, short] * (contract.MAX_BATCH_RUNS // 2))
    answer = send(path="/batch", body=json.dumps({"code": "1", "runs": [{}] * contract.MAX_BATCH_RUNS}))[2]
    assert {len(run["stdout"]) for run in answer["runs"][1::2]} == {1000}
    assert [run["truncated"] for run in answer["runs"]] == [
        {"stdout": True, "stderr": True},
        {"stdout": False, "stderr": False},
    ] * (contract.MAX_BATCH_RUNS // 2)


def test_verdict_considers_the_whole_output(job_service, components):
    output = "\x01" * batch_output_limits(contract.MAX_BATCH_RUNS).stdout_bytes
    job_id = accept(runs=[{"expected_output": output}] + [{}] * (contract.MAX_BATCH_RUNS - 1))
    run = make_run_result(stdout=output, stderr=output)
    components.results.record_reply(make_batch_result(job_id, runs=[run] * contract.MAX_BATCH_RUNS))
    answer = read(job_id)
    assert (answer["runs"][0]["passed"], answer["runs"][0]["truncated"]["stdout"]) == (True, True)


@each_character
def test_largest_stored_result_is_that_of_the_webhook(job_service, components, character):
    job_id = accept()
    result = replace(largest_result(character), id=job_id)
    record = components.results.record_reply(result)
    assert read(job_id) == json.loads(job_view.webhook_body(record, result))


@each_character
@pytest.mark.parametrize("start", [b"", PNG], ids=["text", "images"])
def test_largest_result_of_a_tool_fits(jobs, character, start):
    size = contract.MAX_ARTIFACTS_BYTES // contract.MAX_ARTIFACTS
    jobs.outcome = largest_result(character, start=start)
    answers = send_mcp(tool_call("x" * mcp.MAX_ID_CHARS))
    content = answers["result"]["content"]
    assert len(content) == 1 + (contract.MAX_ARTIFACTS if start else 0)
    assert content[0]["text"].count(f"({size} bytes)") == contract.MAX_ARTIFACTS


def test_results_of_tools_in_a_batch_fit_or_are_replaced(jobs):
    jobs.outcome = largest_result("\x01", start=PNG)
    answers = send_mcp([tool_call(character * mcp.MAX_ID_CHARS) for character in "\x01\x02\x03"] + [ping()])
    first, second, third, last = answers
    assert len(first["result"]["content"]) == 1 + contract.MAX_ARTIFACTS
    for answer in (second, third):
        assert answer["result"]["isError"]
        assert "too large together" in answer["result"]["content"][0]["text"]
    assert (second["id"], last["result"]) == ("\x02" * mcp.MAX_ID_CHARS, {})


def test_long_id_is_refused(jobs):
    answer = send_mcp(tool_call("x" * (mcp.MAX_ID_CHARS + 1)), status=400)
    assert (answer["id"], answer["error"]["code"]) == (None, mcp.INVALID_REQUEST)
    assert jobs.submissions == []


def accept(**members):
    path = "/batch" if "runs" in members else "/"
    status, _, body = send({"Prefer": "respond-async"}, path=path, body=json.dumps({"code": "1", **members}))
    assert status == 202
    return body["id"]


def read(job_id):
    status, _, body = send(method="GET", path=f"/jobs/{job_id}")
    assert status == 200
    return body


def ping():
    return {"jsonrpc": "2.0", "id": 1, "method": "ping"}


def tool_call(message_id):
    params = {"name": "run_python", "arguments": {"code": "1"}}
    return {"jsonrpc": "2.0", "id": message_id, "method": "tools/call", "params": params}


def send_mcp(message, *, status=200):
    actual_status, _, answer = send(path="/mcp", body=json.dumps(message))
    assert actual_status == status
    return answer
