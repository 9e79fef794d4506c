import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import EndpointConnectionError

from chalicelib import problems
from chalicelib.contract import Failure, FailureReason, encode
from chalicelib.jobs import reply_queue, reply_queue_cleanup
from chalicelib.jobs.reply_queue import ReplyQueues
from tests.support.fakes.sqs import FakeSqs, client_error
from tests.support.problems import raises_problem


class ShiftedClock:
    def __init__(self):
        self.shift_s = 0.0

    def __call__(self):
        return time.monotonic() + self.shift_s


@pytest.fixture
def sqs():
    return FakeSqs()


@pytest.fixture
def late():
    return []


@pytest.fixture
def queues(sqs, late):
    return make_queues(sqs, late.append)


def make_queues(sqs, on_late_reply=lambda _: None, **options):
    return ReplyQueues(sqs, long_poll_sqs=sqs, prefix="python-exec-reply-", on_late_reply=on_late_reply, **options)


def failing_once(late):
    def store(reply):
        late.append(reply)
        if len(late) == 1:
            raise RuntimeError

    return store


def reply_to(job_id):
    return Failure(id=job_id, reason=FailureReason.START_TIMEOUT)


def send(sqs, url, *job_ids):
    for job_id in job_ids:
        sqs.send_message(QueueUrl=url, MessageBody=encode(reply_to(job_id)))


def wait(queues, job_id, timeout_s=5.0):
    with queues.lease(job_id) as queue:
        return queue.wait(job_id, deadline=time.monotonic() + timeout_s)


def send_and_wait(sqs, queues, job_id, *others):
    """Lease a queue, let the replies to the other jobs and to this one arrive in it, and wait for this one."""
    with queues.lease(job_id) as queue:
        send(sqs, queue.url, *others, job_id)
        return queue.wait(job_id, deadline=time.monotonic() + 5)


def fail_after_wait(sqs, queues, job_id):
    """Receive the reply to a job and fail before it is handled."""

    def fail():
        with queues.lease(job_id) as queue:
            send(sqs, queue.url, job_id)
            assert queue.wait(job_id, deadline=time.monotonic() + 5) == reply_to(job_id)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()


def only_url(sqs):
    (url,) = sqs.queues
    return url


def redeliver(sqs):
    for message in sqs.queues[only_url(sqs)].messages:
        message.visible_at = 0.0


def start_waiter(function, *args):
    """Start the call in a thread, and return a function that returns its outcome."""
    pool = ThreadPoolExecutor(1)
    future = pool.submit(function, *args)
    pool.shutdown(wait=False)
    return lambda: future.result(timeout=10)


def test_queue_is_created_lazily(sqs):
    make_queues(sqs)
    assert sqs.calls == Counter()


def test_queue_creation_sets_name_and_attributes(sqs, queues):
    with queues.lease("a") as queue:
        assert queue.url.rsplit("/", 1)[1].startswith("python-exec-reply-")
        assert sqs.queues[queue.url].attributes == reply_queue.ATTRIBUTES


def test_queue_is_leased_again_after_its_release(sqs, queues):
    for job_id in ("a", "b", "c"):
        assert send_and_wait(sqs, queues, job_id) == reply_to(job_id)
    assert sqs.calls["create_queue"] == 1


def test_concurrent_leases_have_their_own_queues(sqs, queues):
    with queues.lease("a") as first, queues.lease("b") as second:
        assert first.url != second.url
    with queues.lease("c"), queues.lease("d"):
        assert sqs.calls["create_queue"] == 2


def test_throttled_queue_creation_is_retried_with_growing_delays(sqs):
    sqs.failures["create_queue"] += [client_error("RequestThrottled"), client_error("ThrottlingException")]
    delays_s = []
    assert send_and_wait(sqs, make_queues(sqs, sleep=delays_s.append), "a") == reply_to("a")
    limits_s = reply_queue.CREATE_RETRY_DELAYS_S[:2]
    assert [limit_s / 2 <= delay_s <= limit_s for delay_s, limit_s in zip(delays_s, limits_s, strict=True)] == [
        True,
        True,
    ]


def test_queue_creation_that_stays_throttled_returns_503(sqs):
    delays_s = []
    sqs.failures["create_queue"] += [client_error("RequestThrottled")] * 10
    with raises_problem(problems.JOB_QUEUE_UNAVAILABLE), make_queues(sqs, sleep=delays_s.append).lease("a"):
        pass
    assert (sqs.calls["create_queue"], len(delays_s)) == (5, 4)
    assert sum(reply_queue.CREATE_RETRY_DELAYS_S) == pytest.approx(1.5)


def test_queue_creation_failure_is_retried_on_next_call(sqs, queues):
    sqs.failures["create_queue"].append(client_error("AccessDenied"))
    with raises_problem(problems.JOB_QUEUE_UNAVAILABLE), queues.lease("a"):
        pass
    assert send_and_wait(sqs, queues, "a") == reply_to("a")


def test_reply_during_long_poll_is_returned_immediately(sqs, queues):
    waiter = start_waiter(wait, queues, "a")
    sqs.wait_for_calls("receive_message", count=1)
    sent_at = time.monotonic()
    send(sqs, only_url(sqs), "a")
    assert waiter() == reply_to("a")
    assert time.monotonic() - sent_at < 4  # without a wake-up, the poll would end after 5 s


@pytest.mark.parametrize("timeout_s", [0.0, 0.25, 1.25], ids=str)
def test_no_reply_returns_none_at_the_deadline(sqs, queues, timeout_s):
    started_at = time.monotonic()
    assert wait(queues, "a", timeout_s) is None
    assert timeout_s <= time.monotonic() - started_at < timeout_s + 3
    assert sqs.calls["receive_message"] <= 12  # no spinning


def test_reply_just_before_deadline_is_returned(sqs, queues):
    waiter = start_waiter(wait, queues, "a", 0.5)
    sqs.wait_for_calls("receive_message", count=2)
    send(sqs, only_url(sqs), "a")
    assert waiter() == reply_to("a")


def test_last_look_returns_reply_after_timeout(sqs, queues, late):
    with queues.lease("a") as queue:
        assert queue.wait("a", deadline=time.monotonic()) is None
        send(sqs, queue.url, "a")
        assert queue.receive("a", wait_s=0) == reply_to("a")
    redeliver(sqs)
    assert send_and_wait(sqs, queues, "b") == reply_to("b")
    assert late == []


def test_late_reply_is_passed_on_by_the_next_lease(sqs, queues, late):
    assert wait(queues, "a", 0.1) is None
    assert send_and_wait(sqs, queues, "b", "a") == reply_to("b")
    assert late == [reply_to("a")]


def test_polling_for_timed_out_job_stores_reply(sqs, queues, late):
    assert wait(queues, "a", 0.1) is None
    send(sqs, only_url(sqs), "a")
    queues.poll_for_late_reply("b")
    assert late == []
    queues.poll_for_late_reply("a")
    assert late == [reply_to("a")]


def test_polling_for_answered_job_makes_no_call(sqs, queues):
    send_and_wait(sqs, queues, "a")
    calls = sqs.calls["receive_message"]
    queues.poll_for_late_reply("a")
    assert sqs.calls["receive_message"] == calls


def test_polling_does_not_disturb_a_leased_queue(sqs, queues):
    assert wait(queues, "a", 0.1) is None
    with queues.lease("b"):
        calls = sqs.calls["receive_message"]
        queues.poll_for_late_reply("a")
        assert sqs.calls["receive_message"] == calls


def test_redelivered_reply_is_ignored(sqs, queues, late):
    for job_id in ("a", "b", "c"):
        assert send_and_wait(sqs, queues, job_id) == reply_to(job_id)
        redeliver(sqs)
    assert wait(queues, "a", 0.3) is None
    assert late == []


def test_second_reply_to_a_job_is_ignored(sqs, queues, late):
    with queues.lease("a") as queue:
        send(sqs, queue.url, "a", "a")
        assert queue.wait("a", deadline=time.monotonic() + 5) == reply_to("a")
    assert send_and_wait(sqs, queues, "b", "a") == reply_to("b")
    assert late == []


def test_reply_of_a_failed_block_is_redelivered_as_late(sqs, queues, late):
    fail_after_wait(sqs, queues, "a")
    redeliver(sqs)
    queues.poll_for_late_reply("a")
    assert late == [reply_to("a")]


def test_reply_of_a_failed_block_is_not_acknowledged_by_the_next_lease(sqs, queues, late):
    fail_after_wait(sqs, queues, "a")
    assert wait(queues, "b", 0.1) is None
    redeliver(sqs)
    assert send_and_wait(sqs, queues, "c") == reply_to("c")
    assert late == [reply_to("a")]


def test_unstorable_late_reply_is_redelivered(sqs, late, monkeypatch):
    monkeypatch.setattr(reply_queue, "LATE_REPLY_RETRY_S", 0)
    queues = make_queues(sqs, failing_once(late))
    assert send_and_wait(sqs, queues, "b", "a") == reply_to("b")
    assert send_and_wait(sqs, queues, "c") == reply_to("c")
    assert late == [reply_to("a")] * 2


def test_poll_failing_is_retried_with_a_pause(sqs, queues):
    error = EndpointConnectionError(endpoint_url="http://sqs.test")
    sqs.failures["receive_message"] = [error, error]
    started_at = time.monotonic()
    assert send_and_wait(sqs, queues, "a") == reply_to("a")
    assert time.monotonic() - started_at >= 2 * reply_queue.POLL_PAUSE_S


def test_poll_failing_until_the_deadline_returns_none(sqs, queues):
    sqs.failures["receive_message"] = [client_error("ServiceUnavailable")] * 1000
    assert wait(queues, "a", 0.5) is None
    assert sqs.calls["receive_message"] <= 7


@pytest.mark.parametrize("body", ["", "{", '{"kind":"job"}', "AAAA", '{"kind":' + "[" * 100_000], ids=len)
def test_malformed_reply_is_skipped(sqs, queues, late, body):
    with queues.lease("a") as queue:
        sqs.send_message(QueueUrl=queue.url, MessageBody=body)
        send(sqs, queue.url, "a")
        assert queue.wait("a", deadline=time.monotonic() + 5) == reply_to("a")
    assert late == []


def test_malformed_reply_is_logged_without_content(sqs, queues, log_records):
    with queues.lease("a") as queue:
        sqs.send_message(QueueUrl=queue.url, MessageBody='{"stdout":"secret"}')
        assert queue.wait("a", deadline=time.monotonic() + 0.2) is None
    (record,) = [record for record in log_records if record.getMessage() == "malformed_reply_dropped"]
    assert "secret" not in str(vars(record))


def test_processed_replies_are_deleted_in_whole_batches(sqs, queues):
    for number in range(25):
        send_and_wait(sqs, queues, str(number))
    assert sqs.calls["delete_message_batch"] == 2
    assert len(sqs.queues[only_url(sqs)].messages) == 5


def test_processed_replies_of_an_idle_process_are_deleted_with_the_next_request(sqs):
    clock = ShiftedClock()
    queues = make_queues(sqs, clock=clock)
    send_and_wait(sqs, queues, "a")
    send_and_wait(sqs, queues, "b")
    assert sqs.calls["delete_message_batch"] == 0
    clock.shift_s = reply_queue.DELETE_DELAY_S
    with queues.lease("c") as queue:
        send(sqs, queue.url, "c")
        assert queue.wait("c", deadline=clock() + 5) == reply_to("c")
    assert sqs.calls["delete_message_batch"] == 1
    assert len(sqs.queues[only_url(sqs)].messages) == 1


def test_reply_is_returned_before_batch_delete(sqs, queues):
    for number in range(10):
        send_and_wait(sqs, queues, str(number))
    assert sqs.calls["delete_message_batch"] == 0


def test_delete_failure_does_not_fail_wait(sqs, queues):
    sqs.failures["delete_message_batch"].append(client_error("ServiceUnavailable"))
    for number in range(12):
        assert send_and_wait(sqs, queues, str(number)) == reply_to(str(number))


def test_missing_queue_ends_the_wait_and_is_replaced(sqs):
    clock = ShiftedClock()
    queues = make_queues(sqs, clock=clock)
    with queues.lease("a") as queue:
        sqs.delete_queue(QueueUrl=queue.url)
        clock.shift_s = reply_queue.QUEUE_PROPAGATION_S + 1
        started_at = time.monotonic()
        assert queue.wait("a", deadline=clock() + 5) is None
        assert time.monotonic() - started_at < 4
    clock.shift_s = 0.0
    assert send_and_wait(sqs, queues, "b") == reply_to("b")


def test_new_queue_is_kept_during_creation_grace_period(sqs, queues):
    sqs.failures["receive_message"] = [client_error("QueueDoesNotExist")] * 2
    for job_id in ("a", "b"):
        assert send_and_wait(sqs, queues, job_id) == reply_to(job_id)
    assert sqs.calls["create_queue"] == 1


def test_old_queue_is_rotated(sqs):
    clock = ShiftedClock()
    queues = make_queues(sqs, clock=clock)
    with queues.lease("a") as queue:
        old_url = queue.url
    clock.shift_s = reply_queue.ROTATE_QUEUE_AFTER_S + 1
    with queues.lease("b") as queue:
        assert queue.url != old_url
    assert reply_queue.ROTATE_QUEUE_AFTER_S + 3600 < reply_queue_cleanup.QUEUE_MAX_AGE_S


def test_tracked_jobs_are_bounded(sqs, queues, monkeypatch):
    monkeypatch.setattr(reply_queue, "MAX_TRACKED_JOBS", 3)
    for number in range(5):
        assert wait(queues, str(number), 0) is None
    assert list(queues._late_jobs) == ["2", "3", "4"]


def test_concurrent_waiters_receive_their_own_replies(sqs, queues):
    """A responder answers in bursts and out of order, some jobs twice."""
    pending, stop = [], threading.Event()

    def respond():
        while not stop.is_set():
            for number, (url, job_id) in enumerate([pending.pop() for _ in range(min(7, len(pending)))]):
                send(sqs, url, *[job_id] * (2 if number == 0 else 1))
            stop.wait(0.001)

    def run(number):
        job_id = f"job-{number}"
        with queues.lease(job_id) as queue:
            pending.append((queue.url, job_id))
            return queue.wait(job_id, deadline=time.monotonic() + 20)

    responder = threading.Thread(target=respond)
    responder.start()
    try:
        with ThreadPoolExecutor(16) as pool:
            replies = list(pool.map(run, range(500)))
    finally:
        stop.set()
        responder.join()
    assert replies == [reply_to(f"job-{number}") for number in range(500)]
    assert sqs.calls["create_queue"] <= 16
