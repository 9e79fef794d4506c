"""Sends jobs to the hosts, which take turns between the jobs of different keys."""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError
from msgspec import Struct

from chalicelib import problems
from chalicelib.contract import Job, encode, encode_or_pack
from chalicelib.jobs.payload_store import PayloadStore, PayloadStoreError
from chalicelib.problems import ProblemError

if TYPE_CHECKING:
    from types_boto3_sqs import SQSClient

logger = logging.getLogger(__name__)


class JobDispatcher(Struct, frozen=True):
    """The job queue of each runtime. Thread-safe."""

    sqs: "SQSClient"
    job_queue_urls: Mapping[str, str]  # by name of the runtime
    payloads: PayloadStore

    def send(self, job: Job, *, key_id: str) -> bool:
        """Send a job, and return whether it is in the payload store. Raise ProblemError if it cannot be sent."""
        body = encode_or_pack(job)
        is_stored = isinstance(body, bytes)
        try:
            if isinstance(body, bytes):
                body = encode(self.payloads.put_job(job, body))
            queue_url = self.job_queue_urls[job.runtime]
            self.sqs.send_message(QueueUrl=queue_url, MessageBody=body, MessageGroupId=key_id)
        except PayloadStoreError as error:
            logger.exception("job_upload_failed")
            raise ProblemError(problems.PAYLOAD_STORE_UNAVAILABLE) from error
        except (BotoCoreError, ClientError) as error:
            logger.exception("job_send_failed")
            raise ProblemError(problems.JOB_QUEUE_UNAVAILABLE) from error
        return is_stored
