"""Requests to webhook endpoints over real sockets. The tests resolve the host names."""

import contextlib
import errno
import socket
import threading
import time

import pytest

from chalicelib.webhooks.client import DeliveryError, WebhookClient
from tests.support.certificates import CertificateAuthority
from tests.support.webhook_receiver import WebhookReceiver

NAME = "receiver.example"
TIMEOUT_S = 0.4


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return CertificateAuthority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def receiver():
    with WebhookReceiver() as receiver:
        yield receiver


@pytest.fixture
def tls_receiver(authority):
    with WebhookReceiver(authority.server_context(NAME)) as receiver:
        yield receiver


def to_loopback(_name, _port):
    return ["127.0.0.1"]


def post(receiver, *, scheme="http", body=b"{}", name=NAME, **options):
    options = {"local_ports": frozenset({receiver.port}), "resolve": to_loopback} | options
    return WebhookClient(**options).post(f"{scheme}://{name}:{receiver.port}/x?y=z", body, headers={"webhook-id": "1"})


def error_code(receiver, **options):
    with pytest.raises(DeliveryError) as caught:
        post(receiver, **options)
    return caught.value.code


def test_body_and_headers_arrive_over_tls(tls_receiver, authority):
    assert post(tls_receiver, scheme="https", body=b"x" * 100_000, tls=authority.client_context()) == 200
    ((line, headers, body),) = tls_receiver.requests
    assert (line, body) == ("POST /x?y=z HTTP/1.1", b"x" * 100_000)
    expected = {"Host": f"{NAME}:{tls_receiver.port}", "webhook-id": "1", "Connection": "close"}
    assert {name: headers[name] for name in expected} == expected


def test_certificate_must_be_trusted_and_of_the_name(tls_receiver, authority):
    assert error_code(tls_receiver, scheme="https") == "tls_error"
    assert error_code(tls_receiver, scheme="https", name="other.example", tls=authority.client_context()) == "tls_error"
    assert tls_receiver.requests == []


def test_http_server_on_https_port_is_reported(receiver):
    def respond(connection):
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        receiver.hang()  # closing a connection with unread data would reset it

    receiver.reads, receiver.respond = False, respond
    assert error_code(receiver, scheme="https") == "tls_error"


def test_http_is_rejected_by_default(receiver):
    assert error_code(receiver, local_ports=frozenset()) == "invalid_url"


@pytest.mark.parametrize("name", [NAME, "localhost", "127.0.0.1", "127.1.2.3"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_local_port_that_is_not_allowed_is_rejected_before_connecting(receiver, scheme, name):
    code = error_code(receiver, scheme=scheme, name=name, local_ports=frozenset({receiver.port + 1}))
    assert (code in {"invalid_url", "address_not_public"}, receiver.connections) == (True, 0)


@pytest.mark.parametrize(
    "addresses",
    [["127.0.0.1"], ["1.1.1.1", "127.0.0.1"], ["127.0.0.1", "1.1.1.1"], ["::1"], ["::ffff:127.0.0.1"], []],
)
def test_name_with_private_address_is_rejected_before_connecting(tls_receiver, addresses):
    code = error_code(tls_receiver, scheme="https", local_ports=frozenset(), resolve=lambda *_: addresses)
    assert (code, tls_receiver.connections) == ("address_not_public", 0)


@pytest.mark.parametrize("address", ["10.0.0.1", "169.254.169.254", "fd00:ec2::254", "fe80::1%lo", "64:ff9b::7f00:1"])
def test_local_port_allows_only_loopback(receiver, address):
    code = error_code(receiver, resolve=lambda *_: ["127.0.0.1", address])
    assert (code, receiver.connections) == ("address_not_public", 0)


def test_localhost_is_rejected_by_default(tls_receiver):
    with pytest.raises(DeliveryError) as caught:
        WebhookClient().post(f"https://localhost:{tls_receiver.port}/", b"", headers={})
    assert (caught.value.code, tls_receiver.connections) == ("address_not_public", 0)


def test_connection_uses_the_checked_address(receiver, monkeypatch):
    answers, lookups = iter([["127.0.0.1"], ["10.0.0.1"]]), []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **_: lookups.append(arguments))
    assert post(receiver, resolve=lambda *_: next(answers)) == 200
    assert (list(answers), lookups) == ([["10.0.0.1"]], [])


def test_falls_back_to_next_address(receiver):
    assert post(receiver, resolve=lambda *_: ["::1", "127.0.0.2", "127.0.0.1"]) == 200


@contextlib.contextmanager
def unresponsive_address(address, port):
    """Yield an address that answers no attempt to connect, because its backlog is full."""
    with contextlib.ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind((address, port))
        listener.listen(0)
        for _ in range(4):
            pending = sockets.enter_context(socket.socket())
            pending.settimeout(0)
            pending.connect_ex((address, port))
        yield address


def test_unresponsive_address_leaves_time_for_next(receiver):
    with unresponsive_address("127.0.0.2", receiver.port) as address:
        assert post(receiver, resolve=lambda *_: [address, address, "127.0.0.1"], timeout_s=3 * TIMEOUT_S) == 200


def test_unresponsive_addresses_time_out(receiver):
    started_at = time.monotonic()
    with unresponsive_address("127.0.0.2", receiver.port) as address:
        code = error_code(receiver, resolve=lambda *_: [address, address], timeout_s=TIMEOUT_S)
    assert (code, in_time(started_at)) == ("timeout", True)


def test_unsupported_address_family_is_skipped(receiver, monkeypatch):
    class Ipv4Socket(socket.socket):
        def __init__(self, family=-1, *arguments, **named):
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
            super().__init__(family, *arguments, **named)

    monkeypatch.setattr(socket, "socket", Ipv4Socket)
    assert post(receiver, resolve=lambda *_: ["::1", "127.0.0.1"]) == 200
    assert error_code(receiver, resolve=lambda *_: ["::1"]) == "connection_failed"


def test_connection_refused_is_reported(receiver):
    assert error_code(receiver, resolve=lambda *_: ["127.0.0.2"]) == "connection_failed"


@pytest.mark.parametrize("error", [socket.gaierror(-2, "no"), UnicodeError()], ids=["unknown", "unicode"])
def test_unresolvable_name_is_reported(receiver, error):
    def fail(*_):
        raise error

    assert error_code(receiver, resolve=fail) == "address_not_public"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_is_not_followed(receiver, status):
    location = f"Location: http://{NAME}:{receiver.port}/inside"
    receiver.respond = lambda connection: connection.sendall(f"HTTP/1.1 {status} Go\r\n{location}\r\n\r\n".encode())
    assert (post(receiver), receiver.connections) == (status, 1)


def test_environment_proxies_are_ignored(receiver, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert post(receiver) == 200


def in_time(started_at):
    return time.monotonic() - started_at < TIMEOUT_S + 4


@pytest.mark.parametrize("behavior", ["send_slowly", "hang"])
def test_slow_receiver_times_out(receiver, behavior):
    receiver.respond = getattr(receiver, behavior)
    started_at = time.monotonic()
    assert (error_code(receiver, timeout_s=TIMEOUT_S), in_time(started_at)) == ("timeout", True)


NOT_READING = {
    "hang": ("http", "hang"),
    "hang_tls": ("https", "hang"),
    "slow": ("http", "receive_slowly"),
}


@pytest.mark.parametrize(("scheme", "behavior"), NOT_READING.values(), ids=NOT_READING)
def test_non_reading_receiver_times_out(receiver, scheme, behavior):
    receiver.reads, receiver.respond = False, getattr(receiver, behavior)
    started_at = time.monotonic()
    code = error_code(receiver, scheme=scheme, body=b"x" * 30_000_000, timeout_s=TIMEOUT_S)
    assert (code, in_time(started_at)) == ("timeout", True)


def test_slow_dns_times_out(receiver):
    resolved = threading.Event()
    started_at = time.monotonic()
    code = error_code(receiver, timeout_s=TIMEOUT_S, resolve=lambda *_: resolved.wait(10) and ["127.0.0.1"])
    resolved.set()
    assert (code, in_time(started_at)) == ("timeout", True)


ENDLESS_HEADERS = {
    "fields": (b"HTTP/1.1 200 OK\r\n", b"X: x\r\n"),
    "interim_responses": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
}


@pytest.mark.parametrize(("start", "repeated"), ENDLESS_HEADERS.values(), ids=ENDLESS_HEADERS)
def test_response_header_size_is_limited(receiver, start, repeated):
    receiver.respond = receiver.send_endlessly(start, repeated)
    started_at = time.monotonic()
    assert (error_code(receiver), in_time(started_at)) == ("invalid_response", True)


def test_response_body_is_not_read(receiver):
    receiver.respond = receiver.send_endlessly(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 1000)
    started_at = time.monotonic()
    assert (post(receiver), in_time(started_at)) == (200, True)


NOT_HTTP = {
    "nothing": b"",
    "text": b"hello\r\n\r\n",
    "no_status": b"HTTP/1.1\r\n\r\n",
    "text_status": b"HTTP/1.1 abc OK\r\n\r\n",
    "endless_line": b"x" * 100_000,
}


@pytest.mark.parametrize("response", NOT_HTTP.values(), ids=NOT_HTTP)
def test_non_http_response_is_reported(receiver, response):
    receiver.respond = lambda connection: connection.sendall(response)
    assert error_code(receiver) == "invalid_response"
