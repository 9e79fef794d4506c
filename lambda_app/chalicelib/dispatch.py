"""Sends a job to the hosts and waits for what comes of it. Called by the route that runs code."""

import logging
import time
import uuid
from http import HTTPStatus
from typing import Any, Final, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from chalicelib import logs
from chalicelib.contract import Failure, FailureReason, Job, Result, encode
from chalicelib.problems import TYPE_PREFIX, Problem, ProblemError
from chalicelib.replies import ReplyQueue, ReplyQueueError
from chalicelib.validation import RunRequest

log = logging.getLogger(__name__)

REPLY_GRACE_S: Final = 2.0  # a reply that was sent in time is still on its way at reply_by
RETRY_AFTER_S: Final = 2  # SQS outages are short


class QueueUnavailableError(ProblemError):
    """The job could not be sent. It was not accepted and may be sent again."""

    def __init__(self) -> None:
        super().__init__(
            Problem(
                type=TYPE_PREFIX + "unavailable",
                title="Temporarily unavailable",
                status=HTTPStatus.SERVICE_UNAVAILABLE,
                detail="The job was not accepted. Send it again.",
            ),
            headers={"Retry-After": str(RETRY_AFTER_S)},
        )


class NoReplyError(ProblemError):
    """Nothing is known of the job at the end of the wait."""

    def __init__(self, job_id: str) -> None:
        super().__init__(
            Problem(
                type=TYPE_PREFIX + "no-reply",
                title="No result in time",
                status=HTTPStatus.GATEWAY_TIMEOUT,
                detail="The job was accepted, but its result did not come in time.",
                job_id=job_id,
            )
        )


class JobFailedError(ProblemError):
    """A host answered that the job has no result."""

    def __init__(self, job_id: str, reason: FailureReason) -> None:
        """504 for a job that found no host in time, 502 for one that our side could not run."""
        if reason is FailureReason.EXPIRED:
            status, detail = HTTPStatus.GATEWAY_TIMEOUT, "The job found no free host in time and was not run."
        else:
            status, detail = HTTPStatus.BAD_GATEWAY, "The job could not be run. The code is not to blame."
        super().__init__(
            Problem(
                type=f"{TYPE_PREFIX}job-failed:{reason}",
                title="Job failed",
                status=status,
                detail=detail,
                job_id=job_id,
            )
        )


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
    """Runs code on some host."""

    def __init__(self, sqs: Sender, *, job_queue_url: str, replies: ReplyQueue, reply_wait_s: float) -> None:
        self._sqs = sqs
        self._job_queue_url = job_queue_url
        self._replies = replies
        self._reply_wait_s = reply_wait_s

    def run(self, request: RunRequest, *, key_id: str) -> Result:
        """Hosts take turns between the jobs of different keys.

        Raises QueueUnavailableError, NoReplyError or JobFailedError.
        """
        try:
            reply_to = self._replies.url()
        except ReplyQueueError as error:
            log.exception("reply_queue_failed")
            raise QueueUnavailableError from error
        job = self._job(request, reply_to=reply_to)
        deadline = time.monotonic() + self._reply_wait_s + REPLY_GRACE_S
        logs.add(job_id=job.id)
        with self._replies.expecting(job.id):
            self._send(job, key_id)
            try:
                reply = self._replies.wait(job.id, deadline=deadline)
            except TimeoutError as error:
                raise NoReplyError(job.id) from error
        if isinstance(reply, Failure):
            raise JobFailedError(job.id, reply.reason)
        return reply

    def _job(self, request: RunRequest, *, reply_to: str) -> Job:
        now = time.time()
        reply_by = now + self._reply_wait_s
        return Job(
            id=uuid.uuid4().hex,
            code=request.code,
            input=request.input,
            timeout_s=request.timeout_s,
            reply_to=reply_to,
            submitted_at=now,
            reply_by=reply_by,
            expires_at=reply_by,
        )

    def _send(self, job: Job, key_id: str) -> None:
        try:
            self._sqs.send_message(QueueUrl=self._job_queue_url, MessageBody=encode(job), MessageGroupId=key_id)
        except (BotoCoreError, ClientError) as error:
            log.exception("job_send_failed")
            raise QueueUnavailableError from error
