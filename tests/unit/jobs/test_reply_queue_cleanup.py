import time

import pytest

from chalicelib.contract import encode
from chalicelib.jobs import reply_queue_cleanup
from chalicelib.jobs.job_table import JobTableError
from chalicelib.jobs.reply_queue_cleanup import ABANDONED_S, UNFETCHED_S, Housekeeping
from tests.support.fakes import client_error, result_of
from tests.support.polling import eventually

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
        self.sqs.send_message(QueueUrl=url, MessageBody=encode(result_of(job_id)))

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


def test_young_reply_is_left_to_whoever_waits_for_it(house):
    url = house.queue()
    house.reply(url, "a")
    house.run(later_s=UNFETCHED_S - 5)
    assert (house.settled, house.left(url)) == ([], 1)
    assert house.sqs.receive_message(QueueUrl=url)["Messages"]  # it was not hidden


def test_reply_that_nobody_fetched_is_stored_and_deleted(house):
    url = house.queue()
    for n in range(25):
        house.reply(url, f"{n}")
    house.run(later_s=UNFETCHED_S + 1)
    assert (house.settled, house.left(url)) == ([f"{n}" for n in range(25)], 0)


def test_reply_that_cannot_be_stored_stays_and_hinders_no_other_queue(house):
    first, second = house.queue("1"), house.queue("2")
    house.reply(first, "a")
    house.reply(second, "b")
    house.failing = 1
    house.run(later_s=UNFETCHED_S + 1)
    assert (len(house.settled), house.left(first) + house.left(second)) == (1, 1)
    house.run(later_s=UNFETCHED_S + 1)
    assert sorted(house.settled) == ["a", "b"]


def test_what_is_no_reply_is_dropped(house):
    url = house.queue()
    house.sqs.send_message(QueueUrl=url, MessageBody="{")
    house.run(later_s=UNFETCHED_S + 1)
    assert (house.settled, house.left(url)) == ([], 0)


def test_abandoned_queue_is_deleted_once_its_replies_are_stored(house):
    url = house.queue()
    house.reply(url, "a")
    house.run(later_s=ABANDONED_S + 1)
    assert (house.settled, house.sqs.queues) == (["a"], {})


def test_queue_that_is_not_yet_abandoned_stays(house):
    house.queue()
    house.run(later_s=ABANDONED_S - 5)
    assert len(house.sqs.queues) == 1


def test_old_queue_with_a_young_reply_stays_until_it_was_fetched_or_stored(house):
    url = house.queue()
    house.sqs.queues[url].created_at -= ABANDONED_S
    house.reply(url, "a")
    house.run()
    assert house.left(url) == 1
    house.run(later_s=UNFETCHED_S + 1)
    assert (house.settled, house.sqs.queues) == (["a"], {})


def test_old_queue_whose_replies_cannot_be_stored_stays(house):
    url = house.queue()
    house.reply(url, "a")
    house.failing = 1
    house.run(later_s=ABANDONED_S + 1)
    assert house.left(url) == 1


def test_other_queues_are_not_touched(house, job_queue_url):
    house.reply(job_queue_url, "a")
    house.run(later_s=ABANDONED_S + 1)
    assert (house.settled, house.left(job_queue_url)) == ([], 1)


def test_queue_that_vanishes_meanwhile_hinders_no_other(house):
    for name in ("1", "2"):
        house.reply(house.queue(name), name)
    house.sqs.failures["get_queue_attributes"].append(client_error("AWS.SimpleQueueService.NonExistentQueue"))
    house.run(later_s=UNFETCHED_S + 1)
    assert len(house.settled) == 1


def test_run_ends_in_time_and_says_what_it_left(house, monkeypatch, log_records):
    monkeypatch.setattr(reply_queue_cleanup, "RUN_S", 0.0)
    house.reply(house.queue(), "a")
    house.run(later_s=UNFETCHED_S + 1)
    assert house.settled == []
    assert [record.getMessage() for record in log_records] == ["housekeeping_unfinished"]


def test_queue_that_takes_all_the_time_leaves_the_others_their_turn(sqs):
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


def test_no_queue_is_nothing_to_do(house):
    house.run()
    assert house.sqs.calls == {"list_queues": 1}
