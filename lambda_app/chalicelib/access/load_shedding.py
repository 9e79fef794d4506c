"""Turns requests away while the hosts have more waiting than they clear in time. Asked before a customer pays."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from chalicelib import problems
from chalicelib.problems import ProblemError

log = logging.getLogger(__name__)

VISIBLE_MESSAGES: Final = "ApproximateNumberOfMessages"  # those that no host has taken yet
REFRESH_INTERVAL_S: Final = 3.0  # the number itself is about that old
PRESSURE_THRESHOLD: Final = 0.25  # of the limit; below it nobody holds up anybody (docs/decisions/012)


class QueueMeter(Protocol):
    """What is used of boto3's SQS client."""

    def get_queue_attributes(self, *, QueueUrl: str, AttributeNames: Sequence[str]) -> dict[str, Any]:  # noqa: N803
        """https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_GetQueueAttributes.html."""


class LoadShedder:
    """Knows how deep the job queue was a moment ago."""

    def __init__(
        self, sqs: QueueMeter, *, job_queue_url: str, max_depth: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._sqs = sqs
        self._job_queue_url = job_queue_url
        self._max_depth = max_depth
        self._clock = clock
        self._refresh_lock = threading.Lock()
        self._read_next_at = float("-inf")
        self._depth = 0

    def check_capacity(self) -> bool:
        """Whether the queue fills, so that each job is to be counted. Raises OverloadedError.

        One thread at a time reads the depth; the others go by what was read last.
        """
        if self._clock() >= self._read_next_at and self._refresh_lock.acquire(blocking=False):
            try:
                self._refresh_depth()
            finally:
                self._refresh_lock.release()
        if self._depth > self._max_depth:
            raise ProblemError(problems.OVERLOADED)
        return self._depth > self._max_depth * PRESSURE_THRESHOLD

    def _refresh_depth(self) -> None:
        try:
            answer = self._sqs.get_queue_attributes(QueueUrl=self._job_queue_url, AttributeNames=[VISIBLE_MESSAGES])
            self._depth = int(answer["Attributes"][VISIBLE_MESSAGES])
        except (BotoCoreError, ClientError):
            log.exception("queue_depth_read_failed")
            self._depth = 0  # a queue that is down refuses the job itself
        finally:
            self._read_next_at = self._clock() + REFRESH_INTERVAL_S
