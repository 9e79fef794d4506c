"""Clients that are slow, silent, impatient or disconnected."""

import contextlib
import json
import re
import socket
from urllib.parse import urlsplit

import pytest

BODY = json.dumps({"code": "print(input())", "input": "good"}).encode()
HEAD = "POST / HTTP/1.1\r\nHost: x\r\nX-Api-Key: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n"


@pytest.fixture
def request_bytes(stack):
    """Return the bytes of a valid request."""
    return HEAD.format(stack.api_key, len(BODY)).encode() + BODY


@pytest.fixture
def connect(stack):
    """Return a function that opens a connection to the API, which is closed after the test."""
    address = urlsplit(stack.url)
    with contextlib.ExitStack() as opened:
        yield lambda: opened.enter_context(socket.create_connection((address.hostname, address.port), timeout=60))


def read_answer(connection):
    """Return status and body of the next answer on a connection."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(65536) or pytest.fail(f"closed after {received}")
    head, _, body = received.partition(b"\r\n\r\n")
    length = int(re.search(rb"(?i)content-length: (\d+)", head)[1])
    while len(body) < length:
        body += connection.recv(65536) or pytest.fail(f"closed after {received}")
    return int(head.split()[1]), json.loads(body)


def assert_ok(answer):
    status, body = answer
    assert (status, body.get("stdout")) == (200, "good\n")


def test_slow_client_does_not_block_others(connect, client, request_bytes):
    slow = connect()
    for start in range(0, len(request_bytes), 40):
        slow.sendall(request_bytes[start : start + 40])
        assert client.run("print(1)")["stdout"] == "1\n"
    assert_ok(read_answer(slow))


def test_idle_connections_do_not_block_others(connect, client):
    for _ in range(100):
        connect()
    assert client.run("print(1)")["stdout"] == "1\n"


def test_half_closed_client_receives_response(connect, request_bytes):
    half_closed = connect()
    half_closed.sendall(request_bytes)
    half_closed.shutdown(socket.SHUT_WR)
    assert_ok(read_answer(half_closed))


def test_truncated_body_is_rejected(connect, request_bytes):
    cut = connect()
    cut.sendall(request_bytes[:-1])
    cut.shutdown(socket.SHUT_WR)
    status, body = read_answer(cut)
    assert (status, body["code"]) == (400, "invalid_json")


def test_disconnecting_clients_do_not_affect_others(connect, client, request_bytes):
    for _ in range(8):
        gone = connect()
        gone.sendall(request_bytes)
        gone.close()
    assert [client.run(f"print({n})")["stdout"] for n in range(8)] == [f"{n}\n" for n in range(8)]


def test_connection_is_reused(client):
    first = client.run("print(1)")["stdout"], client.local_port
    assert {(client.run("print(1)")["stdout"], client.local_port) for _ in range(10)} == {first}
