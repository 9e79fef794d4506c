"""Reply queues, each leased to one request at a time. A Lambda process serves one request, so it has one queue."""

import logging
import random
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from chalicelib import problems
from chalicelib.contract import ContractError, ReplyMessage, decode_reply
from chalicelib.problems import ProblemError
from chalicelib.sqs import BATCH_SIZE, LONG_POLL_S, is_missing_queue, is_throttled

if TYPE_CHECKING:
    from types_boto3_sqs import SQSClient
    from types_boto3_sqs.literals import QueueAttributeNameType

_T = TypeVar("_T")
logger = logging.getLogger(__name__)

LATE_REPLY_RETRY_S: Final = 10  # until a late reply that could not be stored is received again
DELETE_DELAY_S: Final = 5.0  # below ORPHAN_REPLY_AGE_S, after which the clean-up takes a reply for orphaned
POLL_PAUSE_S: Final = 0.1  # between polls that cannot wait: SQS counts whole seconds, or just failed
QUEUE_PROPAGATION_S: Final = 5.0  # in which parts of SQS may not know a new queue
MAX_TRACKED_JOBS: Final = 1000  # job ids of about a hundred bytes
# A burst of new processes may exceed the rate of CreateQueue. The waits add up to 1.5 s, which the longest wait for a
# result leaves within the time limit of API Gateway, and a request is charged only afterwards.
CREATE_RETRY_DELAYS_S: Final = (0.1, 0.2, 0.4, 0.8)
ROTATE_QUEUE_AFTER_S: Final = 21_600  # long before the clean-up takes a queue this old for abandoned
ATTRIBUTES: Final[Mapping["QueueAttributeNameType", str]] = {
    "MessageRetentionPeriod": "3600",
    "VisibilityTimeout": "15",  # after which a reply is redelivered whose poll was interrupted
    "ReceiveMessageWaitTimeSeconds": str(LONG_POLL_S),
    "SqsManagedSseEnabled": "true",
}


class ReplyQueue:
    """One reply queue. For one thread at a time."""

    def __init__(self, url: str, queues: "ReplyQueues") -> None:
        self.url = url
        self.created_at = queues.clock()
        self.is_missing = False
        self._queues = queues
        self._receipts: list[str] = []  # of messages that are to be deleted
        self._delete_at = 0.0  # at the latest, with the next request
        self._current: tuple[str, str] | None = None  # job id and receipt of the reply that was returned
        self._processed: OrderedDict[str, None] = OrderedDict()  # jobs whose replies may be redelivered

    def wait(self, job_id: str, *, deadline: float) -> ReplyMessage | None:
        """Return the reply to a job. Return None at `deadline`, a time of the clock, or if the queue is missing."""
        self._current = None
        # While the next job runs. A busy process deletes whole batches, which takes a tenth of the calls.
        if len(self._receipts) >= BATCH_SIZE or self._queues.clock() >= self._delete_at:
            self.delete_processed()
        while not self.is_missing and (remaining_s := deadline - self._queues.clock()) > 0:
            wait_s = min(LONG_POLL_S, int(remaining_s))
            if reply := self.receive(job_id, wait_s=wait_s):
                return reply
            if wait_s == 0:
                time.sleep(min(POLL_PAUSE_S, remaining_s))
        return None

    def receive(self, job_id: str | None, *, wait_s: int) -> ReplyMessage | None:
        """Process one batch of messages, and return the reply to this job if it is among them."""
        own_reply = None
        for message in self._receive(wait_s):
            reply = decode_or_drop(message)
            if reply is None or reply.id in self._processed:
                self._delete_later(message["ReceiptHandle"])
            elif reply.id == job_id:
                own_reply, self._current = reply, (reply.id, message["ReceiptHandle"])
            else:
                self._process_late_reply(reply, message)
        return own_reply

    def acknowledge(self) -> bool:
        """Let the reply that was returned be deleted, and return whether there was one. Otherwise it is redelivered."""
        if self._current is None:
            return False
        self._mark_processed(*self._current)
        self._current = None
        return True

    def delete_processed(self) -> None:
        """Delete up to ten messages that were processed."""
        if not self._receipts:
            return
        receipts, self._receipts = self._receipts[:BATCH_SIZE], self._receipts[BATCH_SIZE:]
        try:
            self._queues.sqs.delete_message_batch(
                QueueUrl=self.url,
                Entries=[{"Id": str(number), "ReceiptHandle": receipt} for number, receipt in enumerate(receipts)],
            )
        except (BotoCoreError, ClientError):
            logger.warning("reply_delete_failed", exc_info=True)  # they expire

    def _receive(self, wait_s: int) -> list[Mapping[str, Any]]:
        try:
            response = self._queues.long_poll_sqs.receive_message(
                QueueUrl=self.url, MaxNumberOfMessages=BATCH_SIZE, WaitTimeSeconds=wait_s
            )
        except (BotoCoreError, ClientError) as error:
            logger.warning("reply_poll_failed", exc_info=True)
            self.is_missing = is_missing_queue(error) and self._queues.clock() - self.created_at > QUEUE_PROPAGATION_S
            time.sleep(POLL_PAUSE_S if wait_s else 0)
            return []
        return list(response.get("Messages", []))

    def _process_late_reply(self, reply: ReplyMessage, message: Mapping[str, Any]) -> None:
        try:
            self._queues.on_late_reply(reply)
        except Exception:  # the request that polls is another customer's
            logger.exception("late_reply_store_failed", extra={"late_job_id": reply.id})
            self._shorten_visibility(message)
            return
        logger.info("late_reply", extra={"late_job_id": reply.id})
        self._mark_processed(reply.id, message["ReceiptHandle"])

    def _shorten_visibility(self, message: Mapping[str, Any]) -> None:
        try:
            self._queues.sqs.change_message_visibility(
                QueueUrl=self.url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=LATE_REPLY_RETRY_S
            )
        except (BotoCoreError, ClientError):
            logger.warning("late_reply_requeue_failed", exc_info=True)

    def _mark_processed(self, job_id: str, receipt: str) -> None:
        self._delete_later(receipt)
        _add_bounded(self._processed, job_id, None)

    def _delete_later(self, receipt: str) -> None:
        if not self._receipts:
            self._delete_at = self._queues.clock() + DELETE_DELAY_S
        self._receipts.append(receipt)


class ReplyQueues:
    """The reply queues of this process. Thread-safe."""

    def __init__(
        self,
        sqs: "SQSClient",
        *,
        long_poll_sqs: "SQSClient",
        prefix: str,
        on_late_reply: Callable[[ReplyMessage], object],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """Name queues with `prefix`, and pass replies that no request waits for to `on_late_reply`."""
        self.sqs = sqs
        self.long_poll_sqs = long_poll_sqs
        self._prefix = prefix
        self.on_late_reply = on_late_reply
        self.clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()  # guards the two below
        self._idle: list[ReplyQueue] = []
        self._late_jobs: OrderedDict[str, ReplyQueue] = OrderedDict()  # where the reply to a job may still arrive

    @contextmanager
    def lease(self, job_id: str) -> Iterator[ReplyQueue]:
        """Lease a queue for one job, whose reply is redelivered if the block raises. Raise ProblemError without one."""
        queue = self._take_idle() or self._create()
        has_reply = False
        try:
            yield queue
            has_reply = queue.acknowledge()
        finally:
            with self._lock:
                if not queue.is_missing:
                    self._idle.append(queue)
                if not has_reply:
                    _add_bounded(self._late_jobs, job_id, queue)

    def poll_for_late_reply(self, job_id: str) -> None:
        """Store the reply to a job that this process stopped waiting for, if it has arrived and its queue is idle."""
        with self._lock:
            queue = self._late_jobs.get(job_id)
            if queue is None or queue not in self._idle:
                return
            self._idle.remove(queue)
        try:
            queue.receive(None, wait_s=0)
        finally:
            with self._lock:
                self._idle.append(queue)

    def delete_processed(self) -> None:
        """Delete the replies of idle queues now, for a process that may serve no further request soon."""
        with self._lock:
            queues = list(self._idle)
        for queue in queues:
            queue.delete_processed()

    def _take_idle(self) -> ReplyQueue | None:
        with self._lock:
            while self._idle:
                queue = self._idle.pop()
                if self.clock() - queue.created_at <= ROTATE_QUEUE_AFTER_S:
                    return queue
        return None

    def _create(self) -> ReplyQueue:
        name = self._prefix + uuid.uuid4().hex
        for delay_s in (*CREATE_RETRY_DELAYS_S, None):
            try:
                url = self.sqs.create_queue(QueueName=name, Attributes=ATTRIBUTES)["QueueUrl"]
            except (BotoCoreError, ClientError) as error:
                if delay_s is None or not is_throttled(error):
                    logger.exception("reply_queue_failed")
                    raise ProblemError(problems.JOB_QUEUE_UNAVAILABLE) from error
                self._sleep(random.uniform(delay_s / 2, delay_s))  # noqa: S311 - so that processes do not retry at once
            else:
                break
        logger.info("reply_queue_created", extra={"queue": name})
        return ReplyQueue(url, self)


def decode_or_drop(message: Mapping[str, Any]) -> ReplyMessage | None:
    """Return the reply in a message, or None, with a log line, if it is malformed."""
    try:
        return decode_reply(message["Body"])
    except ContractError as error:
        logger.warning("malformed_reply_dropped", extra={"message_id": message["MessageId"], "reason": str(error)})
        return None


def _add_bounded(entries: OrderedDict[str, _T], job_id: str, value: _T) -> None:
    entries[job_id] = value
    if len(entries) > MAX_TRACKED_JOBS:
        entries.popitem(last=False)
