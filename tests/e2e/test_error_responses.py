"""What a customer is answered whose request is refused, and that it costs nobody else anything."""

import http.client
import json
import socket
from urllib.parse import urlsplit

import pytest

from chalicelib.api.run_request import MAX_BODY_BYTES, RequestErrorCode
from chalicelib.contract import MAX_CODE_BYTES, MAX_INPUT_BYTES
from tests.support.http_client import JSON, TIMEOUT_S, Answer

GOOD = json.dumps({"code": "print(input())", "input": "good"})
BAD = {
    "not_utf8": (b'{"code": "\xff"}', None, "invalid_utf8"),
    "not_json": (b"print(1)", None, "invalid_json"),
    "nothing": (b"", None, "invalid_json"),
    "nan": (b'{"code": "1", "timeout_s": NaN}', None, "invalid_json"),
    "deep": (b"[" * 100_000, None, "invalid_json"),
    "not_an_object": (b"[1]", None, "not_an_object"),
    "twice": (b'{"code": "1", "code": "2"}', "code", "duplicate_name"),
    "unknown": (b'{"code": "1", "stdin": "x"}', "stdin", "unknown_field"),
    "no_code": (b'{"input": "x"}', "code", "missing"),
    "null_code": (b'{"code": null}', "code", "missing"),
    "empty_code": (b'{"code": ""}', "code", "empty"),
    "code_is_a_number": (b'{"code": 1}', "code", "wrong_type"),
    "code_is_a_list": (b'{"code": ["1"]}', "code", "wrong_type"),
    "input_is_a_number": (b'{"code": "1", "input": 5}', "input", "wrong_type"),
    "input_is_an_object": (b'{"code": "1", "input": {}}', "input", "wrong_type"),
    "timeout_is_text": (b'{"code": "1", "timeout_s": "3"}', "timeout_s", "wrong_type"),
    "timeout_is_a_bool": (b'{"code": "1", "timeout_s": true}', "timeout_s", "wrong_type"),
    "lone_surrogate": (b'{"code": "\\ud800"}', "code", "lone_surrogate"),
    "nul_in_code": (b'{"code": "a\\u0000b"}', "code", "contains_nul"),
    "nul_in_input": (b'{"code": "1", "input": "\\u0000"}', "input", "contains_nul"),
    "timeout_too_short": (b'{"code": "1", "timeout_s": 0.09}', "timeout_s", "out_of_range"),
    "callback_by_ftp": (b'{"code": "1", "callback_url": "ftp://example.org/"}', "callback_url", "invalid_url"),
    "callback_inside": (b'{"code": "1", "callback_url": "https://169.254.169.254/"}', "callback_url", "invalid_url"),
    "callback_of_a_wait": (
        b'{"code": "1", "callback_url": "https://example.org/"}',
        "callback_url",
        "requires_respond_async",
    ),
    "timeout_too_long": (b'{"code": "1", "timeout_s": 10.1}', "timeout_s", "out_of_range"),
}
TOO_LARGE = {
    "code": ({"code": "x" * (MAX_CODE_BYTES + 1)}, "code", MAX_CODE_BYTES),
    "code_in_utf8": ({"code": "#" + "ü" * (MAX_CODE_BYTES // 2)}, "code", MAX_CODE_BYTES),
    "input": ({"code": "1", "input": "x" * (MAX_INPUT_BYTES + 1)}, "input", MAX_INPUT_BYTES),
    "body": ({"code": "1", "input": "x" * MAX_BODY_BYTES}, None, MAX_BODY_BYTES),
}
OTHER_TYPES = {
    "form": {"Content-Type": "application/x-www-form-urlencoded"},
    "text": {"Content-Type": "text/plain"},
    "binary": {"Content-Type": "application/octet-stream"},
    "charset": {"Content-Type": "application/json; charset=latin-1"},
    "none": {},
}


def is_problem(answer, status, slug):
    assert (answer.status, answer.headers["Content-Type"]) == (status, "application/problem+json")
    assert (answer.body["status"], answer.body["type"]) == (status, slug)
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(("body", "field", "code"), BAD.values(), ids=BAD)
def test_invalid_body_returns_400_with_field_and_code(client, body, field, code):
    answer = client.send(body)
    is_problem(answer, 400, "urn:python-exec:problem:invalid-request")
    assert (answer.body.get("field"), answer.body["code"]) == (field, code)


@pytest.mark.parametrize(("fields", "field", "limit_bytes"), TOO_LARGE.values(), ids=TOO_LARGE)
def test_oversized_field_returns_413_with_limit(client, fields, field, limit_bytes):
    answer = client.send(json.dumps(fields, ensure_ascii=False).encode())
    is_problem(answer, 413, "urn:python-exec:problem:too-large")
    assert (answer.body.get("field"), answer.body["code"]) == (field, "too_large")
    assert answer.body["limit_bytes"] == limit_bytes < answer.body["actual_bytes"]


@pytest.mark.parametrize("headers", OTHER_TYPES.values(), ids=OTHER_TYPES)
def test_unsupported_content_type_returns_415(client, headers):
    answer = client.send(GOOD, headers=headers)
    is_problem(answer, 415, "urn:python-exec:problem:unsupported-media-type")
    assert (answer.body["code"], answer.headers["Accept-Post"]) == ("unsupported_content_type", "application/json")


def test_every_code_is_covered():
    assert {code for _, _, code in BAD.values()} | {"too_large", "unsupported_content_type"} == set(RequestErrorCode)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_unsupported_method_returns_405(client, method):
    answer = client.send(method=method, headers={})
    is_problem(answer, 405, "about:blank")
    assert answer.headers["Allow"] == "POST"


def test_chunked_body_returns_411(stack):
    # At once: the answer comes after the headers and ends the connection.
    lines = ["POST / HTTP/1.1", "Host: x", f"X-Api-Key: {stack.api_key}", "Content-Type: application/json"]
    chunks = f"{len(GOOD):x}\r\n{GOOD}\r\n0\r\n\r\n"
    where = urlsplit(stack.url)
    with socket.create_connection((where.hostname, where.port), timeout=TIMEOUT_S) as connection:
        connection.sendall("\r\n".join([*lines, "Transfer-Encoding: chunked", "", chunks]).encode())
        response = http.client.HTTPResponse(connection)
        response.begin()
        answer = Answer(response.status, response.headers, json.loads(response.read()))
    is_problem(answer, 411, "urn:python-exec:problem:length-required")


@pytest.mark.parametrize("path", ["/jobs", "/../etc/passwd", "/%2e"])
def test_unknown_path_returns_403(client, path):
    assert client.send(GOOD, path=path).status == 403


def test_content_type_is_case_insensitive(client):
    headers = {"content-type": 'Application/JSON ; charset="UTF-8"'}
    assert client.send(GOOD, headers=headers).body["stdout"] == "good\n"


def test_rejected_request_does_not_break_connection(client):
    assert client.send(GOOD).status == 200
    connection = client.local_port
    refused = [client.send(body).status for body, _, _ in BAD.values()]
    refused += [client.send(json.dumps(fields)).status for fields, _, _ in TOO_LARGE.values()]
    refused += [client.send(GOOD, headers=headers).status for headers in OTHER_TYPES.values()]
    assert set(refused) == {400, 413, 415}
    for body in (b'{"code": "1", "input": 5}', b'{"code": 1, "input": "x"}', b"{"):
        assert client.send(body, headers=JSON).status == 400
        assert client.send(GOOD).body["stdout"] == "good\n"
    assert client.local_port == connection
