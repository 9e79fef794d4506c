"""The agent's HTTP client for the payload store, and a server that misbehaves."""

import logging

import pytest

from chalicelib.contract import MAX_PAYLOAD_BYTES
from executor_host import payloads
from executor_host.logs import log_json_lines
from executor_host.payloads import PayloadClient, PayloadError, PayloadRejectedError
from tests.support.webhook_receiver import WebhookReceiver

PATH = "/bucket/jobs/1?X-Amz-Signature=0123"


@pytest.fixture
def server():
    with WebhookReceiver() as server:
        yield server


@pytest.fixture
def url(server):
    return f"http://127.0.0.1:{server.port}{PATH}"


@pytest.fixture
def host(server):
    return PayloadClient(f"http://127.0.0.1:{server.port}/bucket", workers=2)


def respond(server, head, body=b""):
    server.respond = lambda connection: connection.sendall(b"HTTP/1.1 " + head + b"\r\n\r\n" + body)


def test_get_returns_the_body(server, host, url):
    respond(server, b"200 OK\r\nContent-Length: 3", b"abc")
    assert host.get(url) == b"abc"
    assert server.requests[0][0] == f"GET {PATH} HTTP/1.1"


def test_put_sends_the_body_once(server, host, url):
    host.put(url, b"abc")
    ((line, headers, body),) = server.requests
    assert (line, headers["If-None-Match"], body) == (f"PUT {PATH} HTTP/1.1", "*", b"abc")


@pytest.mark.parametrize(
    "foreign",
    [
        "http://127.0.0.1:{port}/other/jobs/1",
        "http://127.0.0.1:{port}/bucket",
        "http://localhost:{port}/bucket/jobs/1",
        "http://user@127.0.0.1:{port}/bucket/jobs/1",
        "http://127.0.0.1:{port}@169.254.169.254/bucket/jobs/1",
        "HTTP://127.0.0.1:{port}/bucket/jobs/1",
        "https://127.0.0.1:{port}/bucket/jobs/1",
        "http://169.254.169.254/latest/meta-data/",
        "file:///etc/passwd",
    ],
)
def test_url_outside_the_store_is_refused_without_a_connection(server, host, foreign):
    for call in (host.get, lambda url: host.put(url, b"")):
        with pytest.raises(PayloadRejectedError, match="not one of the payload store"):
            call(foreign.format(port=server.port))
    assert server.connections == 0


@pytest.mark.parametrize("status", [b"301 Moved", b"302 Found", b"307 Temporary Redirect"])
def test_redirect_is_not_followed(server, host, url, status):
    with WebhookReceiver() as target:
        respond(server, status + f"\r\nLocation: http://127.0.0.1:{target.port}/\r\nContent-Length: 0".encode())
        with pytest.raises(PayloadRejectedError):
            host.get(url)
        assert target.connections == 0


@pytest.mark.parametrize("status", ["400", "403", "404", "416"])
def test_refusal_is_final(server, host, url, status):
    respond(server, f"{status} No\r\nContent-Length: 0".encode())
    with pytest.raises(PayloadRejectedError, match=status):
        host.get(url)


@pytest.mark.parametrize("status", ["408", "409", "429", "500", "503"])
def test_failure_may_be_retried(server, host, url, status):
    respond(server, f"{status} No\r\nContent-Length: 0".encode())
    with pytest.raises(PayloadError, match=status) as raised:
        host.put(url, b"")
    assert not isinstance(raised.value, PayloadRejectedError)


def test_reply_that_is_already_stored_is_a_success(server, host, url):
    respond(server, b"412 Precondition Failed\r\nContent-Length: 0")
    host.put(url, b"")
    assert len(server.requests) == 1


def test_endless_object_is_refused(server, host, url):
    server.respond = server.send_endlessly(b"HTTP/1.1 200 OK\r\n\r\n", bytes(64 * 1024))
    with pytest.raises(PayloadRejectedError, match=str(MAX_PAYLOAD_BYTES)):
        host.get(url)


def test_compressed_object_is_not_inflated(server, host, url):
    respond(server, b"200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3", b"abc")
    assert host.get(url) == b"abc"


def test_slow_object_ends_at_the_deadline(server, host, url, monkeypatch):
    monkeypatch.setattr(payloads, "TRANSFER_TIMEOUT_S", 0.2)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n"
    server.respond = lambda connection: connection.sendall(head) or server.send_slowly(connection)
    with pytest.raises(PayloadError):
        host.get(url)


MISBEHAVIOR = {
    "closed": lambda _: lambda connection: connection.close(),
    "garbage": lambda _: lambda connection: connection.sendall(b"garbage\r\n\r\n"),
    "malformed_header": lambda _: lambda connection: connection.sendall(b"HTTP/1.1 500 No\r\n: x\r\n\r\n"),
    "cut_body": lambda _: lambda connection: connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"),
}


@pytest.mark.parametrize("respond", MISBEHAVIOR.values(), ids=MISBEHAVIOR)
def test_misbehavior_raises_and_logs_no_url(server, host, url, respond, capfd):
    server.respond = respond(server)
    root, level = logging.getLogger(), logging.getLogger("urllib3").level
    handlers = list(root.handlers)
    root.handlers.clear()
    try:
        log_json_lines()
        with pytest.raises(PayloadError) as raised:
            host.get(url)
        logging.getLogger("executor_host").warning("failed", exc_info=raised.value)
    finally:
        root.handlers[:] = handlers
        logging.getLogger("urllib3").setLevel(level)
    logged = capfd.readouterr().err
    assert "PayloadError" in logged
    assert "Signature" not in logged
