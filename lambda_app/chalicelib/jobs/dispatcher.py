"""Sends jobs to the hosts, which take turns between the jobs of different keys."""

import logging
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from chalicelib import problems
from chalicelib.contract import Job, encode
from chalicelib.problems import ProblemError

if TYPE_CHECKING:
    from types_boto3_sqs import SQSClient

logger = logging.getLogger(__name__)


class JobDispatcher:
    """The job queue. Thread-safe."""

    def __init__(self, sqs: "SQSClient", *, job_queue_url: str) -> None:
        self._sqs = sqs
        self._job_queue_url = job_queue_url

    def send(self, job: Job, *, key_id: str) -> None:
        """Send a job. Raise ProblemError if SQS does not take it."""
        try:
            self._sqs.send_message(QueueUrl=self._job_queue_url, MessageBody=encode(job), MessageGroupId=key_id)
        except (BotoCoreError, ClientError) as error:
            logger.exception("job_send_failed")
            raise ProblemError(problems.JOB_QUEUE_UNAVAILABLE) from error
