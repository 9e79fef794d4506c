"""What a request asks for, and the job and the item of the jobs table that it becomes. For submit.py."""

import hashlib
import math
import uuid
from typing import Final

from msgspec import Struct

from chalicelib.access.plans import Plan
from chalicelib.api.run_request import RunRequest
from chalicelib.contract import Job
from chalicelib.jobs.job_table import JobRecord

SYNC_LIFE_S: Final = 120  # from its submission a job may begin; beyond the wait, since a late result is kept
ASYNC_LIFE_S: Final = 3600
SENDING_S: Final = 5  # from its claim on an asynchronous job is sent; who takes longer is taken for dead
WAITING_S: Final = 4  # on top of its wait: a process that waits for a job has by then stored its reply or promised it


class Order(Struct, frozen=True, kw_only=True):
    """A request to run code, and how its sender wants to hear of it."""

    request: RunRequest
    key_id: str
    plan: Plan
    wait_s: float
    is_async: bool = False
    is_counted: bool = False  # among its key's waiting jobs; an asynchronous one always is
    idempotency_key: str | None = None
    body: bytes = b""  # as it was sent, for the fingerprint


def idempotent_id(order: Order) -> str:
    """The id of the job that is the same for the same key and Idempotency-Key."""
    return hashlib.sha256(f"{order.key_id}\n{order.idempotency_key}".encode()).hexdigest()[:32]


def record_of(
    order: Order, job_id: str, *, now: float, result_retention_s: int, before: JobRecord | None = None
) -> JobRecord:
    """The item of a job that is about to be sent at `now`; of one that is sent again, `before` is its item so far."""
    at_work_s = SENDING_S if order.is_async else order.wait_s + WAITING_S
    expires_at = int(now) + (ASYNC_LIFE_S if order.is_async else SYNC_LIFE_S)
    if before is not None:
        expires_at = max(expires_at, before.expires_at)
    return JobRecord(
        job_id=job_id,
        key_id=order.key_id,
        fingerprint=hashlib.sha256(order.body).hexdigest() if order.idempotency_key is not None else "",
        nonce=uuid.uuid4().hex,
        counted=int(order.is_async or order.is_counted),
        retry_at=math.ceil(now + at_work_s),
        expires_at=expires_at,
        kept_until=expires_at + result_retention_s,
        webhook_url=order.request.callback_url,
    )


def job_of(order: Order, record: JobRecord, *, now: float) -> Job:
    """The job, for nobody to wait for."""
    return Job(
        id=record.job_id,
        code=order.request.code,
        input=order.request.input,
        timeout_s=order.request.timeout_s,
        reply_to=None,
        submitted_at=now,
        reply_by=now if order.is_async else now + order.wait_s,
        expires_at=record.expires_at,
    )
