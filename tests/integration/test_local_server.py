"""Attack the local server of the API over sockets: ambiguous, oversized, slow and numerous requests."""

import contextlib
import gzip
import http.client
import json
import re
import socket
import sys
import threading
import time
from pathlib import Path

import pytest

from chalicelib.access.api_keys import new_key
from chalicelib.api.static_files import static_file
from infra.local.bounded_http import HEAD_TIMEOUT_S, MAX_CONNECTIONS, MAX_HEAD_BYTES
from infra.local.emulated_aws import create_resources
from infra.local.processes import LOOPBACK, child_process, free_port, is_listening
from infra.operator.key_admin import KeyAdmin
from infra.server.gateway import BODY_TIMEOUT_S, MAX_BODY_BYTES
from tests.support.polling import eventually

KEY = new_key()
BODY = b'{"code": "print(1)"}'
ASYNC = "Prefer: respond-async"
JSON = "Content-Type: application/json"
LENGTH = f"Content-Length: {len(BODY)}"
AUTHORIZED = f"X-Api-Key: {KEY}"
SLUG = "urn:python-exec:problem:"


@pytest.fixture(scope="module")
def port():
    return free_port()


@pytest.fixture(scope="module")
def server(aws, dynamodb, port, tmp_path_factory):
    """Start the API without hosts, and return its process."""
    settings = {**aws.environment, **create_resources(aws.environment, stack="local-server")}
    KeyAdmin(dynamodb, table=settings["KEYS_TABLE"]).create(KEY, plan="internal", owner="test", now_s=int(time.time()))
    command = [sys.executable, "-m", "infra.local.chalice_server", f"--host={LOOPBACK}", f"--port={port}"]
    with child_process(
        "api", command, grace_s=2, settings=settings, logs=tmp_path_factory.mktemp("local-server")
    ) as process:
        process.wait_until(lambda: is_listening(LOOPBACK, port), timeout_s=30)
        yield process
        process.check()


@pytest.fixture
def connect(server, port):
    """Return a function that opens a connection, which is closed after the test."""
    with contextlib.ExitStack() as connections:
        yield lambda: connections.enter_context(socket.create_connection((LOOPBACK, port), timeout=10))


def head(*lines, target="/", method="POST"):
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: x", *lines, "", ""]).encode("latin-1")


def receive_all(connection):
    """Return what the server sends until it closes the connection, or resets it."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while data := connection.recv(65536):
            received += data
    return received


def parse(response):
    """Return the status and the body of the first response."""
    start, _, rest = response.partition(b"\r\n\r\n")
    length = int(re.search(rb"(?i)content-length: (\d+)", start)[1])
    return int(start.split()[1]), json.loads(rest[:length])


def exchange(connection, *parts):
    """Send a request whose response closes the connection, and return its status and body."""
    for part in parts:
        connection.sendall(part)
    response = receive_all(connection)
    assert response.count(b"HTTP/1.1 ") == 1
    return parse(response)


def test_valid_request_is_accepted(connect):
    status, body = exchange(connect(), head(AUTHORIZED, JSON, ASYNC, LENGTH, "Connection: close"), BODY)
    assert (status, body["status"]) == (202, "pending")


def test_request_with_expectation_is_accepted(connect):
    connection = connect()
    connection.sendall(head(AUTHORIZED, JSON, ASYNC, LENGTH, "Expect: 100-continue", "Connection: close"))
    assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert exchange(connection, BODY)[0] == 202


@pytest.mark.parametrize("second", ["k", "other"])
def test_doubled_idempotency_key_is_refused(connect, second):
    doubled = ["Idempotency-Key: k", f"idempotency-key: {second}"]
    status, body = exchange(connect(), head(AUTHORIZED, JSON, ASYNC, LENGTH, *doubled, "Connection: close"), BODY)
    assert (status, body["type"]) == (400, SLUG + "invalid-idempotency-key")


AMBIGUOUS = {
    "both": ["Transfer-Encoding: chunked", LENGTH],
    "both_reversed": [LENGTH, "transfer-encoding: identity"],
    "repeated": [LENGTH, LENGTH],
    "two_lengths": [LENGTH, "Content-Length: 0"],
    "list": [f"{LENGTH}, {len(BODY)}"],
    "plus": [f"Content-Length: +{len(BODY)}"],
    "minus": ["Content-Length: -1"],
    "hexadecimal": ["Content-Length: 0x14"],
    "two_numbers": [f"{LENGTH} {len(BODY)}"],
    "underscore": ["Content-Length: 2_0"],
    "other_digits": ["Content-Length: \xb2\xb3"],
    "empty": ["Content-Length:"],
    "folded": [LENGTH, " 0"],
    "huge": ["Content-Length: " + "9" * 5000],
    "space_before_colon": [f"Content-Length : {len(BODY)}"],
    "no_colon": ["no colon", LENGTH],
    "no_name": [": no name", LENGTH],
}


@pytest.mark.parametrize("lines", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_ambiguous_request_is_refused_and_closes_the_connection(connect, lines):
    smuggled = head(AUTHORIZED, target="/usage", method="GET")
    status, body = exchange(connect(), head(AUTHORIZED, JSON, ASYNC, *lines), BODY + smuggled)
    assert (status, body["type"]) == (400, "about:blank")


def test_declared_length_above_the_limit_is_refused_without_the_body(connect):
    status, body = exchange(connect(), head(AUTHORIZED, JSON, f"Content-Length: {MAX_BODY_BYTES + 1}"))
    assert (status, body["type"]) == (413, "about:blank")


@pytest.mark.parametrize("length", [1, MAX_BODY_BYTES, 149 * 1024**2, 10**15])
def test_body_without_a_valid_key_is_not_awaited(connect, length):
    for lines in ([], [f"X-Api-Key: {new_key()}"], [AUTHORIZED, AUTHORIZED]):
        status, body = exchange(connect(), head(*lines, JSON, f"Content-Length: {length}"))
        assert (status, body["type"]) == (401, SLUG + "unauthorized")


def peak_memory_bytes(process):
    status = Path(f"/proc/{process.popen.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024


def test_bodies_without_a_key_are_not_buffered(server, connect):
    before_bytes = peak_memory_bytes(server)
    length, chunk = 149 * 1024**2, b"x" * 1024**2
    connections = [connect() for _ in range(40)]

    def send(connection):
        connection.sendall(head(JSON, f"Content-Length: {length}"))
        with contextlib.suppress(OSError):
            for _ in range(16):
                connection.sendall(chunk)

    threads = [threading.Thread(target=send, args=(connection,)) for connection in connections]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert peak_memory_bytes(server) - before_bytes < 64 * 1024**2
    assert {parse(receive_all(connection))[0] for connection in connections} == {401}


def test_large_headers_are_refused(connect):
    lines = [f"X-{number}: {'x' * 60_000}" for number in range(MAX_HEAD_BYTES // 60_000 + 1)]
    assert exchange(connect(), head(AUTHORIZED, *lines))[0] == 431


SLOW = {
    "silent": (b"", HEAD_TIMEOUT_S),
    "slow_head": (b"GET /health HTTP/1.1\r\nX: ", HEAD_TIMEOUT_S),
    "slow_body": (head(AUTHORIZED, JSON, "Content-Length: 1000"), BODY_TIMEOUT_S),
}


@pytest.mark.timeout(120)
def test_slow_connections_are_closed_at_the_deadline(connect):
    """All at once, because each takes as long as the deadline."""
    connections = {name: connect() for name in SLOW}
    for name, (start, _) in SLOW.items():
        connections[name].sendall(start)
    started_at, closed_after_s = time.monotonic(), {}
    while len(closed_after_s) < len(SLOW) and time.monotonic() - started_at < 60:
        time.sleep(0.5)
        for name in SLOW.keys() - closed_after_s.keys():
            try:
                if name != "silent":
                    connections[name].sendall(b"x")
                connections[name].settimeout(0.01)
                is_closed = connections[name].recv(1) == b""
            except TimeoutError:
                continue
            except OSError:
                is_closed = True
            if is_closed:
                closed_after_s[name] = time.monotonic() - started_at
    assert all(closed_after_s[name] < timeout_s + 5 for name, (_, timeout_s) in SLOW.items())


def test_connections_are_limited_and_recover(connect, server, port):
    connections = [connect() for _ in range(MAX_CONNECTIONS + 20)]
    answers = [receive_all(connection) for connection in connections[-20:]]
    assert {answer[:12] for answer in answers} <= {b"HTTP/1.1 503", b""}
    threads = len(list(Path(f"/proc/{server.popen.pid}/task").iterdir()))
    assert threads <= MAX_CONNECTIONS + 20
    for connection in connections:
        connection.close()

    def is_served():
        with socket.create_connection((LOOPBACK, port), timeout=10) as connection:
            connection.sendall(head("Connection: close", target="/health", method="GET"))
            return receive_all(connection).startswith(b"HTTP/1.1 200")

    eventually(is_served, timeout_s=10, every_s=0.2)


def test_log_holds_no_secret_of_a_request(connect, server):
    for target in (f"/?key={KEY}", f"/usage?key={KEY}", f"/{KEY}", f"/jobs/{KEY}?key={KEY}"):
        for method in ("GET", "POST", "BREW"):
            receive_all(_send(connect(), head("Connection: close", target=target, method=method)))
    receive_all(_send(connect(), f"{KEY} is not HTTP\r\n\r\n".encode()))
    receive_all(_send(connect(), head(AUTHORIZED, "Connection: close", target=f"/usage?key={KEY}", method="GET")))
    log = server.log.read_text()
    assert '"GET /usage"' in log
    assert KEY.secret not in log


def _send(connection, data):
    connection.sendall(data)
    return connection


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(("accepted", "encoding"), [("br, gzip", "gzip"), ("br", None)])
def test_large_response_is_compressed_if_the_client_accepts_it(port, accepted, encoding):
    swagger_ui = static_file("swagger-ui.css")
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=10)
    connection.request("GET", f"/assets/{swagger_ui.url_name}", headers={"Accept-Encoding": accepted})
    response = connection.getresponse()
    body = response.read()
    connection.close()
    assert response.headers["Content-Encoding"] == encoding
    assert (gzip.decompress(body) if encoding else body).decode() == swagger_ui.text
