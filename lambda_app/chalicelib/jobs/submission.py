"""A submission: what an authorized request asks for, and the job and the record that it becomes."""

import hashlib
import math
import uuid
from typing import Final

from msgspec import Struct

from chalicelib.access.admission import Caller
from chalicelib.access.load_shedding import QueueLoad
from chalicelib.contract import DEFAULT_TIMEOUT_S, InputFile, Job, Run
from chalicelib.jobs import expectations
from chalicelib.jobs.expectations import Expectations
from chalicelib.jobs.job_table import JobRecord, JobState
from chalicelib.runtimes import DEFAULT_RUNTIME

SYNC_JOB_TTL_S: Final = 120  # in which a host may start the job; longer than any wait, since a late result is kept
ASYNC_JOB_TTL_S: Final = 3600
SEND_CLAIM_TTL_S: Final = 5  # after which the sender of an asynchronous job is taken for dead
WAIT_CLAIM_MARGIN_S: Final = 4  # after its wait, in which a process accepts its job or stores the reply


class RunRequest(Struct, frozen=True, kw_only=True):
    """The validated body of a request."""

    code: str
    input: str = ""
    args: tuple[str, ...] = ()
    files: tuple[InputFile, ...] = ()
    artifacts: tuple[str, ...] = ()  # patterns of the files to return
    runtime: str = DEFAULT_RUNTIME
    timeout_s: float = DEFAULT_TIMEOUT_S
    callback_url: str | None = None
    runs: tuple[Run, ...] = ()  # of a batch, which has neither input nor args
    expectations: Expectations | None = None  # of a batch

    @property
    def run_count(self) -> int:
        """Return how many runs the request costs."""
        return len(self.runs) or 1


class Submission(Struct, frozen=True, kw_only=True):
    """A parsed, authorized request to run code, and how its sender receives the result."""

    request: RunRequest
    caller: Caller
    wait_s: float
    is_async: bool = False
    queue_load: QueueLoad = QueueLoad.NORMAL
    idempotency_key: str | None = None
    body: bytes = b""  # as received

    @property
    def key_id(self) -> str:
        """Return the id of the API key that the job belongs to."""
        return self.caller.record.key_id


def idempotent_job_id(submission: Submission) -> str:
    """Return the job id that all requests with the same API key and Idempotency-Key share."""
    return hashlib.sha256(f"{submission.key_id}\n{submission.idempotency_key}".encode()).hexdigest()[:32]


def build_record(
    submission: Submission, job_id: str, *, now: float, result_retention_s: int, previous: JobRecord | None = None
) -> JobRecord:
    """Return the record of a job that is about to be sent; `previous` is the one of a job that is sent again."""
    claim_ttl_s = SEND_CLAIM_TTL_S if submission.is_async else submission.wait_s + WAIT_CLAIM_MARGIN_S
    start_deadline = int(now) + (ASYNC_JOB_TTL_S if submission.is_async else SYNC_JOB_TTL_S)
    if previous is not None:
        start_deadline = max(start_deadline, previous.start_deadline)
    is_idempotent = submission.idempotency_key is not None
    return JobRecord(
        job_id=job_id,
        key_id=submission.key_id,
        state=JobState.CLAIMED,
        body_sha256=hashlib.sha256(submission.body).hexdigest() if is_idempotent else "",
        claim_token=uuid.uuid4().hex,
        claim_expires_at=math.ceil(now + claim_ttl_s),
        holds_slot=submission.is_async or submission.queue_load is not QueueLoad.NORMAL,
        start_deadline=start_deadline,
        retained_until=start_deadline + result_retention_s,
        webhook_url=submission.request.callback_url,
        expectations=expectations.dump(submission.request.expectations),
    )


def build_job(
    submission: Submission, record: JobRecord, *, now: float, reply_to: str | None, reply_upload_url: str
) -> Job:
    """Return the message for the hosts; `reply_to` is the reply queue of a caller that waits."""
    request_expectations = submission.request.expectations
    return Job(
        id=record.job_id,
        code=submission.request.code,
        input=submission.request.input,
        args=submission.request.args,
        files=submission.request.files,
        artifacts=submission.request.artifacts,
        runs=submission.request.runs,
        stop_on_failure=request_expectations is not None and request_expectations.stop_on_failure,
        runtime=submission.request.runtime,
        timeout_s=submission.request.timeout_s,
        reply_to=reply_to,
        reply_upload_url=reply_upload_url,
        submitted_at=now,
        reply_by=now + submission.wait_s if reply_to else now,
        start_deadline=record.start_deadline,
    )
