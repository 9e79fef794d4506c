# ruff: noqa: N803  # the arguments have boto3's names
"""Fake the parts of boto3's SQS client that the API uses.

tests/integration/test_fake_sqs.py runs the same tests on the fake and on the emulator.
"""

import itertools
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from botocore.exceptions import ClientError


def client_error(code: str, operation: str = "Operation") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": code}}, operation)


@dataclass
class FakeMessage:
    id: str
    body: str
    group: str | None = None
    visible_at: float = 0.0
    delay_s: int = 0
    receipt: str | None = None
    sent_at: float = field(default_factory=time.time)


@dataclass
class FakeQueue:
    attributes: dict[str, str] = field(default_factory=dict)
    messages: list[FakeMessage] = field(default_factory=list)
    created_at: float = field(default_factory=time.time)


class FakeSqs:
    """Standard queues with long polls, visibility timeouts and receipts. It never delivers duplicates by itself."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._ids = itertools.count()
        self.queues: dict[str, FakeQueue] = {}
        self.calls: Counter[str] = Counter()
        self.failures: dict[str, list[Exception]] = defaultdict(list)  # raised by the next calls, one each

    def create_queue(self, *, QueueName: str, Attributes: Mapping[str, str]) -> dict[str, Any]:
        with self._changed:
            self._record_call("create_queue")
            url = f"http://sqs.test/000000000000/{QueueName}"
            self.queues.setdefault(url, FakeQueue(dict(Attributes)))
            return {"QueueUrl": url}

    def delete_queue(self, *, QueueUrl: str) -> None:
        with self._changed:
            self._record_call("delete_queue")
            self._queue(QueueUrl)
            del self.queues[QueueUrl]
            self._changed.notify_all()

    def send_message(
        self, *, QueueUrl: str, MessageBody: str, MessageGroupId: str | None = None, DelaySeconds: int = 0
    ) -> dict[str, Any]:
        with self._changed:
            self._record_call("send_message")
            message = FakeMessage(
                id=f"message-{next(self._ids)}",
                body=MessageBody,
                group=MessageGroupId,
                visible_at=time.monotonic() + DelaySeconds if DelaySeconds else 0.0,
                delay_s=DelaySeconds,
            )
            self._queue(QueueUrl).messages.append(message)
            self._changed.notify_all()
            return {"MessageId": message.id}

    def receive_message(
        self,
        *,
        QueueUrl: str,
        MaxNumberOfMessages: int = 1,
        WaitTimeSeconds: int = 0,
        VisibilityTimeout: float | None = None,
        MessageSystemAttributeNames: Collection[str] = (),
    ) -> dict[str, Any]:
        deadline = time.monotonic() + WaitTimeSeconds
        with self._changed:
            self._record_call("receive_message")
            while not (messages := self._visible(QueueUrl)[:MaxNumberOfMessages]):
                remaining_s = deadline - time.monotonic()
                if remaining_s <= 0:
                    return {}
                self._changed.wait(remaining_s)
            visibility_s = VisibilityTimeout
            if visibility_s is None:
                visibility_s = float(self.queues[QueueUrl].attributes.get("VisibilityTimeout", "30"))
            for message in messages:
                message.visible_at = time.monotonic() + visibility_s
                message.receipt = f"receipt-{next(self._ids)}"
            return {"Messages": [self._received(message, MessageSystemAttributeNames) for message in messages]}

    def _received(self, message: FakeMessage, names: Collection[str]) -> dict[str, Any]:
        received: dict[str, Any] = {"MessageId": message.id, "ReceiptHandle": message.receipt, "Body": message.body}
        if "SentTimestamp" in names:
            received["Attributes"] = {"SentTimestamp": str(int(message.sent_at * 1000))}
        return received

    def change_message_visibility(self, *, QueueUrl: str, ReceiptHandle: str, VisibilityTimeout: int) -> dict[str, Any]:
        with self._changed:
            self._record_call("change_message_visibility")
            for message in self._queue(QueueUrl).messages:
                if message.receipt == ReceiptHandle:
                    message.visible_at = time.monotonic() + VisibilityTimeout
            self._changed.notify_all()
            return {}

    def delete_message(self, *, QueueUrl: str, ReceiptHandle: str) -> dict[str, Any]:
        with self._changed:
            self._record_call("delete_message")
            queue = self._queue(QueueUrl)
            queue.messages = [message for message in queue.messages if message.receipt != ReceiptHandle]
            return {}

    def get_paginator(self, operation: str) -> Self:
        assert operation == "list_queues"
        return self

    def paginate(self, *, QueueNamePrefix: str, PaginationConfig: Mapping[str, int]) -> list[dict[str, list[str]]]:
        with self._changed:
            self._record_call("list_queues")
            urls = [url for url in self.queues if url.rsplit("/", 1)[1].startswith(QueueNamePrefix)]
        size = PaginationConfig["PageSize"]
        return [{"QueueUrls": urls[at : at + size]} for at in range(0, len(urls), size)] or [{}]

    def delete_message_batch(self, *, QueueUrl: str, Entries: Sequence[Mapping[str, str]]) -> dict[str, Any]:
        with self._changed:
            self._record_call("delete_message_batch")
            queue = self._queue(QueueUrl)
            receipts = {entry["ReceiptHandle"] for entry in Entries}
            queue.messages = [message for message in queue.messages if message.receipt not in receipts]
            return {"Successful": [{"Id": entry["Id"]} for entry in Entries]}

    def get_queue_attributes(self, *, QueueUrl: str, AttributeNames: Sequence[str]) -> dict[str, Any]:
        with self._changed:
            self._record_call("get_queue_attributes")
            visible = len(self._visible(QueueUrl))
            attributes = {
                "ApproximateNumberOfMessages": visible,
                "ApproximateNumberOfMessagesNotVisible": len(self._queue(QueueUrl).messages) - visible,
                "CreatedTimestamp": self._queue(QueueUrl).created_at,  # whole seconds on AWS, not on the emulator
            }
            return {"Attributes": {name: str(attributes[name]) for name in AttributeNames}}

    def _record_call(self, operation: str) -> None:
        self.calls[operation] += 1
        self._changed.notify_all()
        if self.failures[operation]:
            raise self.failures[operation].pop(0)

    def wait_for_calls(self, operation: str, *, count: int, timeout_s: float = 5) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.calls[operation] >= count, timeout_s), self.calls

    def _queue(self, url: str) -> FakeQueue:
        if url not in self.queues:
            raise client_error("AWS.SimpleQueueService.NonExistentQueue")
        return self.queues[url]

    def _visible(self, url: str) -> list[FakeMessage]:
        return [m for m in self._queue(url).messages if m.visible_at <= time.monotonic()]
