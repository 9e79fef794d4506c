import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from chalicelib.access.load_shedding import READ_EVERY_S, Overload, OverloadedError
from tests.support.fakes import client_error


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def overload(sqs, job_queue_url, clock):
    return Overload(sqs, job_queue_url=job_queue_url, max_depth=2, clock=clock)


def send(sqs, job_queue_url, count):
    for _ in range(count):
        sqs.send_message(QueueUrl=job_queue_url, MessageBody="job")


def test_queue_up_to_the_limit_is_no_overload(sqs, job_queue_url, overload):
    send(sqs, job_queue_url, 2)
    overload.check()


def test_deeper_queue_is_a_503_that_says_when_to_come_back(sqs, job_queue_url, overload):
    send(sqs, job_queue_url, 3)
    with pytest.raises(OverloadedError) as caught:
        overload.check()
    assert (caught.value.problem.status, caught.value.headers) == (503, {"Retry-After": "5"})


def test_depth_is_read_once_in_a_while(sqs, overload, clock):
    for _ in range(30):
        overload.check()
        clock.now += READ_EVERY_S / 10
    assert sqs.calls["get_queue_attributes"] == 3


def test_overload_ends_with_the_next_reading(sqs, job_queue_url, overload, clock):
    send(sqs, job_queue_url, 3)
    with pytest.raises(OverloadedError):
        overload.check()
    sqs.queues[job_queue_url].messages.clear()
    with pytest.raises(OverloadedError):
        overload.check()
    clock.now += READ_EVERY_S
    overload.check()


def test_depth_that_cannot_be_read_is_no_overload_and_not_asked_for_at_once(sqs, overload, log_records):
    sqs.failures["get_queue_attributes"] += [client_error("ServiceUnavailable")] * 2
    overload.check()
    overload.check()
    assert sqs.calls["get_queue_attributes"] == 1
    assert [record.getMessage() for record in log_records] == ["queue_depth_failed"]


def test_one_thread_reads_and_holds_up_nobody(job_queue_url):
    class SlowSqs:
        calls = 0

        def get_queue_attributes(self, **_):
            self.calls += 1
            asked.set()
            assert answer.wait(10)
            return {"Attributes": {"ApproximateNumberOfMessages": "0"}}

    asked, answer, sqs = threading.Event(), threading.Event(), SlowSqs()
    overload = Overload(sqs, job_queue_url=job_queue_url, max_depth=2)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(overload.check)
        assert asked.wait(10)
        for _ in range(100):
            overload.check()
        assert (sqs.calls, reading.done()) == (1, False)
        answer.set()
        reading.result()
