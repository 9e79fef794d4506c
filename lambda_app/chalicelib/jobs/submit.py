"""From a request to its job, to the reply if it comes in time, else to the promise of one. For `POST /`.

A job that its customer may ask for later has an item in the jobs table: at once if it is asynchronous or has an
Idempotency-Key, otherwise when the wait is over. Nothing is promised that was not sent before (docs/decisions/009).
A program has no effects, so to send a job twice harms nobody.
"""

import logging
import time
import uuid
from collections.abc import Callable
from typing import Final, Protocol

from msgspec.structs import replace

from chalicelib import problems
from chalicelib.access.plans import Plan
from chalicelib.contract import Job, Reply
from chalicelib.jobs.job_results import waits_until
from chalicelib.jobs.job_table import JobRecord, JobTableError
from chalicelib.jobs.submission import Order, idempotent_id, job_of, record_of
from chalicelib.problems import ProblemError
from chalicelib.telemetry import logs

log = logging.getLogger(__name__)

NOT_SENT: Final = 0  # `retry_at` of a job that its queue did not take: the next request sends it
PATIENCE_S: Final = 2.5  # of a repeated request, on top of its wait, for whoever is about to promise the job
READ_EVERY_S: Final = 0.5  # while another process waits for the same job
MIN_WAIT_S: Final = 1.0  # less is not worth to be waited for anew


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

    def put_back(self, job_id: str) -> None:
        """Has a reply that `run` returned come once more."""

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


class Admit(Protocol):
    """Takes a request from the customer's rate, and `runs` of them from the quota. Refuses by raising ProblemError."""

    def __call__(self, *, runs: int) -> object: ...


class Jobs:
    """What becomes of jobs. Any number of threads may use it at once."""

    def __init__(
        self,
        table: Table,
        *,
        hosts: Hosts,
        waiting: Waiting,
        results: Results,
        result_retention_s: int,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._table = table
        self._hosts = hosts
        self._waiting = waiting
        self._results = results
        self._result_kept_s = result_retention_s
        self._clock = clock
        self._sleep = sleep

    def submit(self, order: Order, *, admit: Admit) -> Reply | JobRecord:
        """Has a program run: its reply, or the job if that is to come later.

        What was asked before under an Idempotency-Key costs no run. Raises ProblemError.
        """
        try:
            submit = self._submit_anew if order.idempotency_key is None else self._submit_once
            answer = submit(order, admit)
        except JobTableError as error:
            log.exception("job_table_error")
            raise ProblemError(problems.JOB_STORE_UNAVAILABLE) from error
        if isinstance(answer, JobRecord) and answer.forgotten:
            raise ProblemError(problems.JOB_EXPIRED_OR_DELETED)
        return answer

    def _submit_anew(self, order: Order, admit: Admit) -> Reply | JobRecord:
        record = self._record(order, uuid.uuid4().hex)
        self._enter(order, record, admit)
        return self._begin(order, record, is_stored=False)

    def _submit_once(self, order: Order, admit: Admit) -> Reply | JobRecord:
        mine = self._record(order, idempotent_id(order))
        logs.add(job_id=mine.job_id)
        record = self._table.claim(mine, now_s=int(self._clock()))
        if record.nonce != mine.nonce:
            if record.fingerprint != mine.fingerprint:
                raise ProblemError(problems.IDEMPOTENCY_KEY_REUSED)
            admit(runs=0)
            return self._again(order, record)
        try:
            self._enter(order, mine, admit)
        except Exception:
            self._table.unclaim(mine)
            raise
        return self._begin_stored(order, mine)

    def _again(self, order: Order, record: JobRecord) -> Reply | JobRecord:
        """The answer to a request that was made before."""
        until = self._clock() + (0.0 if order.is_async else order.wait_s)
        holder = record.nonce
        while record.reply is None and not record.forgotten:
            if record.nonce != holder:  # another repeat was faster; it is about to promise the job
                holder, until = record.nonce, max(until, self._clock())
            left_s = until - self._clock()
            if record.promised and left_s <= 0:
                return record
            if not record.promised and (self._clock() >= record.retry_at or left_s <= -PATIENCE_S):
                # Who has it seems to have died, or waits for longer than we do: then it may run twice.
                mine = self._record(replace(order, wait_s=max(left_s, 0.0)), record.job_id, before=record)
                held = self._table.replace(record, mine)
                if held.nonce == mine.nonce:
                    return self._take_over(order, record, mine, left_s=left_s)
                record = held
                continue
            self._sleep(READ_EVERY_S)
            found = self._table.read(record.job_id)
            if found is None:  # the first request was refused
                raise ProblemError(problems.JOB_STORE_UNAVAILABLE)
            record = found
        return record

    def _take_over(self, order: Order, before: JobRecord, record: JobRecord, *, left_s: float) -> Reply | JobRecord:
        self._uncount(before)
        is_async = order.is_async or left_s < MIN_WAIT_S
        return self._begin_stored(replace(order, wait_s=left_s, is_async=is_async), record, is_again=True)

    def _enter(self, order: Order, record: JobRecord, admit: Admit) -> None:
        """Counted before it is paid for, since what has no place costs nothing."""
        self._count(order, record)
        try:
            admit(runs=1)
        except Exception:
            self._uncount(record)
            raise

    def _begin_stored(self, order: Order, record: JobRecord, *, is_again: bool = False) -> Reply | JobRecord:
        try:
            if is_again:
                self._count(order, record)
            return self._begin(order, record, is_stored=True)
        except ProblemError as error:
            if error.problem.type == problems.RESULT_TIMEOUT.uri:
                raise
            # it was not sent; it is paid for, so its sender need only ask again
            self._table.replace(record, replace(record, retry_at=NOT_SENT))
            raise

    def _begin(self, order: Order, record: JobRecord, *, is_stored: bool) -> Reply | JobRecord:
        """What comes of a job: its reply, or how it is stored."""
        logs.add(job_id=record.job_id)
        if order.is_async:
            return self._send(order, record, is_stored=is_stored)
        promised: list[JobRecord] = []
        try:
            job = replace(job_of(order, record, now=self._clock()), reply_to=self._hosts.reply_to())
            reply = self._hosts.run(
                job, key_id=order.key_id, if_late=lambda: promised.append(self._promise(record, is_stored=is_stored))
            )
        except JobTableError as error:
            log.exception("job_table_error")
            raise ProblemError(problems.RESULT_TIMEOUT, job_id=record.job_id) from error
        except Exception:
            self._uncount(record)
            raise
        if reply is None:
            return promised[0]
        if not is_stored and not promised:
            self._uncount(record)
            return reply
        try:
            return self._results.settle(reply) or reply
        except Exception:
            self._hosts.put_back(record.job_id)
            raise

    def _send(self, order: Order, record: JobRecord, *, is_stored: bool) -> JobRecord:
        """For nobody to wait for."""
        try:
            if not is_stored:  # its result and its webhook need the item; its customer hears of it once it is sent
                record = self._promise(record, is_stored=False)
            self._hosts.send(job_of(order, record, now=self._clock()), key_id=order.key_id)
        except Exception:
            self._uncount(record)
            if not is_stored:
                self._table.unclaim(record)
            raise
        return self._promise(record, is_stored=True) if is_stored else record

    def _promise(self, record: JobRecord, *, is_stored: bool) -> JobRecord:
        """From now on the customer may ask for it, and it is not sent again."""
        promised = replace(record, promised=1)
        if is_stored:
            return self._table.replace(record, promised)
        held = self._table.claim(promised, now_s=int(self._clock()))
        if held.nonce != promised.nonce:  # its result came first, stored by who did not know that it counts
            self._uncount(record)
        return held

    def _record(self, order: Order, job_id: str, *, before: JobRecord | None = None) -> JobRecord:
        return record_of(order, job_id, now=self._clock(), result_retention_s=self._result_kept_s, before=before)

    def _count(self, order: Order, record: JobRecord) -> None:
        if record.counted:
            now_s, until = int(self._clock()), waits_until(record)
            self._waiting.add(record.job_id, key_id=order.key_id, plan=order.plan, until=until, now_s=now_s)

    def _uncount(self, record: JobRecord) -> None:
        if not record.counted:
            return
        try:
            self._waiting.remove(record.job_id, key_id=record.key_id, until=waits_until(record))
        except JobTableError:  # it ends by itself
            log.warning("slot_release_failed", exc_info=True)
