"""Build valid results, key records and submissions for tests."""

from collections.abc import Sequence
from typing import Any

from chalicelib.access import rate_limits
from chalicelib.access.admission import Caller
from chalicelib.access.api_keys import ApiKey, KeyRecord, KeyStatus, new_key
from chalicelib.access.plans import PLANS, Plan
from chalicelib.contract import (
    Artifact,
    BatchResult,
    HostReport,
    IsolationState,
    OmissionReason,
    OmittedArtifact,
    OutputBytes,
    ResourceUsage,
    Result,
    RunResult,
    RuntimeReport,
    RunUsage,
    Status,
    Truncated,
    UncaughtException,
)
from chalicelib.jobs.submission import RunRequest, Submission

UPLOAD_URL = "https://payloads.test/replies/1?X-Amz-Signature=secret"  # of jobs whose replies are small
KEY = new_key()  # its record is in the keys table of most tests


def make_key_record(key: ApiKey, **changes: Any) -> KeyRecord:
    """Return the record of a key that was just created."""
    members: dict[str, Any] = {
        "key_id": key.key_id,
        "secret_sha256": key.secret_sha256,
        "status": KeyStatus.ACTIVE,
        "plan": "pro",
        "owner": "customer",
        "created_at": 1_700_000_000,
    }
    return KeyRecord(**members | changes)


def make_result(job_id: str, **changes: Any) -> Result:
    """Return a result with a value in each member."""
    members: dict[str, Any] = {
        "id": job_id,
        "status": Status.ERROR,
        "exit_code": 1,
        "signal": None,
        "stdout": "out",
        "stderr": "err",
        "truncated": Truncated(stdout=True),
        "output_bytes": OutputBytes(stdout=9, stderr=3),
        "error": UncaughtException(type="ValueError", message="no", line=3),
        "artifacts": (Artifact(path="a", content=b"\xff\0"),),
        "artifacts_omitted": (OmittedArtifact(path="b", reason=OmissionReason.TOO_LARGE),),
        "usage": ResourceUsage(duration_ms=1, cpu_ms=2, memory_bytes=3, queued_ms=4),
        "runtime": "python",
        "python_version": "3.13",
    }
    return Result(**members | changes)


def make_run_result(**changes: Any) -> RunResult:
    """Return the result of a run that ended with exit code 0."""
    members: dict[str, Any] = {
        "status": Status.OK,
        "exit_code": 0,
        "signal": None,
        "stdout": "out",
        "stderr": "",
        "truncated": Truncated(),
        "output_bytes": OutputBytes(stdout=3, stderr=0),
        "error": None,
        "usage": RunUsage(duration_ms=1, cpu_ms=2, memory_bytes=3),
    }
    return RunResult(**members | changes)


def make_batch_result(job_id: str, *, runs: Sequence[RunResult | None]) -> BatchResult:
    """Return the result of a batch."""
    return BatchResult(id=job_id, runs=tuple(runs), queued_ms=4, runtime="python", python_version="3.13")


def make_host_report(*, host: str = "h1", sent_at: float = 1.0) -> HostReport:
    """Return the report of a host whose sandboxes are isolated."""
    return HostReport(
        host=host,
        agent_version="0.1.0",
        runtimes=(RuntimeReport(name="python", ready=4, running=2),),
        isolation=IsolationState.PASSED,
        sent_at=sent_at,
    )


def make_caller(*, key_id: str = "key", plan: Plan = PLANS["pro"]) -> Caller:
    """Return the caller of an authenticated request."""
    record = make_key_record(ApiKey(key_id, "secret"), plan=plan.name)
    status = rate_limits.quota_status(record, plan, now_us=1_700_000_000 * rate_limits.SECOND_US)
    return Caller(record=record, secret_sha256=record.secret_sha256, quota_status=status)


def make_submission(*, key_id: str = "key", plan: Plan = PLANS["pro"], **changes: Any) -> Submission:
    """Return a submission that waits up to 20 seconds for its result."""
    members: dict[str, Any] = {
        "request": RunRequest(code="c"),
        "caller": make_caller(key_id=key_id, plan=plan),
        "wait_s": 20.0,
    }
    return Submission(**members | changes)
