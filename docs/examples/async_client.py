"""Run many Python programs at the same time. Needs the package httpx.

Usage: python3 async_client.py FILE..., with URL and API_KEY in the environment. Prints a line for each program.
"""

import asyncio
import os
import pathlib
import sys
import uuid

import httpx
from client import ATTEMPTS, MAX_PAUSE_S, TIMEOUT_S, ApiError, is_retryable

CONCURRENCY = 8  # the rate limit of the key decides how many are useful


class AsyncClient:
    """A client for one API key. Use it as an async context manager."""

    def __init__(self, url, api_key, *, transport=None, sleep=asyncio.sleep):
        """Take the base URL and the key. Tests replace `transport` and `sleep`."""
        headers = {"X-Api-Key": api_key}
        self._http = httpx.AsyncClient(base_url=url, headers=headers, timeout=TIMEOUT_S, transport=transport)
        self._slots = asyncio.Semaphore(CONCURRENCY)
        self._sleep = sleep

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self._http.aclose()

    async def run(self, code, **fields):
        """Run a program and return its result. Raises ApiError, or httpx.TransportError without a response."""
        async with self._slots:
            key = {"Idempotency-Key": str(uuid.uuid4())}
            response = await self._send("POST", "/", json={"code": code, **fields}, headers=key)
            path = f"/jobs/{response.json()['id']}"
            while response.status_code == 202:
                await self._sleep(float(response.headers["Retry-After"]))
                response = await self._send("GET", path)
            return response.json()

    async def _send(self, method, path, **options):
        """Send a request until it succeeds. Retries are safe: the Idempotency-Key stays the same."""
        for attempt in range(1, ATTEMPTS + 1):
            pause_s = 0.5 * 2**attempt
            try:
                response = await self._http.request(method, path, **options)
            except httpx.TransportError:
                if attempt == ATTEMPTS:
                    raise
            else:
                if response.is_success:
                    return response
                problem = read_problem(response)
                pause_s = float(response.headers.get("Retry-After", pause_s))
                if not is_retryable(problem) or pause_s > MAX_PAUSE_S or attempt == ATTEMPTS:
                    raise ApiError(problem)
            await self._sleep(pause_s)
        raise AssertionError("unreachable")


def read_problem(response):
    """Return the problem in an error response. Gateways in between may return something else than JSON."""
    try:
        return response.json()
    except ValueError:
        return {"title": response.reason_phrase, "status": response.status_code}


async def main(programs):
    """Run the programs, by name, and print how each ended as soon as it has."""

    async def report(name, code):
        result = await client.run(code)
        print(name, result["status"], result.get("stdout", "").strip(), flush=True)

    async with AsyncClient(os.environ["URL"], os.environ["API_KEY"]) as client:
        await asyncio.gather(*(report(name, code) for name, code in programs.items()))


if __name__ == "__main__":
    asyncio.run(main({path: pathlib.Path(path).read_text() for path in sys.argv[1:]}))
