"""Sends results to the customers' receivers, signed, again and again until one says so or the last attempt is over.

An attempt is a message on the webhook queue, {"job_id": ..., "attempt": n}. Its number is compared with the job's
item, so a message that comes twice is sent once, unless both are under way at the same moment.
"""

import base64
import hmac
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Annotated, Any, Final, Protocol

import msgspec
from botocore.exceptions import BotoCoreError, ClientError
from msgspec import Meta, Struct

from chalicelib import problems
from chalicelib.access.api_keys import SIGNING_PREFIX, KeyRecord, KeyStatus
from chalicelib.api.run_request import RunRequest
from chalicelib.jobs.job_table import JobRecord, WebhookState
from chalicelib.problems import ProblemError
from chalicelib.webhooks.client import CallbackError

log = logging.getLogger(__name__)

BACKOFF_S: Final = (5, 30, 120, 600, 900)  # before the second attempt and each further one; SQS delays 900 at most
USER_AGENT: Final = "python-exec-webhooks/1"


class WebhookQueueError(Exception):
    """The webhook queue did not take a message."""


class WebhookMessageError(Exception):
    """A message that cannot be acted upon, or not yet: an attempt whose predecessor is not written down."""


class _Attempt(Struct, frozen=True):
    job_id: str
    attempt: Annotated[int, Meta(ge=1)]


class Sender(Protocol):
    """What is used of boto3's SQS client."""

    def send_message(
        self,
        *,
        QueueUrl: str,  # noqa: N803
        MessageBody: str,  # noqa: N803
        MessageGroupId: str,  # noqa: N803
        DelaySeconds: int,  # noqa: N803
    ) -> dict[str, Any]:
        """https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html."""


class Jobs(Protocol):
    """What is used of JobTable."""

    def read(self, job_id: str) -> JobRecord | None: ...

    def note_webhook(
        self, seen: JobRecord, state: WebhookState, *, attempts: int, error: str | None = None
    ) -> JobRecord | None: ...


class Keys(Protocol):
    """What is used of KeyTable."""

    def read(self, key_id: str) -> KeyRecord | None: ...


class Receiver(Protocol):
    """What is used of callback.Callback."""

    def post(self, url: str, body: bytes, *, headers: Mapping[str, str]) -> int: ...


class Webhooks:
    """Methods raise WebhookQueueError, JobTableError or KeyTableError: the caller's message is to come again."""

    def __init__(
        self,
        sqs: Sender,
        *,
        queue_url: str,
        jobs: Jobs,
        keys: Keys,
        receiver: Receiver,
        body_of: Callable[[JobRecord], bytes],
        backoff_s: Sequence[int] = BACKOFF_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`body_of` gives the public JSON of a job that has its reply."""
        self._sqs = sqs
        self._queue_url = queue_url
        self._jobs = jobs
        self._keys = keys
        self._receiver = receiver
        self._body_of = body_of
        self._backoff_s = backoff_s
        self._clock = clock

    def enqueue(self, record: JobRecord) -> None:
        """Has the reply of a job sent, if its customer wants that and it is not under way. Harmless when repeated."""
        if record.webhook_url is None or record.webhook_state is not WebhookState.PENDING or record.reply is None:
            return
        self._send(record, attempt=1, delay_s=0)
        self._jobs.note_webhook(record, WebhookState.RETRYING, attempts=0)

    def deliver(self, message_body: str) -> None:
        """Makes the attempt of a message of the webhook queue. Raises WebhookMessageError too."""
        try:
            wanted = msgspec.json.decode(message_body, type=_Attempt)
        except msgspec.DecodeError as error:
            raise WebhookMessageError("no attempt of a webhook") from error
        record = self._jobs.read(wanted.job_id)
        if record is not None and self._is_due(record) and record.webhook_state is WebhookState.PENDING:
            # The message was faster than the note of `enqueue`, which must not come between ours later.
            record = self._jobs.note_webhook(record, WebhookState.RETRYING, attempts=0)
        if record is None or not self._is_due(record) or wanted.attempt <= record.webhook_attempts:
            return
        if wanted.attempt > record.webhook_attempts + 1:
            raise WebhookMessageError("the attempt before is not over")
        key = self._keys.read(record.key_id)
        if key is None or key.status is not KeyStatus.ACTIVE:
            self._give_up(record, wanted.attempt, "key_revoked")
        elif not key.signing_secret:
            self._give_up(record, wanted.attempt, "no_signing_secret")
        else:
            self._attempt(record, wanted.attempt, key.signing_secret)

    def _is_due(self, record: JobRecord) -> bool:
        return (
            record.webhook_url is not None
            and record.reply is not None
            and record.forgotten is None
            and record.webhook_state in {WebhookState.PENDING, WebhookState.RETRYING}
            and self._clock() < record.kept_until
        )

    def _attempt(self, record: JobRecord, attempt: int, secret: str) -> None:
        error = self._post(record, secret)
        fields = {"job_id": record.job_id, "key_id": record.key_id, "attempt": attempt}
        if error is None:
            self._jobs.note_webhook(record, WebhookState.DELIVERED, attempts=attempt)
            log.info("webhook_delivered", extra=fields)
        elif attempt > len(self._backoff_s):
            self._give_up(record, attempt, error)
        else:
            # Sent before it is noted: who dies in between repeats an attempt instead of losing the next.
            self._send(record, attempt=attempt + 1, delay_s=self._backoff_s[attempt - 1])
            self._jobs.note_webhook(record, WebhookState.RETRYING, attempts=attempt, error=error)
            log.info("webhook_failed", extra={**fields, "error": error})

    def _post(self, record: JobRecord, secret: str) -> str | None:
        """None when the receiver has taken it, else a word for what went wrong."""
        body = self._body_of(record)
        timestamp = int(self._clock())
        headers = {
            "Content-Type": "application/json",
            "User-Agent": USER_AGENT,
            "webhook-id": record.job_id,  # the same for each attempt, so that receivers can deduplicate
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign(secret, record.job_id, timestamp, body),
        }
        try:
            status = self._receiver.post(record.webhook_url or "", body, headers=headers)
        except CallbackError as error:
            return error.reason
        return None if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES else f"http_{status}"

    def _give_up(self, record: JobRecord, attempt: int, error: str) -> None:
        self._jobs.note_webhook(record, WebhookState.FAILED, attempts=attempt, error=error)
        fields = {"job_id": record.job_id, "key_id": record.key_id, "attempt": attempt, "error": error}
        log.warning("webhook_abandoned", extra=fields)

    def _send(self, record: JobRecord, *, attempt: int, delay_s: int) -> None:
        try:
            self._sqs.send_message(
                QueueUrl=self._queue_url,
                MessageBody=json.dumps({"job_id": record.job_id, "attempt": attempt}),
                MessageGroupId=record.key_id,  # receivers that are slow hold up those of their own key
                DelaySeconds=delay_s,
            )
        except (BotoCoreError, ClientError) as error:
            raise WebhookQueueError(self._queue_url) from error


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the `webhook-signature` of a message, as https://www.standardwebhooks.com/ defines it."""
    key = base64.b64decode(secret.removeprefix(SIGNING_PREFIX))
    digest = hmac.digest(key, f"{message_id}.{timestamp}.".encode("ascii") + body, "sha256")
    return f"v1,{base64.b64encode(digest).decode('ascii')}"


def require_signing_secret(wanted: RunRequest, record: KeyRecord) -> None:
    """Raises NoSigningSecretError for a callback_url of a key that has none."""
    if wanted.callback_url is not None and not record.signing_secret:
        raise ProblemError(problems.NO_SIGNING_SECRET)
