"""Which workers poll the job queue, and for how long."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from chalicelib.contract.limits import MAX_BATCH_S
from executor_host import agent, job_queue, poll_pacer
from executor_host.job_queue import QueueError
from executor_host.poll_pacer import IDLE_AFTER_S, IDLE_RECEIVE_WAIT_S, RECEIVE_WAIT_S, PollPacer
from tests.support.fakes.job_queue import FakeJobQueue
from tests.support.polling import eventually

NO_WAIT_S = 0.0


class Clock:
    def __init__(self):
        self.now_s = 1000.0

    def __call__(self):
        return self.now_s


class BlockingQueue(FakeJobQueue):
    """Keep polls open until `end` is set."""

    def __init__(self):
        super().__init__()
        self.end = threading.Event()
        self.message = None

    def receive(self, *, wait_s):
        self.waits_s.append(wait_s)
        assert self.end.wait(10)
        return self.message


@pytest.fixture
def clock():
    return Clock()


def test_busy_host_polls_shortly_with_every_worker(clock):
    queue = BlockingQueue()
    pacer = PollPacer(queue, stopping=threading.Event(), clock=clock)
    with ThreadPoolExecutor(3) as threads:
        polls = [threads.submit(pacer.receive, NO_WAIT_S) for _ in range(3)]
        eventually(lambda: queue.waits_s == [RECEIVE_WAIT_S] * 3)
        queue.end.set()
        assert [poll.result() for poll in polls] == [None] * 3


def test_idle_host_has_one_longer_poll(clock):
    queue = BlockingQueue()
    pacer = PollPacer(queue, stopping=threading.Event(), clock=clock)
    clock.now_s += IDLE_AFTER_S
    with ThreadPoolExecutor(1) as threads:
        poll = threads.submit(pacer.receive, NO_WAIT_S)
        eventually(lambda: queue.waits_s == [IDLE_RECEIVE_WAIT_S])
        assert pacer.receive(NO_WAIT_S) is None
        queue.end.set()
        poll.result()
    assert queue.waits_s == [IDLE_RECEIVE_WAIT_S]


def test_message_ends_the_idle_period_at_once(clock):
    queue = BlockingQueue()
    queue.message = job_queue.ReceivedMessage("body", "receipt")
    pacer = PollPacer(queue, stopping=threading.Event(), clock=clock)
    clock.now_s += IDLE_AFTER_S
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(pacer.receive, NO_WAIT_S)
        eventually(lambda: queue.waits_s)
        second = threads.submit(pacer.receive, 10)
        queue.end.set()
        assert (first.result(), second.result()) == (queue.message, queue.message)
    assert queue.waits_s == [IDLE_RECEIVE_WAIT_S, RECEIVE_WAIT_S]


def test_stopping_host_starts_no_poll(clock):
    stopping = threading.Event()
    queue = BlockingQueue()
    pacer = PollPacer(queue, stopping=stopping, clock=clock)
    clock.now_s += IDLE_AFTER_S
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(pacer.receive, NO_WAIT_S)
        eventually(lambda: queue.waits_s)
        second = threads.submit(pacer.receive, 10)
        stopping.set()
        queue.end.set()
        assert (first.result(), second.result()) == (None, None)
    assert queue.waits_s == [IDLE_RECEIVE_WAIT_S]


def test_failed_poll_is_no_longer_open(clock):
    queue = FakeJobQueue()
    queue.failures["receive"].append(QueueError())
    pacer = PollPacer(queue, stopping=threading.Event(), clock=clock)
    clock.now_s += IDLE_AFTER_S
    with pytest.raises(QueueError):
        pacer.receive(NO_WAIT_S)
    assert pacer.receive(NO_WAIT_S) is None
    assert queue.waits_s == [IDLE_RECEIVE_WAIT_S]


def test_long_poll_opens_only_once_every_job_has_ended():
    assert IDLE_AFTER_S > MAX_BATCH_S + agent.FETCH_TIMEOUT_S + agent.REPLY_SEND_TIMEOUT_S


def test_released_job_becomes_visible_after_the_short_polls_and_polls_end_before_their_read_timeout():
    assert job_queue.MIN_RELEASE_S > poll_pacer.RECEIVE_WAIT_S
    assert job_queue.POLL_READ_TIMEOUT_S > IDLE_RECEIVE_WAIT_S + 1
