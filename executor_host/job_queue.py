"""The agent's side of SQS: take jobs, reply, acknowledge. Nothing here knows what a job is."""

from typing import Any, Final, Protocol

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from msgspec import Struct

# A stopping agent waits for the polls under way, since a job may be in the answer. A shorter wait makes more requests:
# an idle worker makes 1.3 million of them in a month, 0.52 USD.
RECEIVE_WAIT_S: Final = 2
_NO_SUCH_QUEUE: Final = ("AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist")


class QueueError(Exception):
    """The queue service could not be reached or did not take the request. Trying again may help."""


class NoSuchQueueError(QueueError):
    """There is no queue of that URL: gone, or so new that not all of SQS knows it."""


class Delivery(Struct, frozen=True):
    """A message in flight: ours until its visibility timeout ends."""

    body: str
    receipt: str


class JobQueue(Protocol):
    """What the agent needs of a queue; safe for many threads."""

    def receive(self) -> Delivery | None:
        """Wait a while for a message. Raises QueueError."""

    def reply(self, reply_to: str, body: str) -> None:
        """Send to the queue of that URL. Raises QueueError, NoSuchQueueError."""

    def delete(self, delivery: Delivery) -> None:
        """Acknowledge. Raises QueueError."""

    def give_back(self, delivery: Delivery) -> None:
        """Let somebody else have it at once. Raises QueueError."""


class SqsJobQueue:
    """A JobQueue on SQS, for up to `workers` threads. Region, endpoint and credentials come from the environment."""

    def __init__(self, url: str, *, workers: int) -> None:
        """`url` of the job queue."""
        self._url = url
        config = Config(
            connect_timeout=5,
            read_timeout=RECEIVE_WAIT_S + 10,
            max_pool_connections=2 * workers,
            retries={"mode": "standard", "max_attempts": 2},
            tcp_keepalive=True,
        )
        self._sqs: Any = boto3.client("sqs", config=config)

    def receive(self) -> Delivery | None:
        """As in JobQueue: at most one message, so that nothing waits here while another host is free."""
        answer = self._call("receive_message", MaxNumberOfMessages=1, WaitTimeSeconds=RECEIVE_WAIT_S)
        for message in answer.get("Messages", ()):
            return Delivery(message["Body"], message["ReceiptHandle"])
        return None

    def reply(self, reply_to: str, body: str) -> None:
        """As in JobQueue."""
        self._call("send_message", QueueUrl=reply_to, MessageBody=body)

    def delete(self, delivery: Delivery) -> None:
        """As in JobQueue."""
        self._call("delete_message", ReceiptHandle=delivery.receipt)

    def give_back(self, delivery: Delivery) -> None:
        """As in JobQueue."""
        self._call("change_message_visibility", ReceiptHandle=delivery.receipt, VisibilityTimeout=0)

    def _call(self, operation: str, **arguments: str | int) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = getattr(self._sqs, operation)(**{"QueueUrl": self._url, **arguments})
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in _NO_SUCH_QUEUE:
                raise NoSuchQueueError(operation) from error
            raise QueueError(operation) from error
        except BotoCoreError as error:
            raise QueueError(operation) from error
        return answer
