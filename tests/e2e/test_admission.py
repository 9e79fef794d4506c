"""Keys and limits over HTTP, in a complete stack."""

import json
import random
import re
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest

from tests.support.http_client import Client

BODY = json.dumps({"code": "print(1)"}).encode()
SLUG = "urn:python-exec:problem:"


@pytest.fixture
def connect(stack):
    """Return a function that creates a client with a key."""
    clients = []

    def create_client(api_key):
        clients.append(Client(stack.url, api_key))
        return clients[-1]

    yield create_client
    for client in clients:
        client.close()


def exchange(stack, headers):
    """Send a valid request with these header lines on a new connection, and return the status."""
    address = urlsplit(stack.url)
    head = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
    with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
        connection.sendall(head + headers + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
        return int(re.match(rb"HTTP/1.1 (\d+) ", connection.makefile("rb").read())[1])


def test_fuzzed_headers_never_admit_and_never_fail(stack):
    key = stack.api_key.encode()
    assert exchange(stack, b"X-Api-Key: %b\r\n" % key) == 200
    values = [b"", b" ", key[:-1], key + b"x", key + b"," + key, b"x" * 10_240, bytes(range(1, 10)), b"\x7f\x80\xff"]
    values += [
        "ключ".encode(),
        "\U0001f511".encode(),
        b"\0",
        key + b"\0",
        key[:20] + b"\x0b" + key[20:],
        b"Bearer " + key,
    ]
    schemes = [b"Bearer", b"Basic " + key, b"Bearer" + key, b"Bearer " + key[:-1], b"Negotiate", b"Bearer  x " + key]
    lines = [b"", *(b"X-Api-Key: %b\r\n" % value for value in values)]
    lines += [b"Authorization: %b\r\n" % value for value in [*values[:-1], *schemes]]
    twice = [b"X-Api-Key: %b\r\nX-Api-Key: %b\r\n", b"X-Api-Key: %b\r\nx-api-key: %b\r\n"]
    twice += [
        b"Authorization: Bearer %b\r\nAuthorization: Bearer %b\r\n",
        b"X-Api-Key: %b\r\nAuthorization: Bearer %b\r\n",
    ]
    lines += [line % keys for line in twice for keys in ((key, key), (key, b"x"), (b"x", key), (key, b""), (b"", key))]
    random.Random(1).shuffle(lines)  # noqa: S311
    assert {line: status for line in lines if (status := exchange(stack, line)) != 401} == {}


def test_bearer_token_is_accepted(stack):
    assert exchange(stack, b"Authorization: bearer %b\r\n" % stack.api_key.encode()) == 200


def test_revoked_key_is_refused_at_the_next_request(stack, create_key, connect):
    api_key = create_key("free")
    client = connect(api_key)
    assert client.post(code="print(1)").status == 200
    command = [sys.executable, "-m", "infra.operator", "keys", "revoke", api_key.split("_")[1]]
    subprocess.run(
        command, env={**stack.environment, "PYTHONPATH": ":".join(sys.path)}, check=True, capture_output=True
    )
    answer = client.post(code="print(1)")
    assert (answer.status, answer.body["type"]) == (403, SLUG + "key-revoked")


def test_burst_limit_is_exact_and_retry_after_is_accurate(create_key, connect):
    api_key = create_key("free")
    clients = [connect(api_key) for _ in range(16)]
    with ThreadPoolExecutor(16) as threads:
        started_at = time.time()
        answers = list(threads.map(lambda client: client.post(code="print(1)"), clients))
        took_s = time.time() - started_at
    admitted = sum(answer.status == 200 for answer in answers)
    assert 5 <= admitted <= 5 + took_s  # one more per second
    rejected = [answer for answer in answers if answer.status != 200]
    assert {(answer.status, answer.body["type"]) for answer in rejected} == {(429, SLUG + "rate-limited")}
    time.sleep(max(int(answer.headers["Retry-After"]) for answer in rejected))
    assert clients[0].post(code="print(1)").status == 200


def test_rate_limit_headers_match_usage(create_key, connect):
    client = connect(create_key("free"))
    for body, status in ((BODY, 200), (b"{", 400), (json.dumps({"code": "1", "timeout_s": 5}).encode(), 403)):
        answer = client.send(body)
        assert (answer.status, '"month";r=' in answer.headers["RateLimit"]) == (status, True)
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
    usage = client.send(method="GET", path="/usage", headers={})
    assert (usage.status, usage.body["used"], usage.body["left"]) == (200, 3, 997)
    assert '"month";r=997;' in usage.headers["RateLimit"]
