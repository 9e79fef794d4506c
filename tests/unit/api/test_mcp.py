"""The Model Context Protocol, message by message."""

import json
import re
import time
from functools import partial

import pytest

from chalicelib import problems
from chalicelib.access.api_keys import KeyStatus
from chalicelib.api import mcp, mcp_tools
from chalicelib.api.mcp import BATCH_VERSIONS, ENVELOPE_VERSIONS, HANDSHAKE_VERSIONS
from chalicelib.contract import MAX_FILES_BYTES, Failure, FailureReason, InputFile, Status
from chalicelib.jobs.submit import PendingJob
from tests.support.api_requests import send
from tests.support.records import KEY, make_key_record, make_result

MODERN = ENVELOPE_VERSIONS[-1]
ENVELOPE = {mcp.VERSION_KEY: MODERN, mcp.CAPABILITIES_KEY: {}}

pytestmark = pytest.mark.usefixtures("jobs")


def post(message, **headers):
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    body = message if isinstance(message, str) else json.dumps(message)
    status, _, answer = send(sent, path="/mcp", body=body)
    return status, answer


def rpc(method, params=None, **members):
    return {"jsonrpc": "2.0", "id": 1, "method": method, **({} if params is None else {"params": params}), **members}


def call(arguments, name="run_python"):
    status, answer = post(rpc("tools/call", {"name": name, "arguments": arguments}))
    assert status == 200
    result = answer["result"]
    return result["isError"], result["content"][0]["text"]


def modern(method, params=None, *, meta=ENVELOPE, **headers):
    names = {"Mcp-Name": params["name"]} if params and "name" in params else {}
    sent = {"MCP-Protocol-Version": MODERN, "Mcp-Method": method, **names, **headers}
    return post(rpc(method, {**(params or {}), "_meta": meta}), **sent)


@pytest.mark.parametrize("version", HANDSHAKE_VERSIONS)
def test_initialize_accepts_each_handshake_version(version):
    status, answer = post(rpc("initialize", {"protocolVersion": version, "capabilities": {}, "clientInfo": {}}))
    assert (status, answer["result"]["protocolVersion"]) == (200, version)
    assert answer["result"]["capabilities"] == {"tools": {}}


@pytest.mark.parametrize("version", ["1999-01-01", MODERN, None, 5])
def test_initialize_offers_latest_handshake_version_for_others(version):
    answer = post(rpc("initialize", {"protocolVersion": version}))[1]
    assert answer["result"]["protocolVersion"] == HANDSHAKE_VERSIONS[-1]


@pytest.mark.parametrize("version", HANDSHAKE_VERSIONS)
def test_tools_are_listed_with_closed_schemas(version):
    answer = post(rpc("tools/list"), MCP_Protocol_Version=version)[1]
    tools = {tool["name"]: tool for tool in answer["result"]["tools"]}
    assert tuple(tools) == mcp_tools.NAMES
    schema = tools["run_python"]["inputSchema"]
    assert (schema["type"], schema["required"], schema["additionalProperties"]) == ("object", ["code"], False)
    assert tuple(schema["properties"]) == mcp_tools.FIELDS
    assert [name for name, member in schema["properties"].items() if "anyOf" in member] == []


def test_patterns_of_tools_have_nothing_that_only_python_has():
    assert re.findall(r"\\[AZ]|\(\?s", json.dumps(mcp_tools.list_tools())) == []


def test_ping_is_answered():
    assert post(rpc("ping", id="a")) == (200, {"jsonrpc": "2.0", "id": "a", "result": {}})


@pytest.mark.parametrize(
    "message",
    [
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 1, "result": {}},
        {"jsonrpc": "2.0", "id": 1, "error": {"code": 1, "message": "no"}},
    ],
    ids=["notification", "result", "error"],
)
def test_message_without_answer_returns_202(message):
    assert post(message) == (202, None)


INVALID = {
    "not_json": ("{", 400, mcp.PARSE_ERROR),
    "deep": ("[" * 100_000, 400, mcp.PARSE_ERROR),
    "nan": ('{"id": NaN}', 400, mcp.PARSE_ERROR),
    "text": ("1", 400, mcp.INVALID_REQUEST),
    "no_version": ({"id": 1, "method": "ping"}, 400, mcp.INVALID_REQUEST),
    "no_method": ({"jsonrpc": "2.0", "id": 1}, 400, mcp.INVALID_REQUEST),
    "method": (rpc(5), 400, mcp.INVALID_REQUEST),
    "id_null": (rpc("ping", id=None), 400, mcp.INVALID_REQUEST),
    "id_boolean": (rpc("ping", id=True), 400, mcp.INVALID_REQUEST),
    "id_array": (rpc("ping", id=[]), 400, mcp.INVALID_REQUEST),
    "params": (rpc("ping", []), 200, mcp.INVALID_PARAMS),
    "unknown_method": (rpc("resources/list"), 200, mcp.METHOD_NOT_FOUND),
    "unknown_tool": (rpc("tools/call", {"name": "x"}), 200, mcp.INVALID_PARAMS),
    "tool_number": (rpc("tools/call", {"name": 5}), 200, mcp.INVALID_PARAMS),
    "arguments": (rpc("tools/call", {"name": "run_python", "arguments": "x"}), 200, mcp.INVALID_PARAMS),
    "empty_batch": ("[]", 400, mcp.INVALID_REQUEST),
    "long_batch": (json.dumps([rpc("ping")] * 17), 400, mcp.INVALID_REQUEST),
    "discover": (rpc("server/discover"), 200, mcp.METHOD_NOT_FOUND),
}


@pytest.mark.parametrize(("message", "status", "code"), INVALID.values(), ids=INVALID)
def test_invalid_message_returns_its_error(message, status, code):
    received, answer = post(message)
    assert (received, answer["error"]["code"]) == (status, code)


def test_unknown_version_header_names_supported_versions():
    status, answer = post(rpc("ping"), MCP_Protocol_Version="2030-01-01")
    assert (status, answer["error"]["code"]) == (400, mcp.UNSUPPORTED_VERSION)
    supported = [*HANDSHAKE_VERSIONS, *ENVELOPE_VERSIONS]
    assert answer["error"]["data"] == {"supported": supported, "requested": "2030-01-01"}


@pytest.mark.parametrize("headers", [{}, *({"MCP_Protocol_Version": version} for version in BATCH_VERSIONS)], ids=str)
def test_batch_is_answered_in_versions_that_have_it(headers):
    batch = [rpc("ping"), {"jsonrpc": "2.0", "method": "notifications/initialized"}, rpc("nope", id=2), 5]
    status, answers = post(batch, **headers)
    assert status == 200
    assert [(answer["id"], answer.get("error", {}).get("code")) for answer in answers] == [
        (1, None),
        (2, mcp.METHOD_NOT_FOUND),
        (None, mcp.INVALID_REQUEST),
    ]


def test_batch_of_notifications_returns_202():
    assert post([{"jsonrpc": "2.0", "method": "notifications/initialized"}]) == (202, None)


@pytest.mark.parametrize("version", HANDSHAKE_VERSIONS[2:])
def test_batch_is_refused_in_later_versions(version):
    status, answer = post([rpc("ping")], MCP_Protocol_Version=version)
    assert (status, answer["error"]["code"]) == (400, mcp.INVALID_REQUEST)


def test_each_call_of_a_batch_is_a_run(jobs, table):
    program = {"name": "run_python", "arguments": {"code": "1"}}
    answers = post([rpc("tools/call", program, id=number) for number in range(3)])[1]
    assert [answer["id"] for answer in answers] == [0, 1, 2]
    assert len(jobs.submissions) == table.records[KEY.key_id].runs == 3


def test_modern_discovery_and_list_are_cacheable():
    for method in ("server/discover", "tools/list"):
        status, answer = modern(method)
        assert (status, answer["result"]["resultType"], answer["result"]["cacheScope"]) == (200, "complete", "public")
        assert answer["result"]["_meta"]["io.modelcontextprotocol/serverInfo"]["name"] == "python-exec"
    assert modern("server/discover")[1]["result"]["supportedVersions"] == [MODERN]


def test_modern_call_runs_a_program():
    status, answer = modern("tools/call", {"name": "run_python", "arguments": {"code": "1", "input": "text"}})
    assert (status, answer["result"]["resultType"]) == (200, "complete")


MISMATCHES = {
    "no_meta": (partial(modern, "tools/list", meta=None), 400, mcp.INVALID_PARAMS),
    "no_capabilities": (partial(modern, "tools/list", meta={mcp.VERSION_KEY: MODERN}), 400, mcp.INVALID_PARAMS),
    "version": (
        partial(modern, "tools/list", meta={**ENVELOPE, mcp.VERSION_KEY: "2025-11-25"}),
        400,
        mcp.HEADER_MISMATCH,
    ),
    "method": (partial(modern, "tools/list", **{"Mcp-Method": "tools/call"}), 400, mcp.HEADER_MISMATCH),
    "name": (
        partial(modern, "tools/call", {"name": "run_python"}, **{"Mcp-Name": "list_runtimes"}),
        400,
        mcp.HEADER_MISMATCH,
    ),
    "unknown_method": (partial(modern, "nope"), 404, mcp.METHOD_NOT_FOUND),
    "initialize": (partial(modern, "initialize"), 404, mcp.METHOD_NOT_FOUND),
    "unknown_tool": (partial(modern, "tools/call", {"name": "x"}), 400, mcp.INVALID_PARAMS),
}


@pytest.mark.parametrize(("request_", "status", "code"), MISMATCHES.values(), ids=MISMATCHES)
def test_modern_request_with_wrong_envelope_is_rejected(request_, status, code):
    received, answer = request_()
    assert (received, answer["error"]["code"]) == (status, code)


def test_run_passes_arguments_and_shows_the_last_expression(jobs):
    is_error, text = call({"code": "6 * 7", "input": "text", "timeout_s": 1})
    (submission,) = jobs.submissions
    assert submission.request.code == '__import__("sys").displayhook((6 * 7))'
    assert (submission.request.input, submission.request.timeout_s) == ("text", 1)
    assert is_error  # the fake's result is an error
    assert text.startswith("text\n[... 5 bytes omitted ...]\nstderr:\n")


def test_largest_file_that_is_not_ascii_is_accepted(jobs):
    text = "\u00fc" * (MAX_FILES_BYTES // 2)  # three times as long if JSON escapes it
    arguments = {"code": "1", "files": [{"path": "a", "content": text}]}
    message = rpc("tools/call", {"name": "run_python", "arguments": arguments})
    assert post(json.dumps(message, ensure_ascii=False))[0] == 200
    (submission,) = jobs.submissions
    assert submission.request.files == (InputFile(path="a", content=text.encode()),)


def test_successful_run_is_no_error(jobs):
    jobs.outcome = make_result("0" * 32, status=Status.OK, exit_code=0, stdout="42\n", stderr="")
    assert call({"code": "6 * 7"})[0] is False


def test_list_runtimes_uses_no_run(jobs, table):
    is_error, text = call({}, name="list_runtimes")
    assert not is_error
    assert text.startswith("python: Python 3.13")
    assert (jobs.submissions, table.records[KEY.key_id].runs) == ([], 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "code is required"),
        ({"code": 5}, "code must be a string"),
        ({"code": "1", "timeout_s": 99}, "timeout_s must be from 0.1 to 10"),
        ({"code": "1", "callback_url": "https://example.com"}, "There is no such argument"),
        ({"code": "\udc80"}, "unpaired surrogate"),
    ],
    ids=["missing", "type", "range", "unknown", "surrogate"],
)
def test_invalid_arguments_are_a_result_and_charged(jobs, table, arguments, message):
    is_error, text = call(arguments)
    assert is_error
    assert text.startswith("Not run: Invalid request.")
    assert message in text
    assert (jobs.submissions, table.records[KEY.key_id].runs) == ([], 1)


def test_plan_limit_is_a_result(table):
    table.records[KEY.key_id] = make_key_record(KEY, plan="free")
    assert "limit of 3 s for plan free" in call({"code": "1", "timeout_s": 10})[1]


def test_rate_limit_of_runs_is_a_result_that_says_when(table):
    table.records[KEY.key_id] = make_key_record(KEY, plan="free")
    texts = [call({"code": "1"})[1] for _ in range(6)]
    assert "Rate limit exceeded" in texts[-1]
    assert "Retry in" in texts[-1]


@pytest.mark.parametrize(
    ("outcome", "text"),
    [
        (Failure(id="0" * 32, reason=FailureReason.SANDBOX_ERROR), "not because of your code"),
        (PendingJob("0" * 32), "No result in time"),
    ],
    ids=["failure", "pending"],
)
def test_missing_result_is_explained(jobs, outcome, text):
    jobs.outcome = outcome
    is_error, message = call({"code": "1"})
    assert is_error
    assert text in message


def test_wrong_key_returns_401():
    assert send({}, path="/mcp", body=json.dumps(rpc("ping")), key=None)[2]["type"] == problems.UNAUTHORIZED.uri


def test_revoked_key_returns_403(table):
    table.records[KEY.key_id] = make_key_record(KEY, status=KeyStatus.REVOKED)
    status, problem = post(rpc("tools/call", {"name": "run_python", "arguments": {"code": "1"}}))
    assert (status, problem["type"]) == (403, problems.KEY_REVOKED.uri)


def test_rate_limit_of_other_messages_returns_429(monkeypatch, components, table):
    table.records[KEY.key_id] = make_key_record(KEY, plan="free")
    now = time.time()
    monkeypatch.setattr(components.admission, "_clock", lambda: now)
    assert [post(rpc("ping"))[0] for _ in range(21)] == [200] * 20 + [429]


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_session_methods_return_405_without_key(method):
    status, headers, problem = send(method=method, path="/mcp", body="", key=None)
    assert (status, headers["Allow"], problem["type"]) == (405, "POST", "about:blank")


def test_other_media_type_returns_415():
    assert send({"Content-Type": "text/plain"}, path="/mcp", body="{}")[0] == 415


def test_messages_are_not_logged(log_lines):
    post(rpc("tools/call", {"name": "run_python", "arguments": {"code": "secret", "other": "secret"}}))
    assert log_lines
    assert "secret" not in "".join(log_lines)
