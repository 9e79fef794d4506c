"""Responses to requests that the API rejects."""

import http.client
import json
import socket
from urllib.parse import urlsplit

import pytest

from chalicelib.api.request_fields import MAX_BODY_BYTES
from chalicelib.contract import MAX_ARGS_BYTES, MAX_CODE_BYTES, MAX_INPUT_BYTES
from tests.support.http_client import JSON, TIMEOUT_S, Answer

GOOD = json.dumps({"code": "print(input())", "input": "good"})
INVALID = {  # tests/unit/api/test_run_request.py has all the others
    "not_utf8": (b'{"code": "\xff"}', None, "invalid_utf8"),
    "unknown_field": (b'{"code": "1", "stdin": "x"}', "stdin", "unknown_field"),
    "lone_surrogate_in_args": (b'{"code": "1", "args": ["", "\\udc80"]}', "args[1]", "lone_surrogate"),
    "too_many_args": (json.dumps({"code": "1", "args": [""] * 65}), "args", "too_many"),
    "callback_without_async": (
        b'{"code": "1", "callback_url": "https://example.org/"}',
        "callback_url",
        "requires_respond_async",
    ),
}
TOO_LARGE = {
    "code": ({"code": "x" * (MAX_CODE_BYTES + 1)}, "code", MAX_CODE_BYTES),
    "code_in_utf8": ({"code": "#" + "ü" * (MAX_CODE_BYTES // 2)}, "code", MAX_CODE_BYTES),
    "input": ({"code": "1", "input": "x" * (MAX_INPUT_BYTES + 1)}, "input", MAX_INPUT_BYTES),
    "args": ({"code": "1", "args": ["x" * MAX_ARGS_BYTES, "x"]}, "args", MAX_ARGS_BYTES),
    "body": ({"code": "1", "input": "x" * MAX_BODY_BYTES}, None, MAX_BODY_BYTES),
}
OTHER_TYPES = {
    "form": {"Content-Type": "application/x-www-form-urlencoded"},
    "text": {"Content-Type": "text/plain"},
    "binary": {"Content-Type": "application/octet-stream"},
    "charset": {"Content-Type": "application/json; charset=latin-1"},
    "none": {},
}


def assert_problem(answer, status, slug):
    assert (answer.status, answer.headers["Content-Type"]) == (status, "application/problem+json")
    assert (answer.body["status"], answer.body["type"]) == (status, slug)
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(("body", "field", "code"), INVALID.values(), ids=INVALID)
def test_invalid_body_returns_400_with_field_and_code(client, body, field, code):
    answer = client.send(body)
    assert_problem(answer, 400, "urn:python-exec:problem:invalid-request")
    assert (answer.body.get("field"), answer.body["code"]) == (field, code)


@pytest.mark.parametrize(("fields", "field", "limit_bytes"), TOO_LARGE.values(), ids=TOO_LARGE)
def test_oversized_field_returns_413_with_limit(client, fields, field, limit_bytes):
    answer = client.send(json.dumps(fields, ensure_ascii=False).encode())
    assert_problem(answer, 413, "urn:python-exec:problem:too-large")
    assert (answer.body.get("field"), answer.body["code"]) == (field, "too_large")
    assert answer.body["limit_bytes"] == limit_bytes < answer.body["actual_bytes"]


@pytest.mark.parametrize("headers", OTHER_TYPES.values(), ids=OTHER_TYPES)
def test_unsupported_content_type_returns_415(client, headers):
    answer = client.send(GOOD, headers=headers)
    assert_problem(answer, 415, "urn:python-exec:problem:unsupported-media-type")
    assert (answer.body["code"], answer.headers["Accept-Post"]) == ("unsupported_content_type", "application/json")


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
def test_unsupported_method_returns_405(client, method):
    answer = client.send(method=method, headers={})
    assert_problem(answer, 405, "about:blank")
    assert answer.headers["Allow"] == "POST, GET"


def test_chunked_body_returns_411(stack):
    # In one send: the server answers after the headers and closes the connection.
    lines = ["POST / HTTP/1.1", "Host: x", f"X-Api-Key: {stack.api_key}", "Content-Type: application/json"]
    chunks = f"{len(GOOD):x}\r\n{GOOD}\r\n0\r\n\r\n"
    where = urlsplit(stack.url)
    with socket.create_connection((where.hostname, where.port), timeout=TIMEOUT_S) as connection:
        connection.sendall("\r\n".join([*lines, "Transfer-Encoding: chunked", "", chunks]).encode())
        response = http.client.HTTPResponse(connection)
        response.begin()
        answer = Answer(response.status, response.headers, json.loads(response.read()))
    assert_problem(answer, 411, "urn:python-exec:problem:length-required")


@pytest.mark.parametrize("path", ["/jobs", "/../etc/passwd", "/%2e"])
def test_unknown_path_returns_403(client, path):
    assert client.send(GOOD, path=path).status == 403


def test_content_type_is_case_insensitive(client):
    headers = {"content-type": 'Application/JSON ; charset="UTF-8"'}
    assert client.send(GOOD, headers=headers).body["stdout"] == "good\n"


def test_rejected_request_does_not_break_connection(client):
    assert client.send(GOOD).status == 200
    connection = client.local_port
    statuses = [client.send(body).status for body, _, _ in INVALID.values()]
    statuses += [client.send(json.dumps(fields)).status for fields, _, _ in TOO_LARGE.values()]
    statuses += [client.send(GOOD, headers=headers).status for headers in OTHER_TYPES.values()]
    assert set(statuses) == {400, 413, 415}
    for body in (b'{"code": "1", "input": 5}', b'{"code": 1, "input": "x"}', b"{"):
        assert client.send(body, headers=JSON).status == 400
        assert client.send(GOOD).body["stdout"] == "good\n"
    assert client.local_port == connection


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.2", "[::1]"])
def test_webhooks_cannot_reach_the_stack_itself(client, stack, host):
    for url in (stack.url, stack.metrics_url, stack.environment["AWS_ENDPOINT_URL"]):
        body = {"code": "1", "callback_url": f"http://{host}:{urlsplit(url).port}/moto-api/reset"}
        answer = client.send(json.dumps(body), headers={**JSON, "Prefer": "respond-async"})
        assert (answer.status, answer.body["code"], answer.body["field"]) == (400, "invalid_url", "callback_url")
