"""Test visibility extensions on an in-memory queue, and the timeouts of SQS calls."""

import contextlib
import threading

import pytest

from executor_host import metrics
from executor_host.job_queue import MAX_BATCH_SIZE, JobQueue, QueueError, ReceivedMessage
from executor_host.visibility import VISIBILITY_TIMEOUT_S, VisibilityExtender
from tests.support.fakes.job_queue import FakeJobQueue
from tests.support.polling import eventually

MESSAGES = [ReceivedMessage(f"job {number}", receipt=f"{number}") for number in range(2 * MAX_BATCH_SIZE + 5)]


@pytest.fixture
def start():
    """Return a function that starts to extend the visibility of MESSAGES."""
    with contextlib.ExitStack() as started:

        def start(queue, *, interval_s):
            visibility = VisibilityExtender(queue, interval_s=interval_s)
            started.callback(visibility.stop)
            for message in MESSAGES:
                started.enter_context(visibility.extending(message))
            visibility.start()

        yield start


def extension_failures():
    return metrics.VISIBILITY_EXTENSION_FAILURES._value.get()


def test_failed_batch_does_not_affect_other_batches(start):
    queue, before = FakeJobQueue(), extension_failures()
    queue.failures["extend_visibility"] += [QueueError("unreachable")]
    start(queue, interval_s=0.5)
    eventually(lambda: len(queue.extended) == len(MESSAGES))
    assert {body for body, _ in queue.extended} == {message.body for message in MESSAGES}
    eventually(lambda: extension_failures() > before)
    assert extension_failures() - before in {MAX_BATCH_SIZE, 5}  # any of the batches may be the failed one


class StuckQueue(FakeJobQueue):
    """Hang in the first call of `extend_visibility` until the test ends."""

    def __init__(self):
        super().__init__()
        self.test_ended = threading.Event()
        self._calls = iter([self.test_ended.wait])

    def extend_visibility(self, messages, *, visibility_timeout_s):
        next(self._calls, lambda _: None)(10)
        return super().extend_visibility(messages, visibility_timeout_s=visibility_timeout_s)


def test_hanging_batch_does_not_block_other_batches_or_next_interval(start):
    queue = StuckQueue()
    start(queue, interval_s=0.05)
    eventually(lambda: {body for body, _ in queue.extended} == {message.body for message in MESSAGES}, timeout_s=5)
    queue.test_ended.set()


def test_client_timeout_is_shorter_than_visibility_timeout(monkeypatch):
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    config = JobQueue("https://queue", workers=1)._sqs.meta.config
    attempt_s = config.connect_timeout + config.read_timeout
    assert attempt_s * config.retries["total_max_attempts"] <= VISIBILITY_TIMEOUT_S
