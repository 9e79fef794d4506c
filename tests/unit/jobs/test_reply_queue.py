import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from botocore.exceptions import EndpointConnectionError

from chalicelib.contract import Failure, FailureReason, encode
from chalicelib.jobs import reply_queue as reply_queue_module
from chalicelib.jobs import reply_queue_cleanup
from chalicelib.jobs.reply_queue import ReplyQueue, ReplyQueueError
from tests.support.fakes.sqs import FakeSqs, client_error


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
def queue(sqs, late):
    return reply_queue(sqs, late.append)


def reply_queue(sqs, settle_late=lambda _: None, **options):
    return ReplyQueue(sqs, polls=sqs, prefix="python-exec-reply-", settle_late=settle_late, **options)


def failing_once(late):
    def settle(reply):
        late.append(reply)
        if len(late) == 1:
            raise RuntimeError

    return settle


def reply_to(job_id):
    return Failure(id=job_id, reason=FailureReason.START_TIMEOUT)


def send(sqs, queue, job_id):
    sqs.send_message(QueueUrl=queue.url(), MessageBody=encode(reply_to(job_id)))


def wait(queue, job_id, timeout_s=5.0):
    with queue.expecting(job_id):
        return queue.wait(job_id, deadline=time.monotonic() + timeout_s)


def in_thread(function, *args):
    """Starts the call and returns a function that gives its outcome."""
    pool = ThreadPoolExecutor(1)
    future = pool.submit(function, *args)
    pool.shutdown(wait=False)
    return lambda: future.result(timeout=10)


def test_queue_is_created_lazily(sqs):
    reply_queue(sqs)
    assert sqs.calls == Counter()


def test_concurrent_access_creates_one_queue():
    both_create = threading.Barrier(2)

    class MeetingSqs(FakeSqs):
        def create_queue(self, **arguments):
            with suppress(threading.BrokenBarrierError):
                both_create.wait(0.2)
            return super().create_queue(**arguments)

    queue = reply_queue(MeetingSqs())
    with ThreadPoolExecutor(2) as pool:
        urls = set(pool.map(lambda _: queue.url(), range(2)))
    assert (len(urls), both_create.broken) == (1, True)


def test_queue_creation_sets_name_and_attributes(sqs, queue):
    url = queue.url()
    assert url.rsplit("/", 1)[1].startswith("python-exec-reply-")
    assert sqs.queues[url].attributes == reply_queue_module.ATTRIBUTES


def test_redelivered_reply_is_ignored(sqs, queue, late):
    for job_id in ("a", "b"):
        with queue.expecting(job_id):
            send(sqs, queue, job_id)
            assert queue.wait(job_id, deadline=time.monotonic() + 5) == reply_to(job_id)
        for message in sqs.queues[queue.url()].messages:
            message.visible_at = 0.0
    with queue.expecting("a"), pytest.raises(TimeoutError):
        queue.wait("a", deadline=time.monotonic() + 0.3)
    assert late == []


def test_polling_for_timed_out_job_stores_reply(sqs, queue, late):
    with pytest.raises(TimeoutError):
        wait(queue, "a", 0.1)
    send(sqs, queue, "a")
    queue.look_for("b")
    assert late == []
    queue.look_for("a")
    assert late == [reply_to("a")]
    calls = sqs.calls["receive_message"]
    queue.look_for("a")
    assert sqs.calls["receive_message"] == calls


def test_reply_at_deadline_is_treated_as_late(sqs, queue, late):
    with queue.expecting("a"):
        send(sqs, queue, "a")
        send(sqs, queue, "b")
        wait(queue, "b")
    assert late == [reply_to("a")]


def test_queue_creation_failure_is_retried_on_next_call(sqs, queue):
    sqs.failures["create_queue"].append(client_error("AccessDenied"))
    with pytest.raises(ReplyQueueError, match="python-exec-reply-"):
        queue.url()
    assert queue.url() in sqs.queues


def test_reply_in_queue_is_returned(sqs, queue):
    with queue.expecting("a"):
        send(sqs, queue, "a")
        assert queue.wait("a", deadline=time.monotonic() + 5) == reply_to("a")


def test_reply_during_long_poll_is_returned_immediately(sqs, queue):
    waiter = in_thread(wait, queue, "a")
    sqs.wait_for_calls("receive_message", count=1)
    sent_at = time.monotonic()
    send(sqs, queue, "a")
    waiter()
    assert time.monotonic() - sent_at < 1


@pytest.mark.parametrize("timeout_s", [0.0, 0.25, 1.25], ids=str)
def test_no_reply_times_out_at_the_deadline(sqs, queue, timeout_s):
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        wait(queue, "a", timeout_s)
    assert timeout_s <= time.monotonic() - started < timeout_s + 0.6
    assert sqs.calls["receive_message"] <= 12  # no spinning


def test_reply_just_before_deadline_is_returned(sqs, queue):
    waiter = in_thread(wait, queue, "a", 0.5)
    sqs.wait_for_calls("receive_message", count=2)
    send(sqs, queue, "a")
    assert waiter() == reply_to("a")


def test_poller_dispatches_other_replies_and_keeps_polling(sqs, queue):
    leader = in_thread(wait, queue, "leader")
    sqs.wait_for_calls("receive_message", count=1)
    follower = in_thread(wait, queue, "follower")
    wait_until(lambda: queue._expected == {"leader", "follower"})
    send(sqs, queue, "follower")
    assert follower() == reply_to("follower")
    send(sqs, queue, "leader")
    assert leader() == reply_to("leader")


def test_poller_hands_over_after_its_reply_arrives(sqs, queue):
    leader = in_thread(wait, queue, "leader")
    sqs.wait_for_calls("receive_message", count=1)
    follower = in_thread(wait, queue, "follower")
    send(sqs, queue, "leader")
    leader()
    sqs.wait_for_calls("receive_message", count=2)
    send(sqs, queue, "follower")
    assert follower() == reply_to("follower")


def test_waiter_times_out_while_another_thread_polls(sqs, queue):
    leader = in_thread(wait, queue, "leader")
    sqs.wait_for_calls("receive_message", count=1)
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        wait(queue, "follower", 0.3)
    assert time.monotonic() - started < 2
    assert sqs.calls["receive_message"] == 1
    send(sqs, queue, "leader")
    assert leader() == reply_to("leader")


def test_poller_exception_hands_over_polling(sqs, queue):
    sqs.failures["receive_message"].append(RuntimeError("bug"))
    with pytest.raises(RuntimeError):
        wait(queue, "leader")
    send_when_expected = in_thread(wait, queue, "next")
    wait_until(lambda: "next" in queue._expected)
    send(sqs, queue, "next")
    assert send_when_expected() == reply_to("next")


def test_poll_failing_is_retried_with_a_pause(sqs, queue):
    error = EndpointConnectionError(endpoint_url="http://sqs.test")
    sqs.failures["receive_message"] = [error, error]
    started = time.monotonic()
    with queue.expecting("a"):
        send(sqs, queue, "a")
        assert queue.wait("a", deadline=time.monotonic() + 5) == reply_to("a")
    assert time.monotonic() - started >= 2 * reply_queue_module.PAUSE_S


def test_poll_failing_until_the_deadline_times_out(sqs, queue):
    sqs.failures["receive_message"] = [client_error("ServiceUnavailable")] * 1000
    with pytest.raises(TimeoutError):
        wait(queue, "a", 0.5)
    assert sqs.calls["receive_message"] <= 7


def test_second_reply_to_a_job_is_ignored(sqs, queue, late):
    with queue.expecting("a"):
        send(sqs, queue, "a")
        send(sqs, queue, "a")
        queue.wait("a", deadline=time.monotonic() + 5)
    send(sqs, queue, "a")
    with queue.expecting("b"):
        send(sqs, queue, "b")
        assert queue.wait("b", deadline=time.monotonic() + 5) == reply_to("b")
    assert (late, queue.dropped) == ([], Counter())


def test_unstorable_late_reply_is_redelivered(sqs, late, monkeypatch):
    monkeypatch.setattr(reply_queue_module, "LATE_AGAIN_S", 0)

    queue = reply_queue(sqs, failing_once(late))
    send(sqs, queue, "a")
    for job_id in ("b", "c"):
        with queue.expecting(job_id):
            send(sqs, queue, job_id)
            assert queue.wait(job_id, deadline=time.monotonic() + 5) == reply_to(job_id)
    assert late == [reply_to("a")] * 2


def test_reply_after_timeout_is_still_delivered(sqs, queue):
    with queue.expecting("a"):
        send(sqs, queue, "a")
        send(sqs, queue, "b")
        wait(queue, "b")
        assert queue.arrived("a") == reply_to("a")
        assert queue.arrived("a") is None


def test_unstorable_reply_after_final_check_is_redelivered(sqs, late, monkeypatch):
    monkeypatch.setattr(reply_queue_module, "LATE_AGAIN_S", 0)

    queue = reply_queue(sqs, failing_once(late))
    with queue.expecting("a"):
        assert queue.arrived("a") is None
        send(sqs, queue, "a")
        send(sqs, queue, "b")
        wait(queue, "b")
    send(sqs, queue, "c")
    wait(queue, "c")
    assert late == [reply_to("a")] * 2


@pytest.mark.parametrize("body", ["", "{", '{"kind":"job"}', "AAAA", '{"kind":' + "[" * 100_000], ids=len)
def test_undecodable_reply_is_counted_and_skipped(sqs, queue, body):
    sqs.send_message(QueueUrl=queue.url(), MessageBody=body)
    with queue.expecting("a"):
        send(sqs, queue, "a")
        assert queue.wait("a", deadline=time.monotonic() + 5) == reply_to("a")
    assert queue.dropped == Counter(undecodable=1)


def test_undecodable_reply_is_logged_without_content(sqs, queue, log_records):
    sqs.send_message(QueueUrl=queue.url(), MessageBody='{"stdout":"secret"}')
    with pytest.raises(TimeoutError):
        wait(queue, "a", 0.2)
    (record,) = [record for record in log_records if record.getMessage() == "malformed_reply_dropped"]
    assert "secret" not in str(vars(record))


def test_waiter_exit_unregisters_job(sqs, queue):
    with queue.expecting("a"):
        send(sqs, queue, "a")
        with pytest.raises(TimeoutError):
            wait(queue, "b", 0.1)
        assert queue._arrived == {"a": reply_to("a")}
    assert (queue._expected, queue._arrived) == (set(), {})


def test_handled_replies_are_deleted_in_whole_batches(sqs, queue):
    for n in range(25):
        with queue.expecting(str(n)):
            send(sqs, queue, str(n))
            queue.wait(str(n), deadline=time.monotonic() + 5)
    assert sqs.calls["delete_message_batch"] == 2
    assert len(sqs.queues[queue.url()].messages) == 5


def test_reply_is_returned_before_batch_delete(sqs, queue):
    for n in range(10):
        with queue.expecting(str(n)):
            send(sqs, queue, str(n))
            queue.wait(str(n), deadline=time.monotonic() + 5)
    assert sqs.calls["delete_message_batch"] == 0


def test_delete_failure_does_not_fail_wait(sqs, queue):
    sqs.failures["delete_message_batch"].append(client_error("ServiceUnavailable"))
    for n in range(12):
        with queue.expecting(str(n)):
            send(sqs, queue, str(n))
            assert queue.wait(str(n), deadline=time.monotonic() + 5) == reply_to(str(n))


def test_requeued_reply_is_redelivered_as_late(sqs, queue, late):
    with queue.expecting("1"):
        send(sqs, queue, "1")
        queue.wait("1", deadline=time.monotonic() + 5)
    queue.put_back("1")
    assert queue._receipts == []
    send(sqs, queue, "1")  # as if its visibility had ended
    queue.look_for("1")
    assert late == [reply_to("1")]


def test_queue_deleted_is_replaced(sqs):
    clock = ShiftedClock()
    queue = reply_queue(sqs, clock=clock)
    gone = queue.url()
    sqs.delete_queue(QueueUrl=gone)
    clock.shift_s = reply_queue_module.NEW_QUEUE_S + 1
    with queue.expecting("a"):
        waiter = in_thread(lambda: queue.wait("a", deadline=clock() + 5))
        wait_until(lambda: queue.url() != gone)
        send(sqs, queue, "a")
        assert waiter() == reply_to("a")


def test_queue_is_rotated_when_idle(sqs):
    clock = ShiftedClock()
    queue = reply_queue(sqs, clock=clock)
    old = queue.url()
    clock.shift_s = reply_queue_module.RETIRED_S + 1
    with queue.expecting("a"):
        assert queue.url() == old
    assert queue.url() != old
    assert reply_queue_module.RETIRED_S + 3600 < reply_queue_cleanup.ABANDONED_S


def test_new_queue_is_kept_during_creation_grace_period(sqs, queue):
    url = queue.url()
    sqs.failures["receive_message"] = [client_error("QueueDoesNotExist")] * 2
    with queue.expecting("a"):
        send(sqs, queue, "a")
        queue.wait("a", deadline=time.monotonic() + 5)
    assert queue.url() == url


def test_concurrent_waiters_receive_their_own_replies(sqs, queue):
    """A responder answers in bursts and out of order, some twice."""
    pending, stop = [], threading.Event()

    def respond():
        while not stop.is_set():
            burst = [pending.pop() for _ in range(min(7, len(pending)))]
            for n, job_id in enumerate(burst):
                for _ in range(1 + (n == 0)):
                    send(sqs, queue, job_id)
            stop.wait(0.001)

    def one(n):
        job_id = f"job-{n}"
        with queue.expecting(job_id):
            pending.append(job_id)
            return queue.wait(job_id, deadline=time.monotonic() + 20)

    responder = threading.Thread(target=respond)
    responder.start()
    try:
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(one, range(500)))
    finally:
        stop.set()
        responder.join()
    assert answers == [reply_to(f"job-{n}") for n in range(500)]


def wait_until(condition, timeout_s=5):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
