"""Deliver signed results to customers' webhook endpoints, with retries.

Each attempt is a message on the webhook queue: {"job_id": ..., "attempt": n}. The job record counts the attempts, so a
message that SQS delivers twice is sent once, unless both copies are processed at the same time.
"""

import base64
import hmac
import json
import logging
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from botocore.exceptions import BotoCoreError, ClientError
from msgspec import Meta, Struct

from chalicelib.access.api_keys import SIGNING_PREFIX, KeyStatus
from chalicelib.access.key_table import KeyTable
from chalicelib.jobs.job_table import JobRecord, JobState, JobTable, WebhookState
from chalicelib.jobs.job_view import decode_stored_reply, webhook_body
from chalicelib.jobs.payload_store import PayloadStore
from chalicelib.sqs import QueueSendError
from chalicelib.webhooks.client import DeliveryError, WebhookClient

if TYPE_CHECKING:
    from types_boto3_sqs import SQSClient

logger = logging.getLogger(__name__)

RETRY_DELAYS_S: Final = (5, 30, 120, 600, 900)  # after the first attempt and each further one; SQS delays 900 at most
USER_AGENT: Final = "python-exec-webhooks/1"


class UnprocessableAttemptError(Exception):
    """Raised for a malformed message, and for an attempt whose previous one is not recorded yet."""


class _Attempt(Struct, frozen=True):
    job_id: str
    attempt: Annotated[int, Meta(ge=1)]


class WebhookDelivery(Struct, frozen=True):
    """The delivery of webhooks.

    On an outage, methods raise QueueSendError, TableError or PayloadStoreError, for a redelivery.
    """

    sqs: "SQSClient"
    queue_url: str
    jobs: JobTable
    keys: KeyTable
    payloads: PayloadStore
    client: WebhookClient
    clock: Callable[[], float] = time.time

    def enqueue(self, record: JobRecord) -> None:
        """Schedule the first attempt of a finished job with a callback_url, unless it is scheduled. Idempotent."""
        if record.webhook_url is None or record.webhook_state is not WebhookState.PENDING or record.reply is None:
            return
        self._enqueue_attempt(record, attempt=1, delay_s=0)
        self.jobs.update_webhook(record, WebhookState.RETRYING, attempts=0)

    def deliver(self, message_body: str) -> None:
        """Make the attempt that a message of the webhook queue asks for. Also raise UnprocessableAttemptError."""
        try:
            message = msgspec.json.decode(message_body, type=_Attempt)
        except msgspec.DecodeError as error:
            raise UnprocessableAttemptError("malformed message") from error
        record = self._read_deliverable(message.job_id)
        if record is None or message.attempt <= record.webhook_attempts:
            return
        if message.attempt > record.webhook_attempts + 1:
            raise UnprocessableAttemptError("the previous attempt is not recorded yet")
        key = self.keys.read(record.key_id)
        if key is None or key.status is not KeyStatus.ACTIVE:
            self._abandon(record, message.attempt, "key_revoked")
        elif not key.signing_secret:
            self._abandon(record, message.attempt, "no_signing_secret")
        else:
            self._make_attempt(record, message.attempt, key.signing_secret)

    def _read_deliverable(self, job_id: str) -> JobRecord | None:
        """Return the record of a job whose webhook is to be delivered, with the state RETRYING."""
        record = self.jobs.read(job_id)
        if record is not None and self._is_deliverable(record) and record.webhook_state is WebhookState.PENDING:
            # The message arrived before `enqueue` updated the record. This write makes that update fail its condition.
            record = self.jobs.update_webhook(record, WebhookState.RETRYING, attempts=0)
        return record if record is not None and self._is_deliverable(record) else None

    def _is_deliverable(self, record: JobRecord) -> bool:
        return (
            record.webhook_url is not None
            and record.state is JobState.FINISHED
            and record.webhook_state in {WebhookState.PENDING, WebhookState.RETRYING}
            and self.clock() < record.retained_until
        )

    def _make_attempt(self, record: JobRecord, attempt: int, secret: str) -> None:
        error = self._post(record, secret)
        if error is None:
            self.jobs.update_webhook(record, WebhookState.DELIVERED, attempts=attempt)
            logger.info("webhook_delivered", extra=_log_fields(record, attempt))
        elif attempt > len(RETRY_DELAYS_S):
            self._abandon(record, attempt, error)
        else:
            # Enqueue first: a crash in between repeats this attempt instead of losing the next one.
            self._enqueue_attempt(record, attempt=attempt + 1, delay_s=RETRY_DELAYS_S[attempt - 1])
            self.jobs.update_webhook(record, WebhookState.RETRYING, attempts=attempt, error=error)
            logger.info("webhook_failed", extra={**_log_fields(record, attempt), "error": error})

    def _post(self, record: JobRecord, secret: str) -> str | None:
        """Send the result and return the error code, or None if the endpoint confirmed it with a 2xx status."""
        body = webhook_body(record, self.payloads.read_reply(decode_stored_reply(record)))
        timestamp = int(self.clock())
        headers = {
            "Content-Type": "application/json",
            "User-Agent": USER_AGENT,
            "webhook-id": record.job_id,  # the same for each attempt, so that endpoints can deduplicate
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign(secret, record.job_id, timestamp, body),
        }
        try:
            status = self.client.post(record.webhook_url or "", body, headers=headers)
        except DeliveryError as error:
            return error.code
        return None if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES else f"http_{status}"

    def _abandon(self, record: JobRecord, attempt: int, error: str) -> None:
        self.jobs.update_webhook(record, WebhookState.FAILED, attempts=attempt, error=error)
        logger.warning("webhook_abandoned", extra={**_log_fields(record, attempt), "error": error})

    def _enqueue_attempt(self, record: JobRecord, *, attempt: int, delay_s: int) -> None:
        try:
            self.sqs.send_message(
                QueueUrl=self.queue_url,
                MessageBody=json.dumps({"job_id": record.job_id, "attempt": attempt}),
                MessageGroupId=record.key_id,  # a slow endpoint delays only the webhooks of its own key
                DelaySeconds=delay_s,
            )
        except (BotoCoreError, ClientError) as error:
            raise QueueSendError(self.queue_url) from error


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the `webhook-signature` of a message, as https://www.standardwebhooks.com/ defines it."""
    key = base64.b64decode(secret.removeprefix(SIGNING_PREFIX))
    digest = hmac.digest(key, f"{message_id}.{timestamp}.".encode("ascii") + body, "sha256")
    return f"v1,{base64.b64encode(digest).decode('ascii')}"


def _log_fields(record: JobRecord, attempt: int) -> dict[str, str | int]:
    return {"job_id": record.job_id, "key_id": record.key_id, "attempt": attempt}
