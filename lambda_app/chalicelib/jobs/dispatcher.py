"""Sends jobs to the hosts, which take turns between the jobs of different keys."""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError
from msgspec import Struct

from chalicelib import problems
from chalicelib.contract import Job, encode
from chalicelib.problems import ProblemError

if TYPE_CHECKING:
    from types_boto3_sqs import SQSClient

logger = logging.getLogger(__name__)


class JobDispatcher(Struct, frozen=True):
    """The job queue of each runtime. Thread-safe."""

    sqs: "SQSClient"
    job_queue_urls: Mapping[str, str]  # by name of the runtime

    def send(self, job: Job, *, key_id: str) -> None:
        """Send a job. Raise ProblemError if SQS does not take it."""
        try:
            self.sqs.send_message(
                QueueUrl=self.job_queue_urls[job.runtime], MessageBody=encode(job), MessageGroupId=key_id
            )
        except (BotoCoreError, ClientError) as error:
            logger.exception("job_send_failed")
            raise ProblemError(problems.JOB_QUEUE_UNAVAILABLE) from error
