"""The one result that each job ends in: whichever reply is stored first stays, no matter how often the job ran.

Used by the routes and by everything that brings replies: the results queue, dead letters, late and orphaned replies.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from msgspec import Struct

from chalicelib import problems
from chalicelib.contract import Failure, FailureReason, Reply, ReplyMessage, ReplyReference, pack
from chalicelib.dynamodb import TableError
from chalicelib.jobs.job_table import JobRecord, JobState, JobTable
from chalicelib.jobs.job_view import decode_stored_reply
from chalicelib.jobs.payload_store import PayloadStore, PayloadStoreError
from chalicelib.jobs.pending_jobs import ABANDON_AFTER_S, PendingJobs
from chalicelib.problems import ProblemError
from chalicelib.sqs import QueueSendError

logger = logging.getLogger(__name__)

ORPHAN_RESULT_TTL_S: Final = 600  # well above the time in which its job may still be accepted


@contextmanager
def outages_as_problems(logger: logging.Logger) -> Iterator[None]:
    """Log an outage of the jobs table, the webhook queue or the payload store, and raise ProblemError for it."""
    try:
        yield
    except (TableError, QueueSendError) as error:
        logger.exception("job_table_error")
        raise ProblemError(problems.JOB_STORE_UNAVAILABLE) from error
    except PayloadStoreError as error:
        logger.exception("payload_store_error")
        raise ProblemError(problems.PAYLOAD_STORE_UNAVAILABLE) from error


class JobResults(Struct, frozen=True):
    """Stored results. Thread-safe."""

    table: JobTable
    pending_jobs: PendingJobs
    payloads: PayloadStore
    enqueue_webhook: Callable[[JobRecord], object]
    clock: Callable[[], float] = time.time

    def get(self, job_id: str, *, key_id: str) -> JobRecord:
        """Return a job of this key, with its reply if there is one. Raise ProblemError if the key cannot see it."""
        with outages_as_problems(logger):
            record = self._require_visible(self.table.read(job_id), key_id)
            if record.state is not JobState.FINISHED and self.clock() >= record.start_deadline + ABANDON_AFTER_S:
                expired = Failure(id=job_id, reason=FailureReason.START_TIMEOUT)
                record = self._require_visible(self.record_reply(expired), key_id)
        return record

    def read_reply(self, record: JobRecord) -> Reply | None:
        """Return the reply of a job, None if there is none yet. Raise ProblemError, or CorruptReplyError."""
        if record.reply is None:
            return None
        with outages_as_problems(logger):
            return self.payloads.read_reply(decode_stored_reply(record))

    def delete(self, job_id: str, *, key_id: str) -> None:
        """Delete what the customer sent and received. Raise ProblemError if the key has no such job."""
        with outages_as_problems(logger):
            record = self.table.mark_deleted(job_id, key_id=key_id)
            if record is None or record.key_id != key_id or record.state is JobState.HIDDEN:
                raise ProblemError(problems.JOB_NOT_FOUND)
            self.payloads.delete(job_id)  # if that fails, repeating the request deletes what is left

    def record_reply(self, reply: ReplyMessage, *, key_id: str | None = None) -> JobRecord | None:
        """Store a reply unless its job has one, and return the job's record.

        Return None if the job has no record. If `key_id` is given, create a hidden record instead, so that a request
        that is about to accept the job finds the result. Idempotent: callers may retry on failure. Raise TableError,
        PayloadStoreError, or QueueSendError if the webhook cannot be scheduled.
        """
        packed = pack(reply)
        record = self.table.set_reply(reply.id, packed)
        if record is None and key_id is not None:
            record = self._hide(reply.id, packed, key_id)
        if record is None:
            return None
        if record.state is JobState.DELETED and isinstance(reply, ReplyReference):
            self.payloads.delete(reply.id)  # the job ran while it was deleted
        if record.holds_slot:
            self.pending_jobs.release(record)
        self.enqueue_webhook(record)
        return record

    def _hide(self, job_id: str, reply: bytes, key_id: str) -> JobRecord | None:
        now_s = int(self.clock())
        hidden = JobRecord(
            job_id=job_id,
            key_id=key_id,
            state=JobState.HIDDEN,
            start_deadline=now_s,
            retained_until=now_s + ORPHAN_RESULT_TTL_S,
            reply=reply,
        )
        record = self.table.claim(hidden, now_s=now_s)
        # A different record is one that its request accepted between the two calls.
        return record if record is hidden else self.table.set_reply(job_id, reply)

    def _require_visible(self, record: JobRecord | None, key_id: str) -> JobRecord:
        if record is None or record.key_id != key_id or record.state is JobState.HIDDEN:
            raise ProblemError(problems.JOB_NOT_FOUND)
        if record.state is JobState.DELETED or self.clock() >= record.retained_until:
            raise ProblemError(problems.JOB_EXPIRED_OR_DELETED)
        return record
