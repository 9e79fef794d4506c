"""The agent's side of SQS: take jobs, reply, acknowledge. Nothing here knows what a job is."""

from collections.abc import Sequence
from typing import Any, Final, Protocol

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from msgspec import Struct

# A stopping agent waits for the polls under way, since a job may be in the answer. A shorter wait makes more requests:
# an idle worker makes 1.3 million of them in a month, 0.52 USD.
RECEIVE_WAIT_S: Final = 2
MAX_BATCH_SIZE: Final = 10  # entries in one SQS call
_NO_SUCH_QUEUE: Final = ("AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist")


class QueueError(Exception):
    """The queue service could not be reached or did not take the request. Trying again may help."""


class NoSuchQueueError(QueueError):
    """There is no queue of that URL: gone, or so new that not all of SQS knows it."""


class ReceivedMessage(Struct, frozen=True):
    """A message in flight: ours until its visibility timeout ends."""

    body: str
    receipt: str
    message_group_id: str | None = None  # whose turn it was


class JobQueue(Protocol):
    """What the agent needs of a queue; safe for many threads."""

    def receive(self) -> ReceivedMessage | None:
        """Wait a while for a message. Raises QueueError."""

    def send(self, queue_url: str, body: str, *, message_group_id: str | None = None) -> None:
        """Send to the queue of that URL. Raises QueueError, NoSuchQueueError."""

    def extend_visibility(self, messages: Sequence[ReceivedMessage], *, visibility_timeout_s: int) -> int:
        """Set when up to MAX_BATCH_SIZE messages become visible again. Return how many failed. Raises QueueError."""

    def delete(self, message: ReceivedMessage) -> None:
        """Acknowledge. Raises QueueError."""

    def release(self, message: ReceivedMessage) -> None:
        """Let another host have it, as soon as no poll of this one is under way. Raises QueueError."""


class SqsJobQueue:
    """A JobQueue on SQS, for up to `workers` threads. Region, endpoint and credentials come from the environment."""

    def __init__(self, url: str, *, workers: int) -> None:
        """`url` of the job queue."""
        self._url = url
        # Both attempts of a call end within visibility.VISIBILITY_TIMEOUT_S; a later extension is useless.
        config = Config(
            connect_timeout=2,
            read_timeout=RECEIVE_WAIT_S + 3,
            max_pool_connections=2 * workers,
            retries={"mode": "standard", "total_max_attempts": 2},  # max_attempts would not count the first one
            tcp_keepalive=True,
        )
        self._sqs: Any = boto3.client("sqs", config=config)

    def receive(self) -> ReceivedMessage | None:
        """As in JobQueue: at most one message, so that nothing waits here while another host is free."""
        answer = self._call(
            "receive_message",
            MaxNumberOfMessages=1,
            WaitTimeSeconds=RECEIVE_WAIT_S,
            MessageSystemAttributeNames=["MessageGroupId"],
        )
        for message in answer.get("Messages", ()):
            group = message.get("Attributes", {}).get("MessageGroupId")
            return ReceivedMessage(message["Body"], message["ReceiptHandle"], group)
        return None

    def send(self, queue_url: str, body: str, *, message_group_id: str | None = None) -> None:
        """As in JobQueue."""
        group_argument = {} if message_group_id is None else {"MessageGroupId": message_group_id}
        self._call("send_message", QueueUrl=queue_url, MessageBody=body, **group_argument)

    def extend_visibility(self, messages: Sequence[ReceivedMessage], *, visibility_timeout_s: int) -> int:
        """As in JobQueue."""
        entries = [
            {"Id": str(number), "ReceiptHandle": message.receipt, "VisibilityTimeout": visibility_timeout_s}
            for number, message in enumerate(messages)
        ]
        answer = self._call("change_message_visibility_batch", Entries=entries)
        return len(answer.get("Failed", ()))

    def delete(self, message: ReceivedMessage) -> None:
        """As in JobQueue."""
        self._call("delete_message", ReceiptHandle=message.receipt)

    def release(self, message: ReceivedMessage) -> None:
        """As in JobQueue."""
        self._call("change_message_visibility", ReceiptHandle=message.receipt, VisibilityTimeout=RECEIVE_WAIT_S + 1)

    def _call(self, operation: str, **arguments: object) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = getattr(self._sqs, operation)(**{"QueueUrl": self._url, **arguments})
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in _NO_SUCH_QUEUE:
                raise NoSuchQueueError(operation) from error
            raise QueueError(operation) from error
        except BotoCoreError as error:
            raise QueueError(operation) from error
        return answer
