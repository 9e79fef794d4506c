"""Looks after the reply queues of processes that are gone. Called on a schedule."""

import logging
import random
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from chalicelib.contract import ContractError, Reply, decode_reply

log = logging.getLogger(__name__)

ABANDONED_S: Final = 43_200  # a queue this old; a process makes another long before (replies.RETIRED_S)
UNFETCHED_S: Final = 30  # above any wait: nobody comes for a reply this old
RUN_S: Final = 45.0  # of one call, below the time limit of its function
BATCH: Final = 10
MAX_PEEKS: Final = 50  # at one queue


class Housekeeping:
    """Stores replies that nobody fetched and deletes queues that nobody uses."""

    def __init__(
        self,
        sqs: Any,  # noqa: ANN401 - boto3's client has no type
        *,
        prefix: str,
        settle: Callable[[Reply], object],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`prefix` of the reply queues' names."""
        self._sqs = sqs
        self._prefix = prefix
        self._settle = settle
        self._clock = clock

    def run(self) -> None:
        """Goes through all reply queues, in any order, until they are done or the time is up."""
        deadline = self._clock() + RUN_S
        urls = list(self._queues())
        random.shuffle(urls)  # each call begins anew: in SQS's order the last ones might never have a turn
        for url in urls:
            if self._clock() >= deadline:
                log.warning("reply_queue_cleanup_incomplete")
                return
            try:
                self._look_after(url)
            except Exception:  # the next one may be well
                log.exception("reply_queue_cleanup_failed")

    def _queues(self) -> Iterator[str]:
        pages = self._sqs.get_paginator("list_queues").paginate(
            QueueNamePrefix=self._prefix, PaginationConfig={"PageSize": 1000}
        )
        for page in pages:
            yield from page.get("QueueUrls", ())

    def _look_after(self, url: str) -> None:
        wanted = ["CreatedTimestamp", "ApproximateNumberOfMessages"]
        found = self._sqs.get_queue_attributes(QueueUrl=url, AttributeNames=wanted)["Attributes"]
        is_empty = not int(found["ApproximateNumberOfMessages"]) or self._store_unfetched(url)
        if is_empty and float(found["CreatedTimestamp"]) <= self._clock() - ABANDONED_S:
            self._sqs.delete_queue(QueueUrl=url)
            log.info("reply_queue_deleted")

    def _store_unfetched(self, url: str) -> bool:
        """Whether nothing is left, not even for somebody who still waits."""
        for _ in range(MAX_PEEKS):
            # Only a look: a process that lives still receives what is its own.
            answer = self._sqs.receive_message(
                QueueUrl=url,
                MaxNumberOfMessages=BATCH,
                VisibilityTimeout=0,
                WaitTimeSeconds=0,
                MessageSystemAttributeNames=["SentTimestamp"],
            )
            messages = answer.get("Messages", ())
            old = [message for message in messages if self._is_unfetched(message)]
            if not old:
                return not messages
            for message in old:
                self._store(message)
                self._sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return False

    def _is_unfetched(self, message: dict[str, Any]) -> bool:
        return int(message["Attributes"]["SentTimestamp"]) / 1000 <= self._clock() - UNFETCHED_S

    def _store(self, message: dict[str, Any]) -> None:
        try:
            reply = decode_reply(message["Body"])
        except ContractError:
            log.warning("malformed_reply_dropped", extra={"message_id": message["MessageId"]}, exc_info=True)
            return
        self._settle(reply)
        log.info("orphaned_reply_stored", extra={"job_id": reply.id})
