"""Run programs in the sandboxes behind a running API, as Sandbox.run does in one of this machine."""

import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

import msgspec

from chalicelib.contract import MAX_TIMEOUT_S, InputFile
from executor_host.outcome import Outcome
from tests.support.http_client import Client

MAX_ATTEMPTS: Final = 20  # of a request that is rate-limited


class RemoteSandboxes:
    """An API, one request at a time."""

    def __init__(self, url: str, api_key: str, *, runtime: str) -> None:
        self._runtime = runtime
        self._client = Client(url, api_key)

    def run(
        self,
        code: str,
        stdin: str = "",
        timeout_s: float = MAX_TIMEOUT_S,
        *,
        args: Sequence[str] = (),
        files: Sequence[InputFile] = (),
        artifacts: Sequence[str] = (),
    ) -> Outcome:
        """Run a program and return its outcome. Raise AssertionError if the API refuses it or the job fails.

        `timeout_s` may be more than the API allows.
        """
        members = {"runtime": self._runtime, "args": args, "files": files, "artifacts": artifacts}
        optional = {name: msgspec.to_builtins(value) for name, value in members.items() if value}
        for _ in range(MAX_ATTEMPTS):
            answer = self._client.run_until_done(
                code=code, input=stdin, timeout_s=min(timeout_s, MAX_TIMEOUT_S), **optional
            )
            if answer.status != HTTPStatus.TOO_MANY_REQUESTS:
                break
            time.sleep(int(answer.headers["Retry-After"]))
        assert answer.status == HTTPStatus.OK, answer.body
        assert answer.body["status"] != "failed", answer.body
        return msgspec.convert(answer.body, Outcome)
