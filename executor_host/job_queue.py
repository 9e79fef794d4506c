"""Receive, send and delete SQS messages for the agent, without knowing what they contain."""

from collections.abc import Sequence
from typing import Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from msgspec import Struct

MIN_RELEASE_S: Final = 3  # longer than the polls of a host that runs jobs (poll_pacer.py)
POLL_READ_TIMEOUT_S: Final = 8  # above the longest poll (poll_pacer.py)
MAX_BATCH_SIZE: Final = 10  # entries in one SQS call
_MISSING_QUEUE_CODES: Final = ("AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist")


class QueueError(Exception):
    """SQS could not be reached or rejected the request; a retry may succeed."""


class NoSuchQueueError(QueueError):
    """The queue does not exist: it was deleted, or it is so new that not all of SQS knows it."""


class ReceivedMessage(Struct, frozen=True):
    """A message in flight, invisible to other hosts until its visibility timeout ends."""

    body: str
    receipt: str
    message_group_id: str | None = None


class JobQueue:
    """The queue operations of the agent, with boto3's settings. Any thread may call them; each raises QueueError."""

    def __init__(self, url: str, *, workers: int) -> None:
        """Create a client for the job queue at `url` that up to `workers` threads use at once."""
        self._url = url
        # Both attempts of a call end within visibility.VISIBILITY_TIMEOUT_S; a later extension is useless.
        config = Config(
            connect_timeout=2,
            read_timeout=5,
            max_pool_connections=2 * workers,
            retries={"mode": "standard", "total_max_attempts": 2},  # unlike max_attempts, it includes the first one
            tcp_keepalive=True,
        )
        self._sqs: Any = boto3.client("sqs", config=config)
        poll_config = config.merge(Config(read_timeout=POLL_READ_TIMEOUT_S))
        self._polling_sqs: Any = boto3.client("sqs", config=poll_config)

    def receive(self, *, wait_s: int) -> ReceivedMessage | None:
        """Return the next message, or None if none arrives within `wait_s`."""
        response = self._call(
            "receive_message",
            client=self._polling_sqs,
            MaxNumberOfMessages=1,  # so that no job waits here while another host is idle
            WaitTimeSeconds=wait_s,
            MessageSystemAttributeNames=["MessageGroupId"],
        )
        for message in response.get("Messages", ()):
            group_id = message.get("Attributes", {}).get("MessageGroupId")
            return ReceivedMessage(message["Body"], message["ReceiptHandle"], group_id)
        return None

    def send(self, queue_url: str, body: str, *, message_group_id: str | None = None) -> None:
        """Send a message to any queue. Raise NoSuchQueueError if the queue does not exist."""
        group_argument = {} if message_group_id is None else {"MessageGroupId": message_group_id}
        self._call("send_message", QueueUrl=queue_url, MessageBody=body, **group_argument)

    def extend_visibility(self, messages: Sequence[ReceivedMessage], *, visibility_timeout_s: int) -> int:
        """Keep up to MAX_BATCH_SIZE messages invisible for this long. Return how many failed."""
        entries = [
            {"Id": str(number), "ReceiptHandle": message.receipt, "VisibilityTimeout": visibility_timeout_s}
            for number, message in enumerate(messages)
        ]
        response = self._call("change_message_visibility_batch", Entries=entries)
        return len(response.get("Failed", ()))

    def delete(self, message: ReceivedMessage) -> None:
        """Delete a processed message."""
        self._call("delete_message", ReceiptHandle=message.receipt)

    def release(self, message: ReceivedMessage, *, pause_s: int = 0) -> None:
        """Make a message visible after a pause, and not before the open polls of this host have ended."""
        visibility_timeout_s = max(pause_s, MIN_RELEASE_S)
        self._call("change_message_visibility", ReceiptHandle=message.receipt, VisibilityTimeout=visibility_timeout_s)

    def _call(self, operation: str, client: Any = None, **arguments: object) -> dict[str, Any]:  # noqa: ANN401 - boto3's
        try:
            call = getattr(client or self._sqs, operation)
            response: dict[str, Any] = call(**{"QueueUrl": self._url, **arguments})
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in _MISSING_QUEUE_CODES:
                raise NoSuchQueueError(operation) from error
            raise QueueError(operation) from error
        except BotoCoreError as error:
            raise QueueError(operation) from error
        return response
