"""Fake the job queue of an agent."""

from collections import defaultdict
from collections.abc import Sequence
from queue import Empty, SimpleQueue

from executor_host.job_queue import MAX_BATCH_SIZE, ReceivedMessage


class FakeJobQueue:
    """Keep messages in memory; a received message is redelivered only after `release`."""

    def __init__(self, wait_s: float = 0.05) -> None:
        self._wait_s = wait_s
        self._visible: SimpleQueue[tuple[str, str | None]] = SimpleQueue()
        self._sent: defaultdict[str, SimpleQueue[str]] = defaultdict(SimpleQueue)
        self.deleted: list[ReceivedMessage] = []
        self.released: list[ReceivedMessage] = []
        self.pauses_s: list[int] = []  # of each released message
        self.extended: list[tuple[str, int]] = []  # body and new visibility timeout of each extended message
        self.groups: dict[str, str | None] = {}  # message group of each sent body
        self.waits_s: list[int] = []  # of each poll
        self.failures: defaultdict[str, list[Exception]] = defaultdict(
            list
        )  # errors that the next calls of a method raise, one each

    def enqueue(self, body: str, group: str | None = None) -> None:
        self._visible.put((body, group))

    def wait_for_sent(self, queue_url: str, timeout_s: float = 30) -> str:
        return self._sent[queue_url].get(timeout=timeout_s)

    def receive(self, *, wait_s: int) -> ReceivedMessage | None:
        self._fail("receive")
        self.waits_s.append(wait_s)
        try:
            body, group = self._visible.get(timeout=self._wait_s)
        except Empty:
            return None
        return ReceivedMessage(body, receipt=f"receipt of {body[:100]}", message_group_id=group)

    def send(self, queue_url: str, body: str, *, message_group_id: str | None = None) -> None:
        self._fail(f"send to {queue_url}")
        self.groups[body] = message_group_id
        self._sent[queue_url].put(body)

    def extend_visibility(self, messages: Sequence[ReceivedMessage], *, visibility_timeout_s: int) -> int:
        assert len(messages) <= MAX_BATCH_SIZE
        self.extended += [(message.body, visibility_timeout_s) for message in messages]
        self._fail("extend_visibility")
        return 0

    def delete(self, message: ReceivedMessage) -> None:
        self._fail("delete")
        self.deleted.append(message)

    def release(self, message: ReceivedMessage, *, pause_s: int = 0) -> None:
        self._fail("release")
        self.released.append(message)
        self.pauses_s.append(pause_s)
        self._visible.put((message.body, message.message_group_id))

    def _fail(self, method: str) -> None:
        if self.failures[method]:
            raise self.failures[method].pop(0)
