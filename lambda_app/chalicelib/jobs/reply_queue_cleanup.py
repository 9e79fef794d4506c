"""Cleans up the reply queues of API processes that have exited. Runs on a schedule."""

import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from chalicelib.contract import ReplyMessage
from chalicelib.jobs.reply_queue import decode_or_drop
from chalicelib.sqs import BATCH_SIZE

if TYPE_CHECKING:
    from types_boto3_sqs import SQSClient

logger = logging.getLogger(__name__)

QUEUE_MAX_AGE_S: Final = 43_200  # a process rotates its queues long before (reply_queue.ROTATE_QUEUE_AFTER_S)
ORPHAN_REPLY_AGE_S: Final = 30  # longer than any wait
TIME_BUDGET_S: Final = 45.0  # below the timeout of the function
MAX_RECEIVES_PER_QUEUE: Final = 50


class ReplyQueueCleanup(Struct, frozen=True):
    """Stores orphaned replies and deletes abandoned queues."""

    sqs: "SQSClient"
    prefix: str
    store_reply: Callable[[ReplyMessage], object]
    clock: Callable[[], float] = time.time

    def run(self) -> None:
        """Clean up all reply queues, in random order, until the time budget is used up."""
        deadline = self.clock() + TIME_BUDGET_S
        urls = list(self._queue_urls())
        random.shuffle(urls)  # in the order of SQS, the last ones might never have their turn
        for url in urls:
            if self.clock() >= deadline:
                logger.warning("reply_queue_cleanup_incomplete")
                return
            try:
                self._clean_queue(url)
            except Exception:  # the next queue may be fine
                logger.exception("reply_queue_cleanup_failed")

    def _queue_urls(self) -> Iterator[str]:
        pages = self.sqs.get_paginator("list_queues").paginate(
            QueueNamePrefix=self.prefix, PaginationConfig={"PageSize": 1000}
        )
        for page in pages:
            yield from page.get("QueueUrls", ())

    def _clean_queue(self, url: str) -> None:
        attributes = self.sqs.get_queue_attributes(
            QueueUrl=url, AttributeNames=["CreatedTimestamp", "ApproximateNumberOfMessages"]
        )["Attributes"]
        is_empty = not int(attributes["ApproximateNumberOfMessages"]) or self._store_orphaned_replies(url)
        if is_empty and float(attributes["CreatedTimestamp"]) <= self.clock() - QUEUE_MAX_AGE_S:
            self.sqs.delete_queue(QueueUrl=url)
            logger.info("reply_queue_deleted")

    def _store_orphaned_replies(self, url: str) -> bool:
        """Return whether the queue is empty afterwards, without replies that a request may still wait for."""
        for _ in range(MAX_RECEIVES_PER_QUEUE):
            response = self.sqs.receive_message(
                QueueUrl=url,
                MaxNumberOfMessages=BATCH_SIZE,
                VisibilityTimeout=0,  # a live process still receives its own replies
                WaitTimeSeconds=0,
                MessageSystemAttributeNames=["SentTimestamp"],
            )
            messages = response.get("Messages", [])
            orphaned = [message for message in messages if self._is_orphaned(message)]
            if not orphaned:
                return not messages
            for message in orphaned:
                if reply := decode_or_drop(message):
                    self.store_reply(reply)
                    logger.info("orphaned_reply_stored", extra={"job_id": reply.id})
                self.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return False

    def _is_orphaned(self, message: Mapping[str, Any]) -> bool:
        return int(message["Attributes"]["SentTimestamp"]) / 1000 <= self.clock() - ORPHAN_REPLY_AGE_S
