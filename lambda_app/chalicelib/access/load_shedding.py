"""Reject requests while their job queue is deeper than the hosts can clear in time, before they are charged.

A key without pending jobs has not caused the depth, and SQS fair queues deliver its job before those of others. So it
is admitted until the queue is twice as deep.
"""

import logging
import threading
import time
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Final

from botocore.exceptions import BotoCoreError, ClientError

from chalicelib import problems
from chalicelib.problems import ProblemError

if TYPE_CHECKING:
    from types_boto3_sqs import SQSClient

logger = logging.getLogger(__name__)

VISIBLE_MESSAGES: Final = "ApproximateNumberOfMessages"  # jobs that no host has received yet
REFRESH_INTERVAL_S: Final = 3.0  # SQS's own number is about this old
PRESSURE_THRESHOLD: Final = 0.25  # of max_depth; below it customers do not delay each other (docs/decisions/012)
REJECTION_THRESHOLD: Final = 2.0  # of max_depth; above it no key is admitted


class QueueLoad(Enum):
    """How deep a job queue is, and so which requests are admitted."""

    NORMAL = "normal"  # all
    HIGH = "high"  # those of keys that have a slot left
    FULL = "full"  # those of keys without pending jobs


class LoadShedder:
    """Reads the depth of one job queue at most once per REFRESH_INTERVAL_S. Thread-safe."""

    def __init__(
        self, sqs: "SQSClient", *, job_queue_url: str, max_depth: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._sqs = sqs
        self._job_queue_url = job_queue_url
        self._max_depth = max_depth
        self._clock = clock
        self._refresh_lock = threading.Lock()
        self._refresh_at = float("-inf")
        self._depth = 0

    def check_capacity(self) -> QueueLoad:
        """Return the load of the queue. Raise ProblemError if no key is admitted.

        One thread at a time refreshes the depth; the others use the last one.
        """
        if self._clock() >= self._refresh_at and self._refresh_lock.acquire(blocking=False):
            try:
                self._refresh_depth()
            finally:
                self._refresh_lock.release()
        if self._depth > self._max_depth * REJECTION_THRESHOLD:
            raise ProblemError(problems.OVERLOADED)
        if self._depth > self._max_depth:
            return QueueLoad.FULL
        return QueueLoad.HIGH if self._depth > self._max_depth * PRESSURE_THRESHOLD else QueueLoad.NORMAL

    def _refresh_depth(self) -> None:
        try:
            response = self._sqs.get_queue_attributes(QueueUrl=self._job_queue_url, AttributeNames=[VISIBLE_MESSAGES])
            self._depth = int(response["Attributes"][VISIBLE_MESSAGES])
        except (BotoCoreError, ClientError):
            logger.exception("queue_depth_read_failed")
            self._depth = 0  # if SQS is down, sending the job fails anyway
        finally:
            self._refresh_at = self._clock() + REFRESH_INTERVAL_S
