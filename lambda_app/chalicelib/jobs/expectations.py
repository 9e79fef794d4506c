"""Compares what the runs of a batch wrote with what their submission expects.

Only digests of expected outputs are kept, and only in the API: neither a host nor a program ever has them.
"""

import hashlib

import msgspec
from msgspec import Struct

from chalicelib.contract import RunResult, Status


class Expectations(Struct, frozen=True, kw_only=True):
    """What a submission expects of the runs of a batch: for each a digest, or None."""

    digests: tuple[bytes | None, ...]
    stop_on_failure: bool = False

    def passed(self, number: int, run: RunResult) -> bool | None:
        """Return whether a run wrote what is expected and ended with exit code 0, or None if nothing is expected."""
        expected = self.digests[number]
        if expected is None:
            return None
        return run.status is Status.OK and not run.truncated.stdout and output_digest(run.stdout) == expected

    def has_failed(self, number: int, run: RunResult) -> bool:
        """Return whether a run ended in any other way, or wrote something else."""
        return run.status is not Status.OK or self.passed(number, run) is False


def output_digest(output: str) -> bytes:
    """Return the digest of an output, in which white space at the end of lines and empty last lines do not count."""
    text = "\n".join(line.rstrip() for line in output.split("\n")).rstrip("\n")
    return hashlib.sha256(text.encode()).digest()


def dump(expectations: Expectations | None) -> bytes:
    """Return the bytes for a job record: none for a job that is not a batch."""
    return b"" if expectations is None else msgspec.msgpack.encode(expectations)


def load(data: bytes) -> Expectations | None:
    """Return what `dump` was called with."""
    return msgspec.msgpack.decode(data, type=Expectations) if data else None
