"""Sends a job to the hosts and waits for what comes of it. Called by submit.py."""

import logging
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from chalicelib import problems
from chalicelib.contract import Job, Reply, encode
from chalicelib.jobs.reply_queue import ReplyQueue, ReplyQueueError
from chalicelib.problems import ProblemError
from chalicelib.telemetry import metrics

log = logging.getLogger(__name__)

REPLY_GRACE_S: Final = 2.0  # a reply that was sent in time is still on its way at reply_by


class Sender(Protocol):
    """What is used of boto3's SQS client."""

    def send_message(
        self,
        *,
        QueueUrl: str,  # noqa: N803
        MessageBody: str,  # noqa: N803
        MessageGroupId: str,  # noqa: N803
    ) -> dict[str, Any]:
        """https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html."""


class Dispatcher:
    """The way to the hosts, which take turns between the jobs of different keys."""

    def __init__(self, sqs: Sender, *, job_queue_url: str, replies: ReplyQueue) -> None:
        self._sqs = sqs
        self._job_queue_url = job_queue_url
        self._replies = replies

    def reply_to(self) -> str:
        """Where a job that somebody waits for is answered. Raises QueueUnavailableError."""
        try:
            return self._replies.url()
        except ReplyQueueError as error:
            log.exception("reply_queue_failed")
            raise ProblemError(problems.JOB_QUEUE_UNAVAILABLE) from error

    def run(self, job: Job, *, key_id: str, if_late: Callable[[], object]) -> Reply | None:
        """What comes of a job, None if nothing came by its `reply_by`.

        Calls `if_late` when the wait is over: a reply that comes from then on is handed to whoever takes the
        late ones, one that came during the call is returned. Raises QueueUnavailableError.
        """
        deadline = time.monotonic() + job.reply_by - job.submitted_at + REPLY_GRACE_S
        with self._replies.expecting(job.id):
            self.send(job, key_id=key_id)
            began = time.monotonic()
            try:
                return self._replies.wait(job.id, deadline=deadline)
            except TimeoutError:
                metrics.put("LateReplies", 1)
                if_late()
                return self._replies.arrived(job.id)
            finally:
                metrics.put("ReplyWaitMs", round((time.monotonic() - began) * 1000))

    def put_back(self, job_id: str) -> None:
        """Has a reply that `run` returned come once more, since it could not be taken care of."""
        self._replies.put_back(job_id)

    def send(self, job: Job, *, key_id: str) -> None:
        """Raises QueueUnavailableError."""
        try:
            self._sqs.send_message(QueueUrl=self._job_queue_url, MessageBody=encode(job), MessageGroupId=key_id)
        except (BotoCoreError, ClientError) as error:
            log.exception("job_send_failed")
            raise ProblemError(problems.JOB_QUEUE_UNAVAILABLE) from error
