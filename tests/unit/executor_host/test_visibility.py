"""Beats over a queue in memory, and how long one may take on SQS."""

import contextlib
import threading

import pytest

from executor_host import metrics
from executor_host.job_queue import MAX_BATCH_SIZE, QueueError, ReceivedMessage, SqsJobQueue
from executor_host.visibility import VISIBILITY_TIMEOUT_S, VisibilityExtender
from tests.support.fakes.job_queue import FakeJobQueue
from tests.support.polling import eventually

MESSAGES = [ReceivedMessage(f"job {number}", receipt=f"{number}") for number in range(2 * MAX_BATCH_SIZE + 5)]


@pytest.fixture
def start():
    """A function that starts to hold all messages."""
    with contextlib.ExitStack() as started:

        def start(queue, *, interval_s):
            visibility = VisibilityExtender(queue, interval_s=interval_s, visibility_timeout_s=7)
            started.callback(visibility.stop)
            for message in MESSAGES:
                started.enter_context(visibility.extending(message))
            visibility.start()

        yield start


def missed_beats():
    return metrics.VISIBILITY_EXTENSION_FAILURES._value.get()


def test_failed_batch_does_not_affect_other_batches(start):
    queue, before = FakeJobQueue(), missed_beats()
    queue.failures["extend_visibility"] += [QueueError("unreachable")]
    start(queue, interval_s=0.5)
    eventually(lambda: len(queue.extended) == len(MESSAGES))
    assert {body for body, _ in queue.extended} == {message.body for message in MESSAGES}
    eventually(lambda: missed_beats() > before)
    assert missed_beats() - before in {MAX_BATCH_SIZE, 5}  # whichever it was


class StuckQueue(FakeJobQueue):
    """The first call of `hold` gets no answer until the test ends."""

    def __init__(self):
        super().__init__()
        self.answered = threading.Event()
        self._calls = iter([self.answered.wait])

    def extend_visibility(self, messages, *, visibility_timeout_s):
        next(self._calls, lambda _: None)(10)
        return super().extend_visibility(messages, visibility_timeout_s=visibility_timeout_s)


def test_hanging_batch_does_not_block_other_batches_or_next_interval(start):
    queue = StuckQueue()
    start(queue, interval_s=0.05)
    eventually(lambda: {body for body, _ in queue.extended} == {message.body for message in MESSAGES}, timeout_s=5)
    queue.answered.set()


def test_client_timeout_is_shorter_than_visibility_timeout(monkeypatch):
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    config = SqsJobQueue("https://queue", workers=1)._sqs.meta.config
    attempt_s = config.connect_timeout + config.read_timeout
    assert attempt_s * config.retries["total_max_attempts"] <= VISIBILITY_TIMEOUT_S
