"""Reject requests while their job queue is deeper than the hosts can clear in time, before they are charged."""

import logging
import threading
import time
from collections.abc import Callable
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

    def check_capacity(self) -> bool:
        """Return whether the queue is under pressure, so that each job needs a slot. Raise ProblemError if it is full.

        One thread at a time refreshes the depth; the others use the last one.
        """
        if self._clock() >= self._refresh_at and self._refresh_lock.acquire(blocking=False):
            try:
                self._refresh_depth()
            finally:
                self._refresh_lock.release()
        if self._depth > self._max_depth:
            raise ProblemError(problems.OVERLOADED)
        return self._depth > self._max_depth * PRESSURE_THRESHOLD

    def _refresh_depth(self) -> None:
        try:
            response = self._sqs.get_queue_attributes(QueueUrl=self._job_queue_url, AttributeNames=[VISIBLE_MESSAGES])
            self._depth = int(response["Attributes"][VISIBLE_MESSAGES])
        except (BotoCoreError, ClientError):
            logger.exception("queue_depth_read_failed")
            self._depth = 0  # if SQS is down, sending the job fails anyway
        finally:
            self._refresh_at = self._clock() + REFRESH_INTERVAL_S
