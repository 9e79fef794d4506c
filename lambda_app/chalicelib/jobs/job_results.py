"""What became of a job: its first reply is stored and stays, whoever brings it and however often the job ran.

For the routes and for whatever brings replies: the results queue, dead letters, late and unfetched replies.
"""

import logging
import time
from collections.abc import Callable
from typing import Final, Protocol

from chalicelib import problems
from chalicelib.contract import Failure, FailureReason, Reply, encode
from chalicelib.jobs.job_table import JobRecord, JobTableError, WebhookState
from chalicelib.problems import ProblemError
from chalicelib.sqs import QueueSendError

log = logging.getLogger(__name__)

# After expires_at: to run, to come back from hosts that died, to be answered by the dead-letter queue's handler.
SETTLED_AFTER_S: Final = 600
FOUND_KEPT_S: Final = 600  # a result for nobody: well above the time in which its job may still be promised


class Table(Protocol):
    """What is used of a JobTable. Raises JobTableError."""

    def read(self, job_id: str) -> JobRecord | None:
        """The job as it is now."""

    def claim(self, record: JobRecord, *, now_s: int) -> JobRecord:
        """Stores a job that is not there; the one that is."""

    def settle(self, job_id: str, reply: str) -> JobRecord | None:
        """Gives a job its reply; how it is then."""

    def forget(self, job_id: str, *, key_id: str) -> JobRecord | None:
        """Empties a job."""


class Waiting(Protocol):
    """What is used of WaitingJobs. Raises JobTableError."""

    def remove(self, job_id: str, *, key_id: str, until: int) -> None:
        """Counts a job no more."""


class Webhooks(Protocol):
    """What is used of webhooks.Webhooks."""

    def enqueue(self, record: JobRecord) -> None:
        """Has a result sent to its customer. Raises when that cannot be arranged."""


class Results:
    """The ends of jobs. Any number of threads may use it at once."""

    def __init__(
        self,
        table: Table,
        *,
        waiting: Waiting,
        webhooks: Webhooks,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._table = table
        self._waiting = waiting
        self._webhooks = webhooks
        self._clock = clock

    def get(self, job_id: str, *, key_id: str) -> JobRecord:
        """A job of that key, with its reply once there is one. Raises ProblemError."""
        try:
            record = self._known(self._table.read(job_id), key_id)
            if record.reply is None and self._clock() >= record.expires_at + SETTLED_AFTER_S:
                lost = Failure(id=job_id, reason=FailureReason.START_TIMEOUT)
                record = self._known(self.settle(lost), key_id)
        except (JobTableError, QueueSendError) as error:
            log.exception("job_table_error")
            raise ProblemError(problems.JOB_STORE_UNAVAILABLE) from error
        return record

    def forget(self, job_id: str, *, key_id: str) -> None:
        """Removes what a customer sent and got. Raises ProblemError."""
        try:
            record = self._table.forget(job_id, key_id=key_id)
        except JobTableError as error:
            log.exception("job_table_error")
            raise ProblemError(problems.JOB_STORE_UNAVAILABLE) from error
        if record is None or record.key_id != key_id or not record.is_asked_for:
            raise ProblemError(problems.JOB_NOT_FOUND)

    def settle(self, reply: Reply, *, key_id: str | None = None) -> JobRecord | None:
        """Stores a reply unless its job has one: the job as it is then.

        None if there is no item. With a `key_id` one is made, for a request whose wait is just over: who was
        answered already never sees it. Storing twice is harmless, so whoever fails tries again. Raises
        JobTableError, or what the webhook's queue raises.
        """
        body = encode(reply)
        record = self._table.settle(reply.id, body)
        if record is None and key_id is not None:
            now_s = int(self._clock())
            found = JobRecord(
                job_id=reply.id,
                key_id=key_id,
                retry_at=now_s,
                expires_at=now_s,
                kept_until=now_s + FOUND_KEPT_S,
                reply=body,
            )
            record = self._table.claim(found, now_s=now_s)
            if record is not found:  # its customer was promised the result between the two calls
                record = self._table.settle(reply.id, body)
        if record is None:
            return None
        if record.counted:
            self._waiting.remove(record.job_id, key_id=record.key_id, until=waits_until(record))
        if record.reply and record.webhook_url and record.webhook_state is WebhookState.PENDING:
            self._webhooks.enqueue(record)
        return record

    def _known(self, record: JobRecord | None, key_id: str) -> JobRecord:
        if record is None or record.key_id != key_id or not record.is_asked_for:
            raise ProblemError(problems.JOB_NOT_FOUND)
        if record.forgotten or self._clock() >= record.kept_until:
            raise ProblemError(problems.JOB_EXPIRED_OR_DELETED)
        return record


def waits_until(record: JobRecord) -> int:
    """When a job counts as waiting no more, even if nothing ever comes of it."""
    return record.expires_at + SETTLED_AFTER_S
