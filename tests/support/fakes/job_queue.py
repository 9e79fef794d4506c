"""Fake the job queue of an agent."""

from collections import defaultdict
from queue import Empty, SimpleQueue

from executor_host.job_queue import BATCH, Delivery


class FakeJobQueue:
    """A JobQueue in memory: what is received comes again only when it is given back."""

    def __init__(self, wait_s=0.05):
        self._wait_s = wait_s
        self._waiting = SimpleQueue()
        self._sent = defaultdict(SimpleQueue)
        self.deleted = []
        self.given_back = []
        self.held = []  # what was prolonged, and for how long
        self.groups = {}  # of what was sent, by its body
        self.failures = defaultdict(list)  # raised by the next calls of a method, one each

    def put(self, body, group=None):
        self._waiting.put((body, group))

    def next_sent(self, queue_url, timeout_s=30):
        return self._sent[queue_url].get(timeout=timeout_s)

    def receive(self):
        self._fail("receive")
        try:
            body, group = self._waiting.get(timeout=self._wait_s)
        except Empty:
            return None
        return Delivery(body, receipt=f"receipt of {body[:100]}", group=group)

    def send(self, queue_url, body, *, group=None):
        self._fail(f"send to {queue_url}")
        self.groups[body] = group
        self._sent[queue_url].put(body)

    def hold(self, deliveries, *, for_s):
        assert len(deliveries) <= BATCH
        self.held += [(delivery.body, for_s) for delivery in deliveries]
        self._fail("hold")
        return 0

    def delete(self, delivery):
        self._fail("delete")
        self.deleted.append(delivery)

    def give_back(self, delivery):
        self._fail("give_back")
        self.given_back.append(delivery)
        self._waiting.put((delivery.body, delivery.group))

    def _fail(self, method):
        if self.failures[method]:
            raise self.failures[method].pop(0)
