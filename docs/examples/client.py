"""Run Python code on python-exec and print the result. Needs only the standard library.

Usage: python3 client.py [ARGUMENT]... < program.py, with URL and API_KEY in the environment.
"""

import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid

TIMEOUT_S = 40.0  # longer than the API waits for a result
MAX_PAUSE_S = 60.0  # a longer Retry-After, such as that of an exhausted quota, is an error
ATTEMPTS = 6
RETRYABLE = ("rate-limited", "too-many-pending-jobs", "overloaded", "result-timeout")


class ApiError(Exception):
    """The API returned an error. `problem` has its members, see docs/api.md."""

    def __init__(self, problem):
        super().__init__(f"{problem.get('title')}: {problem.get('detail')}")
        self.problem = problem


class Client:
    """A client for one API key."""

    def __init__(self, url, api_key, *, urlopen=urllib.request.urlopen, sleep=time.sleep):
        """Take the base URL and the key. Tests replace `urlopen` and `sleep`."""
        self._url = url.rstrip("/") + "/"
        self._api_key = api_key
        self._urlopen = urlopen
        self._sleep = sleep

    def run(self, code, *, text="", args=(), timeout_s=3.0, **fields):
        """Run a program and return its result. Other `fields` of the request are, for example, files and artifacts.

        Raises ApiError, or OSError if the API cannot be reached.
        """
        return self._submit("", {**fields, "code": code, "input": text, "args": list(args), "timeout_s": timeout_s})

    def run_batch(self, code, runs, **fields):
        """Run a program on many inputs and return the result of the batch. Raises what `run` raises."""
        return self._submit("batch", {"code": code, "runs": runs, **fields})

    def _submit(self, path, fields):
        headers = {"Content-Type": "application/json", "Idempotency-Key": str(uuid.uuid4())}
        status, response_headers, result = self._send("POST", self._url + path, json.dumps(fields).encode(), headers)
        location = urllib.parse.urljoin(self._url, response_headers.get("Location", ""))
        while status == 202:
            self._sleep(float(response_headers["Retry-After"]))
            status, response_headers, result = self._send("GET", location)
        return result

    def _send(self, method, url, body=None, headers=None):
        """Send a request until it succeeds. Retries are safe: the Idempotency-Key stays the same."""
        for attempt in range(1, ATTEMPTS + 1):
            pause_s = 0.5 * 2**attempt
            request = urllib.request.Request(
                url, data=body, method=method, headers={**(headers or {}), "X-Api-Key": self._api_key}
            )
            try:
                with self._urlopen(request, timeout=TIMEOUT_S) as response:
                    return response.status, response.headers, json.load(response)
            except urllib.error.HTTPError as error:
                problem = read_problem(error)
                pause_s = float(error.headers.get("Retry-After") or pause_s)
                if not is_retryable(problem) or pause_s > MAX_PAUSE_S or attempt == ATTEMPTS:
                    raise ApiError(problem) from error
            except OSError:
                if attempt == ATTEMPTS:
                    raise
            self._sleep(pause_s)
        raise AssertionError("unreachable")


def read_problem(error):
    """Return the problem in an error response. Gateways in between may return something else than JSON."""
    try:
        return json.load(error)
    except ValueError:
        return {"title": error.reason, "status": error.code}


def is_retryable(problem):
    """Return whether the same request may succeed later. A failed job stays failed."""
    slug = str(problem.get("type", "")).rpartition(":")[2]
    return slug in RETRYABLE or slug.endswith("-unavailable")


if __name__ == "__main__":
    outcome = Client(os.environ["URL"], os.environ["API_KEY"]).run(sys.stdin.read(), args=sys.argv[1:])
    sys.stdout.write(outcome.get("stdout", ""))
    sys.stderr.write(outcome.get("stderr", ""))
    if outcome["status"] != "ok":
        sys.exit(f"status: {outcome['status']}")
