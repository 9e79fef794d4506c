"""Build valid results and key records for tests."""

from chalicelib.access.api_keys import KeyRecord, KeyStatus, new_key
from chalicelib.contract import ResourceUsage, Result, Status, Truncated, UncaughtException

KEY = new_key()  # of the customer whom the API knows in tests


def make_key_record(key, **changes):
    """What the table holds of a key that was just created."""
    members = {
        "key_id": key.key_id,
        "secret_sha256": key.secret_sha256,
        "status": KeyStatus.ACTIVE,
        "plan": "pro",
        "owner": "somebody",
        "created_at": 1_700_000_000,
    }
    return KeyRecord(**members | changes)


def make_result(job_id, **changes):
    """A result with something in each member."""
    members = {
        "id": job_id,
        "status": Status.ERROR,
        "exit_code": 1,
        "signal": None,
        "stdout": "out",
        "stderr": "err",
        "truncated": Truncated(stdout=True),
        "error": UncaughtException(type="ValueError", message="no", line=3),
        "usage": ResourceUsage(duration_ms=1, cpu_ms=2, memory_bytes=3, queued_ms=4),
        "runtime": "python 3.13",
    }
    return Result(**members | changes)
