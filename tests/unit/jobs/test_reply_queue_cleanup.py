import time

import pytest

from chalicelib.contract import encode
from chalicelib.jobs import reply_queue_cleanup
from chalicelib.jobs.job_table import JobTableError
from chalicelib.jobs.reply_queue_cleanup import ABANDONED_S, UNFETCHED_S, Housekeeping
from tests.support.fakes.sqs import client_error
from tests.support.polling import eventually
from tests.support.records import make_result

PREFIX = "python-exec-reply-"


class House:
    """Housekeeping with a clock that can be put forward."""

    def __init__(self, sqs):
        self.sqs = sqs
        self.later_s = 0.0
        self.settled = []
        self.failing = 0  # how many of the next replies cannot be stored
        self.housekeeping = Housekeeping(
            sqs, prefix=PREFIX, settle=self.settle, clock=lambda: time.time() + self.later_s
        )

    def queue(self, name="1"):
        return self.sqs.create_queue(QueueName=PREFIX + name, Attributes={})["QueueUrl"]

    def reply(self, url, job_id):
        self.sqs.send_message(QueueUrl=url, MessageBody=encode(make_result(job_id)))

    def settle(self, reply):
        if self.failing:
            self.failing -= 1
            raise JobTableError("gone")
        self.settled.append(reply.id)

    def run(self, *, later_s=0.0):
        self.later_s = later_s
        self.housekeeping.run()

    def left(self, url):
        return len(self.sqs.queues[url].messages)


@pytest.fixture
def house(sqs):
    return House(sqs)


def test_recent_reply_is_left_in_queue(house):
    url = house.queue()
    house.reply(url, "a")
    house.run(later_s=UNFETCHED_S - 5)
    assert (house.settled, house.left(url)) == ([], 1)
    assert house.sqs.receive_message(QueueUrl=url)["Messages"]  # it was not hidden


def test_orphaned_reply_is_stored_and_deleted(house):
    url = house.queue()
    for n in range(25):
        house.reply(url, f"{n}")
    house.run(later_s=UNFETCHED_S + 1)
    assert (house.settled, house.left(url)) == ([f"{n}" for n in range(25)], 0)


def test_store_failure_keeps_reply_and_continues_with_other_queues(house):
    first, second = house.queue("1"), house.queue("2")
    house.reply(first, "a")
    house.reply(second, "b")
    house.failing = 1
    house.run(later_s=UNFETCHED_S + 1)
    assert (len(house.settled), house.left(first) + house.left(second)) == (1, 1)
    house.run(later_s=UNFETCHED_S + 1)
    assert sorted(house.settled) == ["a", "b"]


def test_malformed_reply_is_deleted(house):
    url = house.queue()
    house.sqs.send_message(QueueUrl=url, MessageBody="{")
    house.run(later_s=UNFETCHED_S + 1)
    assert (house.settled, house.left(url)) == ([], 0)


def test_abandoned_queue_is_deleted_after_storing_replies(house):
    url = house.queue()
    house.reply(url, "a")
    house.run(later_s=ABANDONED_S + 1)
    assert (house.settled, house.sqs.queues) == (["a"], {})


def test_recent_queue_is_kept(house):
    house.queue()
    house.run(later_s=ABANDONED_S - 5)
    assert len(house.sqs.queues) == 1


def test_abandoned_queue_with_recent_reply_is_kept(house):
    url = house.queue()
    house.sqs.queues[url].created_at -= ABANDONED_S
    house.reply(url, "a")
    house.run()
    assert house.left(url) == 1
    house.run(later_s=UNFETCHED_S + 1)
    assert (house.settled, house.sqs.queues) == (["a"], {})


def test_abandoned_queue_is_kept_when_store_fails(house):
    url = house.queue()
    house.reply(url, "a")
    house.failing = 1
    house.run(later_s=ABANDONED_S + 1)
    assert house.left(url) == 1


def test_other_queues_are_not_touched(house, job_queue_url):
    house.reply(job_queue_url, "a")
    house.run(later_s=ABANDONED_S + 1)
    assert (house.settled, house.left(job_queue_url)) == ([], 1)


def test_queue_deleted_during_cleanup_does_not_affect_others(house):
    for name in ("1", "2"):
        house.reply(house.queue(name), name)
    house.sqs.failures["get_queue_attributes"].append(client_error("AWS.SimpleQueueService.NonExistentQueue"))
    house.run(later_s=UNFETCHED_S + 1)
    assert len(house.settled) == 1


def test_cleanup_stops_at_time_budget_and_logs(house, monkeypatch, log_records):
    monkeypatch.setattr(reply_queue_cleanup, "RUN_S", 0.0)
    house.reply(house.queue(), "a")
    house.run(later_s=UNFETCHED_S + 1)
    assert house.settled == []
    assert [record.getMessage() for record in log_records] == ["reply_queue_cleanup_incomplete"]


def test_slow_queue_does_not_starve_others(sqs):
    now = [time.time() + UNFETCHED_S + 1]
    settled = set()

    def settle(reply):
        settled.add(reply.id)
        if reply.id == "slow":
            now[0] += reply_queue_cleanup.RUN_S
            raise JobTableError("gone")

    house = House(sqs)
    for job_id in ("slow", "a", "b"):
        house.reply(house.queue(job_id), job_id)
    keeping = Housekeeping(sqs, prefix=PREFIX, settle=settle, clock=lambda: now[0])
    eventually(lambda: keeping.run() or settled == {"slow", "a", "b"})


def test_no_queues_is_a_no_op(house):
    house.run()
    assert house.sqs.calls == {"list_queues": 1}
