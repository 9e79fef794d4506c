"""Calls of receivers over real sockets. Names are resolved by the test, so that they may be anybody's."""

import contextlib
import errno
import socket
import threading
import time

import pytest

from chalicelib.webhooks.client import Callback, CallbackError, Reason
from tests.support.certificates import CertificateAuthority
from tests.support.webhook_receiver import WebhookReceiver

NAME = "receiver.example"
DEADLINE_S = 0.4


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return CertificateAuthority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def receiver():
    with WebhookReceiver() as receiver:
        yield receiver


@pytest.fixture
def secure(authority):
    with WebhookReceiver(authority.server_context(NAME)) as receiver:
        yield receiver


def to_loopback(_name, _port):
    return ["127.0.0.1"]


def post(receiver, *, scheme="http", body=b"{}", name=NAME, **options):
    options = {"local": True, "resolve": to_loopback} | options
    return Callback(**options).post(f"{scheme}://{name}:{receiver.port}/x?y=z", body, headers={"webhook-id": "1"})


def reason_of(receiver, **options):
    with pytest.raises(CallbackError) as caught:
        post(receiver, **options)
    return caught.value.reason


def test_body_and_headers_arrive_over_tls(secure, authority):
    assert post(secure, scheme="https", body=b"x" * 100_000, tls=authority.client_context()) == 200
    ((line, headers, body),) = secure.requests
    assert (line, body) == ("POST /x?y=z HTTP/1.1", b"x" * 100_000)
    assert (headers["Host"], headers["webhook-id"], headers["Connection"]) == (f"{NAME}:{secure.port}", "1", "close")


def test_certificate_must_be_trusted_and_of_the_name(secure, authority):
    assert reason_of(secure, scheme="https") == Reason.TLS
    assert reason_of(secure, scheme="https", name="other.example", tls=authority.client_context()) == Reason.TLS
    assert secure.requests == []


def test_http_server_on_https_port_is_reported(receiver, authority):
    receiver.respond = lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    receiver.reads = False
    assert reason_of(receiver, scheme="https", tls=authority.client_context(), deadline_s=DEADLINE_S) == Reason.TIMEOUT


def test_http_is_rejected_by_default(receiver):
    assert reason_of(receiver, local=False) == Reason.URL


@pytest.mark.parametrize(
    "addresses",
    [["127.0.0.1"], ["1.1.1.1", "127.0.0.1"], ["127.0.0.1", "1.1.1.1"], ["::1"], ["::ffff:127.0.0.1"], []],
)
def test_name_with_private_address_is_rejected_before_connecting(secure, addresses):
    found = reason_of(secure, scheme="https", local=False, resolve=lambda *_: addresses)
    assert (found, secure.connections) == (Reason.ADDRESS, 0)


@pytest.mark.parametrize("address", ["10.0.0.1", "169.254.169.254", "fd00:ec2::254", "fe80::1%lo", "64:ff9b::7f00:1"])
def test_local_mode_allows_only_loopback(receiver, address):
    found = reason_of(receiver, resolve=lambda *_: ["127.0.0.1", address])
    assert (found, receiver.connections) == (Reason.ADDRESS, 0)


def test_localhost_is_rejected_by_default(secure):
    with pytest.raises(CallbackError) as caught:
        Callback().post(f"https://localhost:{secure.port}/", b"", headers={})
    assert (caught.value.reason, secure.connections) == (Reason.ADDRESS, 0)


def test_connection_uses_the_checked_address(receiver, monkeypatch):
    answers, asked = iter([["127.0.0.1"], ["10.0.0.1"]]), []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **_: asked.append(arguments))
    assert post(receiver, resolve=lambda *_: next(answers)) == 200
    assert (list(answers), asked) == ([["10.0.0.1"]], [])


def test_falls_back_to_next_address(receiver):
    assert post(receiver, resolve=lambda *_: ["::1", "127.0.0.2", "127.0.0.1"]) == 200


@contextlib.contextmanager
def silent(address, port):
    """Nothing there answers an attempt to connect: no place is left in the queue of who listens."""
    with contextlib.ExitStack() as opened:
        listening = opened.enter_context(socket.socket())
        listening.bind((address, port))
        listening.listen(0)
        for _ in range(4):
            waiting = opened.enter_context(socket.socket())
            waiting.settimeout(0)
            waiting.connect_ex((address, port))
        yield address


def test_unresponsive_address_leaves_time_for_next(receiver):
    with silent("127.0.0.2", receiver.port) as address:
        assert post(receiver, resolve=lambda *_: [address, address, "127.0.0.1"], deadline_s=3 * DEADLINE_S) == 200


def test_unresponsive_addresses_time_out(receiver):
    begun = time.monotonic()
    with silent("127.0.0.2", receiver.port) as address:
        found = reason_of(receiver, resolve=lambda *_: [address, address], deadline_s=DEADLINE_S)
    assert (found, in_time(begun)) == (Reason.TIMEOUT, True)


def test_unsupported_address_family_is_skipped(receiver, monkeypatch):
    class Ipv4Socket(socket.socket):
        def __init__(self, family=-1, *arguments, **named):
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
            super().__init__(family, *arguments, **named)

    monkeypatch.setattr(socket, "socket", Ipv4Socket)
    assert post(receiver, resolve=lambda *_: ["::1", "127.0.0.1"]) == 200
    assert reason_of(receiver, resolve=lambda *_: ["::1"]) == Reason.CONNECTION


def test_connection_refused_is_reported(receiver):
    assert reason_of(receiver, resolve=lambda *_: ["127.0.0.2"]) == Reason.CONNECTION


@pytest.mark.parametrize("error", [socket.gaierror(-2, "no"), UnicodeError()], ids=["unknown", "unicode"])
def test_unresolvable_name_is_reported(receiver, error):
    def fail(*_):
        raise error

    assert reason_of(receiver, resolve=fail) == Reason.ADDRESS


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_is_not_followed(receiver, status):
    location = f"Location: http://{NAME}:{receiver.port}/inside"
    receiver.respond = lambda connection: connection.sendall(f"HTTP/1.1 {status} Go\r\n{location}\r\n\r\n".encode())
    assert (post(receiver), receiver.connections) == (status, 1)


def test_environment_proxies_are_ignored(receiver, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert post(receiver) == 200


def in_time(begun):
    return time.monotonic() - begun < DEADLINE_S + 1


def test_slow_receiver_times_out(receiver):
    for behave in (receiver.send_slowly, receiver.hang):
        receiver.respond = behave
        begun = time.monotonic()
        if behave == receiver.hang:
            receiver.reads = False
        assert (reason_of(receiver, deadline_s=DEADLINE_S), in_time(begun)) == (Reason.TIMEOUT, True)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_non_reading_receiver_times_out(receiver, scheme):
    receiver.reads = False
    begun = time.monotonic()
    found = reason_of(receiver, scheme=scheme, body=b"x" * 10_000_000, deadline_s=DEADLINE_S)
    assert (found, in_time(begun)) == (Reason.TIMEOUT, True)


def test_slow_dns_times_out(receiver):
    answered = threading.Event()
    begun = time.monotonic()
    found = reason_of(receiver, deadline_s=DEADLINE_S, resolve=lambda *_: answered.wait(10) and ["127.0.0.1"])
    answered.set()
    assert (found, in_time(begun)) == (Reason.TIMEOUT, True)


@pytest.mark.parametrize("end", [b"", b"\r\n"], ids=["headers", "body"])
def test_response_header_size_is_limited(receiver, end):
    receiver.respond = receiver.send_endless_headers(b"HTTP/1.1 200 OK\r\n" + end)
    begun = time.monotonic()
    if end:
        assert post(receiver) == 200
    else:
        assert reason_of(receiver) == Reason.PROTOCOL
    assert in_time(begun)


NO_HTTP = {
    "nothing": b"",
    "text": b"hello\r\n\r\n",
    "no_status": b"HTTP/1.1\r\n\r\n",
    "text_status": b"HTTP/1.1 abc OK\r\n\r\n",
    "endless_line": b"x" * 100_000,
}


@pytest.mark.parametrize("answer", NO_HTTP.values(), ids=NO_HTTP)
def test_non_http_response_is_reported(receiver, answer):
    receiver.respond = lambda connection: connection.sendall(answer)
    assert reason_of(receiver) == Reason.PROTOCOL
