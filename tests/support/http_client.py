"""A customer: one HTTP connection, kept alive."""

import http.client
import json
import time
import urllib.request
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import urlsplit

JSON = {"Content-Type": "application/json"}
PATIENCE_S = 60.0  # above what the API takes to say that no result came


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: dict


class Client:
    def __init__(self, url, api_key):
        self._key = {"X-Api-Key": api_key}
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE_S)

    @property
    def local_port(self):
        return self._connection.sock.getsockname()[1]

    def send(self, body=None, *, method="POST", path="/", headers=JSON):
        self._connection.request(method, path, body=body, headers=self._key | headers)
        response = self._connection.getresponse()
        return Answer(response.status, response.headers, json.loads(response.read()))

    def post(self, **fields):
        return self.send(json.dumps(fields))

    def result(self, **fields):
        """The answer that has the result, however late it is."""
        answer = self.post(**fields)
        deadline = time.monotonic() + PATIENCE_S
        while answer.status == HTTPStatus.ACCEPTED and time.monotonic() < deadline:
            time.sleep(int(answer.headers["Retry-After"]))
            answer = self.send(method="GET", path=f"/jobs/{answer.body['id']}", headers={})
        return answer

    def run(self, code, text="", timeout_s=10):
        """The result of a program that must have run."""
        answer = self.post(code=code, input=text, timeout_s=timeout_s)
        assert answer.status == 200, answer
        return answer.body

    def close(self):
        self._connection.close()


def metric(url, name):
    """What an agent's metrics say now."""
    with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
        lines = answer.read().decode().splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(f"{name} "))
