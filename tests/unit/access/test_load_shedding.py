import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from chalicelib import problems
from chalicelib.access.load_shedding import REFRESH_INTERVAL_S, LoadShedder, QueueLoad
from tests.support.fakes.sqs import client_error
from tests.support.problems import raises_problem


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def load_shedder(sqs, job_queue_url, clock):
    return LoadShedder(sqs, job_queue_url=job_queue_url, max_depth=2, clock=clock)


def send(sqs, job_queue_url, count):
    for _ in range(count):
        sqs.send_message(QueueUrl=job_queue_url, MessageBody="job")


def test_queue_at_limit_accepts_requests(sqs, job_queue_url, load_shedder):
    send(sqs, job_queue_url, 2)
    assert load_shedder.check_capacity() is QueueLoad.HIGH


@pytest.mark.parametrize("depth", [3, 4])
def test_queue_above_limit_accepts_keys_without_pending_jobs(sqs, job_queue_url, load_shedder, depth):
    send(sqs, job_queue_url, depth)
    assert load_shedder.check_capacity() is QueueLoad.FULL


def test_queue_above_twice_its_limit_returns_503_with_retry_after(sqs, job_queue_url, load_shedder):
    send(sqs, job_queue_url, 5)
    with raises_problem(problems.OVERLOADED) as caught:
        load_shedder.check_capacity()
    assert (caught.value.problem.status, caught.value.headers) == (503, {"Retry-After": "5"})


def test_queue_depth_is_cached_between_refreshes(sqs, load_shedder, clock):
    for _ in range(30):
        load_shedder.check_capacity()
        clock.now += REFRESH_INTERVAL_S / 10
    assert sqs.calls["get_queue_attributes"] == 3


def test_overload_clears_on_next_refresh(sqs, job_queue_url, load_shedder, clock):
    send(sqs, job_queue_url, 5)
    with raises_problem(problems.OVERLOADED):
        load_shedder.check_capacity()
    sqs.queues[job_queue_url].messages.clear()
    with raises_problem(problems.OVERLOADED):
        load_shedder.check_capacity()
    clock.now += REFRESH_INTERVAL_S
    load_shedder.check_capacity()


def test_queue_depth_read_failure_fails_open_and_is_not_retried_immediately(sqs, load_shedder, log_records):
    sqs.failures["get_queue_attributes"] += [client_error("ServiceUnavailable")] * 2
    load_shedder.check_capacity()
    load_shedder.check_capacity()
    assert sqs.calls["get_queue_attributes"] == 1
    assert [record.getMessage() for record in log_records] == ["queue_depth_read_failed"]


def test_only_one_thread_refreshes_and_others_do_not_block(job_queue_url):
    class SlowSqs:
        calls = 0

        def get_queue_attributes(self, **_):
            self.calls += 1
            requested.set()
            assert may_respond.wait(10)
            return {"Attributes": {"ApproximateNumberOfMessages": "0"}}

    requested, may_respond, sqs = threading.Event(), threading.Event(), SlowSqs()
    load_shedder = LoadShedder(sqs, job_queue_url=job_queue_url, max_depth=2)
    with ThreadPoolExecutor(1) as pool:
        refresh = pool.submit(load_shedder.check_capacity)
        assert requested.wait(10)
        for _ in range(100):
            load_shedder.check_capacity()
        assert (sqs.calls, refresh.done()) == (1, False)
        may_respond.set()
        refresh.result()
