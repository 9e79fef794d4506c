"""Submits a job and waits for its reply. If that takes too long, accepts the job, whose result is then fetched later.

A job has a record as soon as its customer may ask for it later: at once if it is asynchronous or has an
Idempotency-Key, otherwise when the wait ends. No job is accepted before it is sent (docs/decisions/009), and since a
program has no effects outside its sandbox, sending a job twice is harmless.
"""

import logging
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from chalicelib import problems
from chalicelib.access.admission import Admission, Caller
from chalicelib.access.load_shedding import QueueLoad
from chalicelib.contract import Reply, ReplyReference
from chalicelib.dynamodb import TableError
from chalicelib.jobs.dispatcher import JobDispatcher
from chalicelib.jobs.job_results import JobResults, outages_as_problems
from chalicelib.jobs.job_table import JobRecord, JobState, JobTable
from chalicelib.jobs.job_view import decode_stored_reply
from chalicelib.jobs.payload_store import PayloadStore, PayloadStoreError
from chalicelib.jobs.pending_jobs import NoSlotError, PendingJobs
from chalicelib.jobs.reply_queue import ReplyQueue, ReplyQueues
from chalicelib.jobs.submission import Submission, build_job, build_record, idempotent_job_id
from chalicelib.problems import ProblemError
from chalicelib.telemetry import request_context

logger = logging.getLogger(__name__)

REPLY_GRACE_S: Final = 2.0  # a reply that was sent in time may still be on its way at reply_by
RETRY_IMMEDIATELY: Final = 0  # claim_expires_at of a job that SQS did not take: the next request sends it
TAKEOVER_GRACE_S: Final = 2.5  # that a repeated request adds to its wait, for a process about to accept the job
POLL_INTERVAL_S: Final = 0.5  # while another process waits for the same job
MIN_RESUMED_WAIT_S: Final = 1.0  # a shorter remaining wait is not worth a reply queue


class PendingJob(Struct, frozen=True):
    """A job that was accepted: its customer asks for the result later."""

    job_id: str


class JobService(Struct, frozen=True):
    """Submits jobs. Thread-safe."""

    table: JobTable
    admission: Admission
    pending_jobs: PendingJobs
    dispatcher: JobDispatcher
    reply_queues: ReplyQueues
    results: JobResults
    payloads: PayloadStore
    result_retention_s: int
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], object] = time.sleep

    def submit(self, submission: Submission) -> Reply | PendingJob:
        """Run a program. Return its reply, or the pending job if the reply is not ready. Raise ProblemError."""
        with self._charging(submission) as charge, outages_as_problems(logger):
            if submission.idempotency_key is None:
                outcome = self._submit_new(submission, charge)
            else:
                outcome = self._submit_idempotent(submission, charge)
        if not isinstance(outcome, JobRecord):
            return outcome
        if outcome.state is JobState.DELETED:
            raise ProblemError(problems.JOB_EXPIRED_OR_DELETED)
        if outcome.reply is None or submission.is_async:
            return PendingJob(outcome.job_id)
        try:
            return self.payloads.read_reply(decode_stored_reply(outcome))
        except PayloadStoreError:  # the reply is kept; its caller asks for it later
            logger.exception("payload_store_error")
            return PendingJob(outcome.job_id)

    def _submit_new(self, submission: Submission, charge: "_Charge") -> Reply | JobRecord:
        record = self._build_record(submission, uuid.uuid4().hex)
        request_context.bind(job_id=record.job_id)
        if submission.is_async:
            with self._slot(record, submission):
                charge.pay(runs=submission.request.run_count)
                accepted = self._accept(record, is_stored=False)  # the result and the webhook need the record
                with self._claim(accepted):
                    self._send(submission, accepted)
            return accepted
        with self.reply_queues.lease(record.job_id) as queue:
            with self._slot(record, submission):
                charge.pay(runs=submission.request.run_count)
                has_payload = self._send(submission, record, reply_to=queue.url)
            return self._await_reply(submission, record, queue, is_stored=False, has_payload=has_payload)

    def _submit_idempotent(self, submission: Submission, charge: "_Charge") -> Reply | JobRecord:
        new_record = self._build_record(submission, idempotent_job_id(submission))
        request_context.bind(job_id=new_record.job_id)
        record = self.table.claim(new_record, now_s=int(self.clock()))
        if record.claim_token == new_record.claim_token:
            return self._start_claimed(submission, record, charge)
        if record.body_sha256 != new_record.body_sha256:
            raise ProblemError(problems.IDEMPOTENCY_KEY_REUSED)
        charge.pay(runs=0)
        return self._await_existing_job(submission, record)

    def _start_claimed(
        self, submission: Submission, record: JobRecord, charge: "_Charge | None" = None
    ) -> Reply | JobRecord:
        """Send the job of a claim. Without `charge`, an earlier request paid for the run."""
        with ExitStack() as leases:
            with self._claim(record, is_charged=charge is None) as claim:
                queue = None if submission.is_async else leases.enter_context(self.reply_queues.lease(record.job_id))
                with self._slot(record, submission):
                    if charge is not None:
                        charge.pay(runs=submission.request.run_count)
                        claim.is_charged = True
                    self._send(submission, record, reply_to=queue.url if queue else None)
            if queue is None:
                return self._accept(record, is_stored=True)
            return self._await_reply(submission, record, queue, is_stored=True)

    def _await_existing_job(self, submission: Submission, record: JobRecord) -> Reply | JobRecord:
        """Wait for a job that an earlier request submitted, or take it over if that request died."""
        deadline = self.clock() + (0.0 if submission.is_async else submission.wait_s)
        claim_token = record.claim_token
        while record.state in {JobState.CLAIMED, JobState.ACCEPTED}:
            if record.claim_token != claim_token:  # another repeated request took over; it is about to accept the job
                claim_token, deadline = record.claim_token, max(deadline, self.clock())
            remaining_s = deadline - self.clock()
            if record.state is JobState.ACCEPTED and remaining_s <= 0:
                return record
            has_expired = self.clock() >= record.claim_expires_at or remaining_s <= -TAKEOVER_GRACE_S
            if record.state is JobState.CLAIMED and has_expired:
                # Its process seems to have died, or waits for longer than this request does: the job may run twice.
                resumed = replace(submission, wait_s=max(remaining_s, 0.0))
                new_record = self._build_record(resumed, record.job_id, previous=record)
                current = self.table.replace_if_unchanged(record, new_record)
                if current.claim_token == new_record.claim_token:
                    return self._take_over(submission, record, new_record, remaining_s=remaining_s)
                record = current
                continue
            self.sleep(POLL_INTERVAL_S)
            latest = self.table.read(record.job_id)
            if latest is None:  # the first request was rejected
                raise ProblemError(problems.JOB_STORE_UNAVAILABLE)
            record = latest
        return record

    def _take_over(
        self, submission: Submission, previous: JobRecord, record: JobRecord, *, remaining_s: float
    ) -> Reply | JobRecord:
        self._release_slot(previous)
        is_async = submission.is_async or remaining_s < MIN_RESUMED_WAIT_S
        resumed = replace(submission, wait_s=remaining_s, is_async=is_async)
        return self._start_claimed(resumed, record)

    def _await_reply(
        self,
        submission: Submission,
        record: JobRecord,
        queue: ReplyQueue,
        *,
        is_stored: bool,
        has_payload: bool = False,
    ) -> Reply | JobRecord:
        """Wait for the reply. The job may have a record (`is_stored`) and an object in the store (`has_payload`)."""
        started_at = time.monotonic()
        reply = queue.wait(record.job_id, deadline=started_at + submission.wait_s + REPLY_GRACE_S)
        request_context.record("ReplyWaitMs", round((time.monotonic() - started_at) * 1000))
        if reply is None:
            request_context.record("LateReplies", 1)
            try:
                record = self._accept(record, is_stored=is_stored)
            except TableError as error:
                logger.exception("job_table_error")
                raise ProblemError(problems.RESULT_TIMEOUT, job_id=record.job_id) from error
            reply = queue.receive(record.job_id, wait_s=0)
            if reply is None:
                return record
        elif not is_stored:
            try:
                result = self.payloads.read_reply(reply)
            except PayloadStoreError:
                logger.exception("payload_store_error")
                record = self._accept(record, is_stored=False)  # its customer asks for the result later
            else:
                self._release_slot(record)
                if has_payload or isinstance(reply, ReplyReference):
                    self._delete_payloads(record.job_id)
                return result
        return self.results.record_reply(reply) or self.payloads.read_reply(reply)

    def _delete_payloads(self, job_id: str) -> None:
        try:
            self.payloads.delete(job_id)
        except PayloadStoreError:  # they expire
            logger.warning("payload_delete_failed", exc_info=True)

    def _send(self, submission: Submission, record: JobRecord, *, reply_to: str | None = None) -> bool:
        """Send the job, and return whether it is in the payload store."""
        upload_url = self.payloads.reply_upload_url(record.job_id, start_deadline=record.start_deadline)
        job = build_job(submission, record, now=self.clock(), reply_to=reply_to, reply_upload_url=upload_url)
        return self.dispatcher.send(job, key_id=submission.key_id)

    def _accept(self, record: JobRecord, *, is_stored: bool) -> JobRecord:
        """Let the customer ask for the job later. Return its current record, which may already have a reply."""
        accepted = replace(record, state=JobState.ACCEPTED)
        if is_stored:
            return self.table.replace_if_unchanged(record, accepted)
        current = self.table.claim(accepted, now_s=int(self.clock()))
        if current.claim_token != accepted.claim_token:  # the result came first, in a hidden record without a slot
            self._release_slot(record)
        return current

    def _build_record(self, submission: Submission, job_id: str, *, previous: JobRecord | None = None) -> JobRecord:
        return build_record(
            submission,
            job_id,
            now=self.clock(),
            result_retention_s=self.result_retention_s,
            previous=previous,
        )

    @contextmanager
    def _charging(self, submission: Submission) -> Iterator["_Charge"]:
        """Yield the charge of a request. If the block refuses the request before it is charged, charge its rate."""
        charge = _Charge(self.admission, submission.caller)
        try:
            yield charge
        except Exception:
            if not charge.is_charged:
                charge.pay(runs=0)
            raise

    @contextmanager
    def _claim(self, record: JobRecord, *, is_charged: bool = False) -> Iterator["_Claim"]:
        """Give the claim up if the block raises. A charged job stays, so that repeating the request sends it."""
        claim = _Claim(is_charged)
        try:
            yield claim
        except Exception:
            if claim.is_charged:
                expired = replace(record, claim_expires_at=RETRY_IMMEDIATELY)
                self.table.replace_if_unchanged(record, expired)
            else:
                self.table.release_claim(record)
            raise

    @contextmanager
    def _slot(self, record: JobRecord, submission: Submission) -> Iterator[None]:
        """Reserve a slot if the job needs one, and release it if the block raises."""
        if record.holds_slot:
            self._reserve_slot(record, submission)
        try:
            yield
        except Exception:
            self._release_slot(record)
            raise

    def _reserve_slot(self, record: JobRecord, submission: Submission) -> None:
        plan, is_full = submission.caller.plan, submission.queue_load is QueueLoad.FULL
        try:
            limit = 1 if is_full else plan.max_pending_jobs
            self.pending_jobs.reserve(record, limit=limit, now_s=int(self.clock()))
        except NoSlotError as error:
            if is_full:
                raise ProblemError(problems.OVERLOADED) from error
            detail = f"You have {limit} pending jobs, the maximum for plan {plan.name}."
            raise ProblemError(problems.TOO_MANY_PENDING_JOBS, detail=detail, plan=plan.name) from error

    def _release_slot(self, record: JobRecord) -> None:
        if not record.holds_slot:
            return
        try:
            self.pending_jobs.release(record)
        except TableError:  # it expires
            logger.warning("slot_release_failed", exc_info=True)


class _Charge(Struct):
    """The charge of a request. It is paid once, and not again if it is rejected."""

    admission: Admission
    caller: Caller
    is_charged: bool = False

    def pay(self, *, runs: int) -> None:
        """Charge the request to the rate and the quota of its key. Raise ProblemError if one is used up."""
        self.is_charged = True
        self.admission.charge(self.caller, runs=runs)


class _Claim(Struct):
    is_charged: bool
