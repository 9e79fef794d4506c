"""The API as a WSGI application, called without a server. tests/e2e/test_api_container.py runs it in its container."""

import gzip
import io
import json
import socket

import pytest
from chalice.local import ForbiddenError

from chalicelib.components import LONG_POLL_CONFIG
from chalicelib.jobs.submit import REPLY_GRACE_S
from chalicelib.settings import MAX_WAIT_S
from infra.server import gunicorn_settings, wsgi
from infra.server.gateway import MAX_BODY_BYTES


class FakeGateway:
    """Records requests, and answers with the last one."""

    def __init__(self):
        self.requests = []
        self.has_key = True
        self.response = {
            "statusCode": 200,
            "headers": {"X-A": "1"},
            "multiValueHeaders": {"Vary": ["a", "b"]},
            "body": "{}",
        }

    def is_authenticated(self, *_):
        return self.has_key

    def cors_headers(self):
        return {"Access-Control-Allow-Origin": "*"}

    def handle_request(self, method, path, headers, body):
        self.requests.append((method, path, dict(headers), body))
        if isinstance(self.response, Exception):
            raise self.response
        return self.response


class SlowBody(io.RawIOBase):
    """A body whose next byte never arrives in time."""

    def read(self, _=-1):
        raise TimeoutError


@pytest.fixture
def gateway():
    return FakeGateway()


@pytest.fixture
def send(gateway):
    """Return a function that sends a request and returns the status, the lines of headers and the body."""
    connection, other = socket.socketpair()

    def send(body=b"", **environ):
        responses = []
        request = {
            "REQUEST_METHOD": "POST",
            "RAW_URI": "/jobs/a%20b?x=1",
            "CONTENT_LENGTH": str(len(body)) if isinstance(body, bytes) else "5",
            "wsgi.input": io.BytesIO(body) if isinstance(body, bytes) else body,
            "gunicorn.socket": connection,
            **environ,
        }
        content = b"".join(wsgi.Application(gateway)(request, lambda *line: responses.append(line)))
        ((status, headers),) = responses
        assert dict(headers)["Content-Length"] == str(len(content))
        return status, headers, content

    yield send
    connection.close()
    other.close()


def test_request_reaches_the_gateway_as_it_is(send, gateway):
    status, headers, content = send(b"{}", CONTENT_TYPE="application/json", HTTP_X_API_KEY="pk_1")
    sent = {"Content-Type": "application/json", "Content-Length": "2", "X-Api-Key": "pk_1"}
    assert gateway.requests == [("POST", "/jobs/a%20b?x=1", sent, b"{}")]
    assert (status, content) == ("200 OK", b"{}")
    assert [value for name, value in headers if name == "Vary"] == ["a", "b"]


def test_request_without_a_body_has_none(send, gateway):
    send(REQUEST_METHOD="GET")
    assert gateway.requests[0][3] is None


@pytest.mark.parametrize("length", ["1", str(MAX_BODY_BYTES + 1)])
def test_body_without_a_valid_key_is_not_read(send, gateway, length):
    gateway.has_key = False
    send(SlowBody(), CONTENT_LENGTH=length)
    assert gateway.requests[0][3] is None


def test_declared_length_above_the_limit_returns_413_without_reading(send, gateway):
    status, headers, content = send(SlowBody(), CONTENT_LENGTH=str(MAX_BODY_BYTES + 1))
    assert (status, json.loads(content)["status"], gateway.requests) == ("413 Request Entity Too Large", 413, [])
    assert dict(headers).items() >= {"Connection": "close", "Access-Control-Allow-Origin": "*"}.items()


def test_chunked_body_above_the_limit_returns_413(send, gateway):
    body = io.BytesIO(b"x" * (MAX_BODY_BYTES + 1))
    status, _, _ = send(body, CONTENT_LENGTH="", HTTP_TRANSFER_ENCODING="chunked")
    assert (status, gateway.requests) == ("413 Request Entity Too Large", [])


def test_body_that_does_not_arrive_in_time_returns_408(send, gateway):
    status, _, _ = send(SlowBody())
    assert (status, gateway.requests) == ("408 Request Timeout", [])


def test_large_response_is_compressed_if_accepted(send, gateway):
    gateway.response = {**gateway.response, "body": "x" * 2000}
    _, headers, content = send(HTTP_ACCEPT_ENCODING="gzip, br")
    assert (dict(headers)["Content-Encoding"], gzip.decompress(content)) == ("gzip", b"x" * 2000)
    assert send()[2] == b"x" * 2000


def test_error_of_the_gateway_is_returned(send, gateway):
    gateway.response = ForbiddenError({"X-Amzn-Errortype": "Unauthorized"}, b'{"message": "no route"}')
    status, headers, content = send()
    assert (status, content) == ("403 Forbidden", b'{"message": "no route"}')
    assert dict(headers)["Content-Type"] == "application/json"


def test_stopping_process_waits_longer_than_any_request():
    assert gunicorn_settings.graceful_timeout > MAX_WAIT_S + REPLY_GRACE_S


def test_every_thread_has_a_connection_to_sqs():
    assert LONG_POLL_CONFIG.max_pool_connections >= gunicorn_settings.threads
