"""The reply queue of this process. Lambda freezes background threads, so one who waits polls for all."""

import logging
import threading
import time
import uuid
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Protocol

from botocore.exceptions import BotoCoreError, ClientError
from msgspec import Struct

from chalicelib.contract import ContractError, Reply, decode_reply

log = logging.getLogger(__name__)

LONG_POLL_S: Final = 20  # the longest that SQS waits
LATE_AGAIN_S: Final = 10  # until a late reply that could not be stored is received again
PAUSE_S: Final = 0.1  # between polls that cannot wait: SQS counts whole seconds, or just failed
BATCH: Final = 10  # messages in one SQS call
NEW_QUEUE_S: Final = 5.0  # a queue this young may still be unknown to parts of SQS
MAX_REMEMBERED: Final = 1000  # job ids of about a hundred bytes
RETIRED_S: Final = 21_600  # long before housekeeping takes a queue this old for abandoned, this process makes another
ATTRIBUTES: Final = {
    "MessageRetentionPeriod": "3600",
    "VisibilityTimeout": "15",  # then a reply comes again whose poll broke on the way
    "ReceiveMessageWaitTimeSeconds": str(LONG_POLL_S),
    "SqsManagedSseEnabled": "true",
}
_GONE: Final = frozenset({"QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue"})


class ReplyQueueError(Exception):
    """The reply queue could not be created."""


class Sqs(Protocol):
    """What is used of boto3's client."""

    def create_queue(self, *, QueueName: str, Attributes: Mapping[str, str]) -> dict[str, Any]:  # noqa: N803
        """https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_CreateQueue.html."""

    def receive_message(
        self,
        *,
        QueueUrl: str,  # noqa: N803
        MaxNumberOfMessages: int,  # noqa: N803
        WaitTimeSeconds: int,  # noqa: N803
    ) -> dict[str, Any]:
        """https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ReceiveMessage.html."""

    def change_message_visibility(
        self,
        *,
        QueueUrl: str,  # noqa: N803
        ReceiptHandle: str,  # noqa: N803
        VisibilityTimeout: int,  # noqa: N803
    ) -> dict[str, Any]:
        """https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ChangeMessageVisibility.html."""

    def delete_message_batch(
        self,
        *,
        QueueUrl: str,  # noqa: N803
        Entries: Sequence[Mapping[str, str]],  # noqa: N803
    ) -> dict[str, Any]:
        """https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_DeleteMessageBatch.html."""


class _Queue(Struct, frozen=True):
    url: str
    created_at: float


class ReplyQueue:
    """Hands each reply to the thread that waits for it. Any number of threads may wait at once."""

    def __init__(
        self,
        sqs: Sqs,
        *,
        polls: Sqs,
        prefix: str,
        settle_late: Callable[[Reply], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`polls` is for calls that take LONG_POLL_S, `prefix` of the queue's name.

        `settle_late` takes the replies that nobody waits for any more.
        """
        self._sqs = sqs
        self._polls = polls
        self._prefix = prefix
        self._settle_late = settle_late
        self._clock = clock
        self._creating = threading.Lock()
        self._queue: _Queue | None = None
        self._changed = threading.Condition()  # guards everything below
        self._polling = False
        self._expected: set[str] = set()
        self._arrived: dict[str, Reply] = {}
        self._receipts: list[tuple[str, str]] = []  # of messages that were taken care of, by job
        self._overdue: OrderedDict[str, None] = OrderedDict()  # jobs whose replies were waited for in vain
        self._done: OrderedDict[str, None] = OrderedDict()  # jobs whose replies were taken care of; they may come again
        self.dropped: Counter[str] = Counter()  # replies that nobody waited for, by reason

    def url(self) -> str:
        """Where jobs are answered from now on; the queue is created if there is none. Raises ReplyQueueError."""
        queue = self._current()
        with self._changed:
            is_over = self._clock() - queue.created_at > RETIRED_S and not self._expected
        if is_over:
            self._replace(queue)
        return self._current().url

    @contextmanager
    def expecting(self, job_id: str) -> Iterator[None]:
        """Keeps a reply to this job from being dropped. Enter before the job is sent."""
        with self._changed:
            self._expected.add(job_id)
        try:
            yield
        finally:
            with self._changed:
                self._expected.discard(job_id)
                untaken = self._arrived.pop(job_id, None)
            if untaken is not None:  # it came at the very end of the wait
                self._settle_late(untaken)

    def wait(self, job_id: str, *, deadline: float) -> Reply:
        """The reply to an expected job. Raises TimeoutError at `deadline`, a time of the clock."""
        left_s = deadline - self._clock()
        while left_s > 0:
            with self._changed:
                if left_s < 1:  # too short for a long poll; somebody else may hold one meanwhile
                    self._changed.wait_for(lambda: job_id in self._arrived, min(left_s, PAUSE_S))
                self._changed.wait_for(lambda: job_id in self._arrived or not self._polling, deadline - self._clock())
                if job_id in self._arrived or self._polling:
                    break
                self._polling = True
            self._poll(deadline)
            left_s = deadline - self._clock()
        with self._changed:
            if job_id not in self._arrived:
                _remember(self._overdue, job_id)
                raise TimeoutError
            return self._arrived.pop(job_id)

    def arrived(self, job_id: str) -> Reply | None:
        """The reply to an expected job if it is there; one that comes after this call is a late one."""
        with self._changed:
            self._expected.discard(job_id)
            return self._arrived.pop(job_id, None)

    def put_back(self, job_id: str) -> None:
        """Lets a reply that was handed out come again, as a late one: who took it could not keep it."""
        with self._changed:
            self._done.pop(job_id, None)
            _remember(self._overdue, job_id)
            self._receipts = [(owner, receipt) for owner, receipt in self._receipts if owner != job_id]

    def look_for(self, job_id: str) -> None:
        """Takes what is in the queue, if this process waited for that reply in vain and nobody is polling."""
        with self._changed:
            if job_id not in self._overdue or self._polling:
                return
            self._polling = True
        self._poll(self._clock())

    def _current(self) -> _Queue:
        with self._creating:
            if self._queue is None:
                name = self._prefix + uuid.uuid4().hex
                try:
                    url = self._sqs.create_queue(QueueName=name, Attributes=ATTRIBUTES)["QueueUrl"]
                except (BotoCoreError, ClientError) as error:
                    raise ReplyQueueError(name) from error
                self._queue = _Queue(url, self._clock())
                log.info("reply_queue_created", extra={"queue": name})
            return self._queue

    def _poll(self, deadline: float) -> None:
        late = []
        try:
            self._delete_handled()
            messages = self._receive(deadline)
            with self._changed:
                late = [(reply, message) for message in messages if (reply := self._hand_out(message))]
        finally:
            with self._changed:
                self._polling = False
                self._changed.notify_all()
        for reply, message in late:
            self._settle(reply, message)

    def _receive(self, deadline: float) -> list[dict[str, Any]]:
        queue = None
        try:
            queue = self._current()
            wait_s = min(LONG_POLL_S, max(0, int(deadline - self._clock())))
            answer = self._polls.receive_message(QueueUrl=queue.url, MaxNumberOfMessages=BATCH, WaitTimeSeconds=wait_s)
        except (BotoCoreError, ClientError, ReplyQueueError) as error:
            log.warning("reply_poll_failed", exc_info=True)
            if queue and _is_gone(error) and self._clock() - queue.created_at > NEW_QUEUE_S:
                self._replace(queue)
            time.sleep(max(0.0, min(PAUSE_S, deadline - self._clock())))
            return []
        messages: list[dict[str, Any]] = answer.get("Messages", [])
        return messages

    def _replace(self, old: _Queue) -> None:
        with self._creating:
            if self._queue is old:
                self._queue = None
        with self._changed:
            self._receipts.clear()

    def _hand_out(self, message: Mapping[str, Any]) -> Reply | None:
        """The reply in a message if it is late: nobody waits for it, and it was not taken care of before."""
        try:
            reply = decode_reply(message["Body"])
        except ContractError as error:
            self._receipts.append(("", message["ReceiptHandle"]))
            self.dropped["undecodable"] += 1
            log.warning("malformed_reply_dropped", extra={"message_id": message["MessageId"], "why": str(error)})
            return None
        self._overdue.pop(reply.id, None)
        is_done = reply.id in self._done
        if reply.id not in self._expected and not is_done:
            return reply
        self._receipts.append((reply.id, message["ReceiptHandle"]))
        if not is_done:
            self._arrived[reply.id] = reply
            _remember(self._done, reply.id)
        return None

    def _settle(self, reply: Reply, message: Mapping[str, Any]) -> None:
        try:
            self._settle_late(reply)
        except Exception:  # the request that polls is another customer's
            log.exception("late_reply_store_failed", extra={"late_job_id": reply.id})
            self._receive_again(message)
            return
        self.dropped["late"] += 1
        log.info("late_reply", extra={"late_job_id": reply.id})
        with self._changed:
            self._receipts.append((reply.id, message["ReceiptHandle"]))
            _remember(self._done, reply.id)

    def _receive_again(self, message: Mapping[str, Any]) -> None:
        try:
            self._sqs.change_message_visibility(
                QueueUrl=self.url(), ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=LATE_AGAIN_S
            )
        except (BotoCoreError, ClientError, ReplyQueueError):
            log.warning("late_reply_requeue_failed", exc_info=True)

    def _delete_handled(self) -> None:
        # While the next job runs, so that no reply waits for it; only whole batches: a tenth of the calls.
        with self._changed:
            if len(self._receipts) < BATCH:
                return
            receipts, self._receipts = self._receipts[:BATCH], self._receipts[BATCH:]
        entries = [{"Id": str(n), "ReceiptHandle": receipt} for n, (_, receipt) in enumerate(receipts)]
        try:
            self._sqs.delete_message_batch(QueueUrl=self.url(), Entries=entries)
        except (BotoCoreError, ClientError, ReplyQueueError):
            log.warning("reply_delete_failed", exc_info=True)  # they expire


def _remember(jobs: OrderedDict[str, None], job_id: str) -> None:
    jobs[job_id] = None
    if len(jobs) > MAX_REMEMBERED:
        jobs.popitem(last=False)


def _is_gone(error: Exception) -> bool:
    return isinstance(error, ClientError) and error.response.get("Error", {}).get("Code") in _GONE
