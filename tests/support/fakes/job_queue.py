"""Fake the job queue of an agent."""

from collections import defaultdict
from queue import Empty, SimpleQueue

from executor_host.job_queue import MAX_BATCH_SIZE, ReceivedMessage


class FakeJobQueue:
    """Keep messages in memory; a received message is redelivered only after `release`."""

    def __init__(self, wait_s=0.05):
        self._wait_s = wait_s
        self._visible = SimpleQueue()
        self._sent = defaultdict(SimpleQueue)
        self.deleted = []
        self.released = []
        self.extended = []  # body and new visibility timeout of each extended message
        self.groups = {}  # message group of each sent body
        self.failures = defaultdict(list)  # errors that the next calls of a method raise, one each

    def enqueue(self, body, group=None):
        self._visible.put((body, group))

    def wait_for_sent(self, queue_url, timeout_s=30):
        return self._sent[queue_url].get(timeout=timeout_s)

    def receive(self):
        self._fail("receive")
        try:
            body, group = self._visible.get(timeout=self._wait_s)
        except Empty:
            return None
        return ReceivedMessage(body, receipt=f"receipt of {body[:100]}", message_group_id=group)

    def send(self, queue_url, body, *, message_group_id=None):
        self._fail(f"send to {queue_url}")
        self.groups[body] = message_group_id
        self._sent[queue_url].put(body)

    def extend_visibility(self, messages, *, visibility_timeout_s):
        assert len(messages) <= MAX_BATCH_SIZE
        self.extended += [(message.body, visibility_timeout_s) for message in messages]
        self._fail("extend_visibility")
        return 0

    def delete(self, message):
        self._fail("delete")
        self.deleted.append(message)

    def release(self, message):
        self._fail("release")
        self.released.append(message)
        self._visible.put((message.body, message.message_group_id))

    def _fail(self, method):
        if self.failures[method]:
            raise self.failures[method].pop(0)
