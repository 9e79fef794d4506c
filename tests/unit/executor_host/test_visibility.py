"""Beats over a queue in memory, and how long one may take on SQS."""

import contextlib
import threading

import pytest

from executor_host import metrics
from executor_host.job_queue import BATCH, Delivery, QueueError, SqsJobQueue
from executor_host.visibility import HOLD_S, Heartbeat
from tests.support.fakes.job_queue import FakeJobQueue
from tests.support.polling import eventually

DELIVERIES = [Delivery(f"job {number}", receipt=f"{number}") for number in range(2 * BATCH + 5)]


@pytest.fixture
def start():
    """A function that starts to hold all deliveries."""
    with contextlib.ExitStack() as started:

        def start(queue, *, every_s):
            heartbeat = Heartbeat(queue, every_s=every_s, hold_s=7)
            started.callback(heartbeat.stop)
            for delivery in DELIVERIES:
                started.enter_context(heartbeat.holding(delivery))
            heartbeat.start()

        yield start


def missed_beats():
    return metrics.VISIBILITY_EXTENSION_FAILURES._value.get()


def test_failed_batch_does_not_affect_other_batches(start):
    queue, before = FakeJobQueue(), missed_beats()
    queue.failures["hold"] += [QueueError("unreachable")]
    start(queue, every_s=0.5)
    eventually(lambda: len(queue.held) == len(DELIVERIES))
    assert {body for body, _ in queue.held} == {delivery.body for delivery in DELIVERIES}
    eventually(lambda: missed_beats() > before)
    assert missed_beats() - before in {BATCH, 5}  # whichever it was


class StuckQueue(FakeJobQueue):
    """The first call of `hold` gets no answer until the test ends."""

    def __init__(self):
        super().__init__()
        self.answered = threading.Event()
        self._calls = iter([self.answered.wait])

    def hold(self, deliveries, *, for_s):
        next(self._calls, lambda _: None)(10)
        return super().hold(deliveries, for_s=for_s)


def test_hanging_batch_does_not_block_other_batches_or_next_interval(start):
    queue = StuckQueue()
    start(queue, every_s=0.05)
    eventually(lambda: {body for body, _ in queue.held} == {delivery.body for delivery in DELIVERIES}, timeout_s=5)
    queue.answered.set()


def test_client_timeout_is_shorter_than_visibility_timeout(monkeypatch):
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    config = SqsJobQueue("https://queue", workers=1)._sqs.meta.config
    attempt_s = config.connect_timeout + config.read_timeout
    assert attempt_s * config.retries["total_max_attempts"] <= HOLD_S
