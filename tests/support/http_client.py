"""Call the API as a customer does, over one persistent connection."""

import http.client
import json
import time
import urllib.request
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import urlsplit

JSON = {"Content-Type": "application/json"}
TIMEOUT_S = 60.0  # longer than the API waits for a result


class Answer(NamedTuple):
    """A response with a JSON body."""

    status: int
    headers: http.client.HTTPMessage
    body: dict[str, Any]


class Client:
    """One connection with one API key."""

    def __init__(self, url: str, api_key: str) -> None:
        self._key = {"X-Api-Key": api_key}
        parts = urlsplit(url)
        connect = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = connect(parts.netloc, timeout=TIMEOUT_S)
        self._base_path = parts.path.rstrip("/")  # the stage of API Gateway

    @property
    def local_port(self) -> int:
        """Return the port of our side, which identifies the connection."""
        port: int = self._connection.sock.getsockname()[1]
        return port

    def send(
        self,
        body: str | bytes | None = None,
        *,
        method: str = "POST",
        path: str = "/",
        headers: Mapping[str, str] = JSON,
    ) -> Answer:
        """Send one request and return the answer."""
        self._connection.request(method, f"{self._base_path}{path}", body=body, headers={**self._key, **headers})
        response = self._connection.getresponse()
        return Answer(response.status, response.headers, json.loads(response.read()))

    def post(self, **fields: object) -> Answer:
        """Send a request to run a program, with these fields."""
        return self.post_to("/", **fields)

    def post_to(self, path: str, **fields: object) -> Answer:
        """Send a request with these fields to a path."""
        return self.send(json.dumps(fields), path=path)

    def run_until_done(self, **fields: object) -> Answer:
        """Run a program and return the answer with the result, even if the first answer is 202."""
        answer = self.post(**fields)
        deadline = time.monotonic() + TIMEOUT_S
        while answer.status == HTTPStatus.ACCEPTED and time.monotonic() < deadline:
            time.sleep(int(answer.headers["Retry-After"]))
            answer = self.send(method="GET", path=f"/jobs/{answer.body['id']}", headers={})
        return answer

    def run(self, code: str, text: str = "", timeout_s: float = 10) -> dict[str, Any]:
        """Run a program and return its result. Fail if it was not answered at once."""
        answer = self.post(code=code, input=text, timeout_s=timeout_s)
        assert answer.status == 200, answer
        return answer.body

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def read_metric(url: str, name: str) -> float:
    """Return a metric from the Prometheus endpoint of an agent, or the sum of its values if it has labels.

    Raise AssertionError if the agent has no such metric.
    """
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
        lines = answer.read().decode().splitlines()
    values = [float(line.split()[-1]) for line in lines if line.startswith((f"{name} ", f"{name}{{"))]
    assert values, name
    return sum(values)
