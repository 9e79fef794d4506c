"""From a request to its job, to the reply if it comes in time, else to the promise of one. For `POST /`.

A job that its customer may ask for later has an item in the jobs table: at once if it is asynchronous or has an
Idempotency-Key, otherwise when the wait is over. A program has no effects, so to send a job twice harms nobody.
"""

import hashlib
import logging
import math
import time
import uuid
from collections.abc import Callable
from typing import Final, Protocol

from msgspec import Struct
from msgspec.structs import replace

from chalicelib import logs
from chalicelib.contract import Job, Reply
from chalicelib.job_problems import (
    IdempotencyKeyReusedError,
    JobGoneError,
    JobsUnavailableError,
    NoReplyError,
)
from chalicelib.job_table import JobRecord, JobTableError
from chalicelib.plans import Plan
from chalicelib.problems import ProblemError
from chalicelib.results import waits_until
from chalicelib.validation import RunRequest

log = logging.getLogger(__name__)

SYNC_LIFE_S: Final = 120  # from its submission a job may begin; beyond the wait, since a late result is kept
ASYNC_LIFE_S: Final = 3600
RESEND_AFTER_S: Final = 60  # an asynchronous job that was claimed, but perhaps never sent
NOT_SENT: Final = 0  # `retry_at` of a job that its queue did not take: the next request sends it
TURN_S: Final = 1.0  # on top of its wait, a repeated request sees the turn of `retry_at`, which is in whole seconds
READ_EVERY_S: Final = 0.5  # while another process waits for the same job


class Table(Protocol):
    """What is used of a JobTable. Raises JobTableError."""

    def read(self, job_id: str) -> JobRecord | None:
        """The job as it is now."""

    def claim(self, record: JobRecord, *, now_s: int) -> JobRecord:
        """Stores a job that is not there; the one that is."""

    def replace(self, seen: JobRecord, record: JobRecord) -> JobRecord:
        """Stores a job in the place of one without a reply; the one that is there."""

    def unclaim(self, record: JobRecord) -> None:
        """Takes a claim back."""


class Hosts(Protocol):
    """What is used of a Dispatcher. Raises QueueUnavailableError."""

    def reply_to(self) -> str:
        """Where this process takes replies."""

    def run(self, job: Job, *, key_id: str, if_late: Callable[[], object]) -> Reply | None:
        """Sends a job and waits for its reply."""

    def send(self, job: Job, *, key_id: str) -> None:
        """Sends a job."""


class Waiting(Protocol):
    """What is used of WaitingJobs. Raises JobTableError."""

    def add(self, job_id: str, *, key_id: str, plan: Plan, until: int, now_s: int) -> None:
        """Counts a job. Raises TooManyWaitingError."""

    def remove(self, job_id: str, *, key_id: str, until: int) -> None:
        """Counts it no more."""


class Results(Protocol):
    """What is used of results.Results. Raises JobTableError."""

    def settle(self, reply: Reply) -> JobRecord | None:
        """Stores the reply to a job that is in the table."""


class Order(Struct, frozen=True, kw_only=True):
    """A request to run code, and how its sender wants to hear of it."""

    request: RunRequest
    key_id: str
    plan: Plan
    wait_s: float
    is_async: bool = False
    idempotency_key: str | None = None
    body: bytes = b""  # as it was sent, for the fingerprint


class Jobs:
    """What becomes of jobs. Any number of threads may use it at once."""

    def __init__(
        self,
        table: Table,
        *,
        hosts: Hosts,
        waiting: Waiting,
        results: Results,
        result_kept_s: int,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._table = table
        self._hosts = hosts
        self._waiting = waiting
        self._results = results
        self._result_kept_s = result_kept_s
        self._clock = clock
        self._sleep = sleep

    def submit(self, order: Order, *, admit: Callable[[], object]) -> Reply | JobRecord:
        """Has a program run: its reply, or the job if that is to come later.

        `admit` is called, and may refuse by raising, unless the same was asked before under an Idempotency-Key.
        Raises ProblemError.
        """
        try:
            if order.idempotency_key is None:
                admit()
                return self._begin(order, self._record(order, uuid.uuid4().hex), is_stored=False)
            return self._submit_once(order, admit)
        except JobTableError as error:
            log.exception("jobs_table_failed")
            raise JobsUnavailableError from error

    def _submit_once(self, order: Order, admit: Callable[[], object]) -> Reply | JobRecord:
        job_id, until = _idempotent_id(order), self._clock() + order.wait_s + TURN_S
        logs.add(job_id=job_id)
        while True:
            mine = self._record(order, job_id)
            record = self._table.claim(mine, now_s=int(self._clock()))
            if record is mine:
                break
            _require_same(record, mine)
            left_s = until - self._clock()
            if record.reply is None and (again := self._again(order, record)):
                return self._begin_stored(replace(order, wait_s=max(left_s - TURN_S, 0.0)), again)
            if record.reply is not None or order.is_async or left_s <= 0:
                return record
            self._sleep(min(READ_EVERY_S, left_s))
        try:
            admit()
        except Exception:
            self._table.unclaim(mine)
            raise
        return self._begin_stored(order, mine)

    def _begin_stored(self, order: Order, record: JobRecord) -> Reply | JobRecord:
        try:
            return self._begin(order, record, is_stored=True)
        except NoReplyError:
            raise
        except ProblemError:  # it was not sent; it is paid for, so its sender need only ask again
            self._table.replace(record, replace(record, retry_at=NOT_SENT))
            raise

    def _again(self, order: Order, seen: JobRecord) -> JobRecord | None:
        """The job to be sent once more, because who sent it before seems to have died; None if that is not so."""
        if self._clock() < seen.retry_at or order.is_async != bool(seen.is_async):
            return None
        record = self._record(order, seen.job_id)
        if order.is_async and seen.retry_at != NOT_SENT:  # until then it counts as waiting
            record = replace(record, expires_at=seen.expires_at, kept_until=seen.kept_until)
        return record if self._table.replace(seen, record) is record else None

    def _begin(self, order: Order, record: JobRecord, *, is_stored: bool) -> Reply | JobRecord:
        """What comes of a job: its reply, or how it is stored."""
        logs.add(job_id=record.job_id)
        if order.is_async:
            return self._send(order, record, is_stored=is_stored)
        job = replace(self._job(order, record), reply_to=self._hosts.reply_to())
        promised: list[JobRecord] = []
        try:
            reply = self._hosts.run(
                job, key_id=order.key_id, if_late=lambda: promised.append(self._promise(record, is_stored=is_stored))
            )
        except JobTableError as error:
            log.exception("jobs_table_failed")
            raise NoReplyError(job.id) from error
        if reply is None:
            return promised[0]
        if is_stored or promised:
            return self._results.settle(reply) or reply
        return reply

    def _send(self, order: Order, record: JobRecord, *, is_stored: bool) -> JobRecord:
        job, until, now_s = self._job(order, record), waits_until(record), int(self._clock())
        self._waiting.add(job.id, key_id=order.key_id, plan=order.plan, until=until, now_s=now_s)
        try:
            if not is_stored:
                self._table.claim(record, now_s=now_s)
            self._hosts.send(job, key_id=order.key_id)
        except Exception:
            self._waiting.remove(job.id, key_id=order.key_id, until=until)
            if not is_stored:
                self._table.unclaim(record)
            raise
        return self._promise(record, is_stored=True) if is_stored else record

    def _promise(self, record: JobRecord, *, is_stored: bool) -> JobRecord:
        """From now on the customer may ask for a job that was sent, and it is not sent again."""
        later = replace(record, retry_at=record.expires_at)
        return self._table.replace(record, later) if is_stored else self._table.claim(later, now_s=int(self._clock()))

    def _record(self, order: Order, job_id: str) -> JobRecord:
        now_s = int(self._clock())
        expires_at = now_s + (ASYNC_LIFE_S if order.is_async else SYNC_LIFE_S)
        return JobRecord(
            job_id=job_id,
            key_id=order.key_id,
            fingerprint=hashlib.sha256(order.body).hexdigest() if order.idempotency_key is not None else "",
            is_async=int(order.is_async),
            retry_at=math.ceil(self._clock() + (RESEND_AFTER_S if order.is_async else order.wait_s)),
            expires_at=expires_at,
            kept_until=expires_at + self._result_kept_s,
            webhook_url=order.request.callback_url,
        )

    def _job(self, order: Order, record: JobRecord) -> Job:
        now = self._clock()
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


def _idempotent_id(order: Order) -> str:
    return hashlib.sha256(f"{order.key_id}\n{order.idempotency_key}".encode()).hexdigest()[:32]


def _require_same(record: JobRecord, mine: JobRecord) -> None:
    if record.fingerprint not in {"", mine.fingerprint}:  # none: all that is left of it is its result
        raise IdempotencyKeyReusedError
    if record.forgotten:
        raise JobGoneError
