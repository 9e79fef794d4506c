import time

import pytest

from chalicelib.contract import encode
from chalicelib.dynamodb import TableError
from chalicelib.jobs import reply_queue_cleanup
from chalicelib.jobs.reply_queue_cleanup import ORPHAN_REPLY_AGE_S, QUEUE_MAX_AGE_S, ReplyQueueCleanup
from tests.support.fakes.sqs import client_error
from tests.support.polling import eventually
from tests.support.records import make_result

PREFIX = "python-exec-reply-"


class CleanupHarness:
    """A ReplyQueueCleanup whose clock can be advanced."""

    def __init__(self, sqs):
        self.sqs = sqs
        self.later_s = 0.0
        self.stored = []
        self.failing = 0  # number of next replies that cannot be stored
        self.cleanup = ReplyQueueCleanup(
            sqs, prefix=PREFIX, store_reply=self.store_reply, clock=lambda: time.time() + self.later_s
        )

    def queue(self, name="1"):
        return self.sqs.create_queue(QueueName=PREFIX + name, Attributes={})["QueueUrl"]

    def reply(self, url, job_id):
        self.sqs.send_message(QueueUrl=url, MessageBody=encode(make_result(job_id)))

    def store_reply(self, reply):
        if self.failing:
            self.failing -= 1
            raise TableError("gone")
        self.stored.append(reply.id)

    def run(self, *, later_s=0.0):
        self.later_s = later_s
        self.cleanup.run()

    def remaining_messages(self, url):
        return len(self.sqs.queues[url].messages)


@pytest.fixture
def harness(sqs):
    return CleanupHarness(sqs)


def test_recent_reply_is_left_in_queue(harness):
    url = harness.queue()
    harness.reply(url, "a")
    harness.run(later_s=ORPHAN_REPLY_AGE_S - 5)
    assert (harness.stored, harness.remaining_messages(url)) == ([], 1)
    assert harness.sqs.receive_message(QueueUrl=url)["Messages"]  # it was not hidden


def test_orphaned_reply_is_stored_and_deleted(harness):
    url = harness.queue()
    for n in range(25):
        harness.reply(url, f"{n}")
    harness.run(later_s=ORPHAN_REPLY_AGE_S + 1)
    assert (harness.stored, harness.remaining_messages(url)) == ([f"{n}" for n in range(25)], 0)


def test_store_failure_keeps_reply_and_continues_with_other_queues(harness):
    first, second = harness.queue("1"), harness.queue("2")
    harness.reply(first, "a")
    harness.reply(second, "b")
    harness.failing = 1
    harness.run(later_s=ORPHAN_REPLY_AGE_S + 1)
    assert (len(harness.stored), harness.remaining_messages(first) + harness.remaining_messages(second)) == (1, 1)
    harness.run(later_s=ORPHAN_REPLY_AGE_S + 1)
    assert sorted(harness.stored) == ["a", "b"]


def test_malformed_reply_is_deleted(harness):
    url = harness.queue()
    harness.sqs.send_message(QueueUrl=url, MessageBody="{")
    harness.run(later_s=ORPHAN_REPLY_AGE_S + 1)
    assert (harness.stored, harness.remaining_messages(url)) == ([], 0)


def test_abandoned_queue_is_deleted_after_storing_replies(harness):
    url = harness.queue()
    harness.reply(url, "a")
    harness.run(later_s=QUEUE_MAX_AGE_S + 1)
    assert (harness.stored, harness.sqs.queues) == (["a"], {})


def test_recent_queue_is_kept(harness):
    harness.queue()
    harness.run(later_s=QUEUE_MAX_AGE_S - 5)
    assert len(harness.sqs.queues) == 1


def test_abandoned_queue_with_recent_reply_is_kept(harness):
    url = harness.queue()
    harness.sqs.queues[url].created_at -= QUEUE_MAX_AGE_S
    harness.reply(url, "a")
    harness.run()
    assert harness.remaining_messages(url) == 1
    harness.run(later_s=ORPHAN_REPLY_AGE_S + 1)
    assert (harness.stored, harness.sqs.queues) == (["a"], {})


def test_abandoned_queue_is_kept_when_store_fails(harness):
    url = harness.queue()
    harness.reply(url, "a")
    harness.failing = 1
    harness.run(later_s=QUEUE_MAX_AGE_S + 1)
    assert harness.remaining_messages(url) == 1


def test_other_queues_are_not_touched(harness, job_queue_url):
    harness.reply(job_queue_url, "a")
    harness.run(later_s=QUEUE_MAX_AGE_S + 1)
    assert (harness.stored, harness.remaining_messages(job_queue_url)) == ([], 1)


def test_queue_deleted_during_cleanup_does_not_affect_others(harness):
    for name in ("1", "2"):
        harness.reply(harness.queue(name), name)
    harness.sqs.failures["get_queue_attributes"].append(client_error("AWS.SimpleQueueService.NonExistentQueue"))
    harness.run(later_s=ORPHAN_REPLY_AGE_S + 1)
    assert len(harness.stored) == 1


def test_cleanup_stops_at_time_budget_and_logs(harness, monkeypatch, log_records):
    monkeypatch.setattr(reply_queue_cleanup, "TIME_BUDGET_S", 0.0)
    harness.reply(harness.queue(), "a")
    harness.run(later_s=ORPHAN_REPLY_AGE_S + 1)
    assert harness.stored == []
    assert [record.getMessage() for record in log_records] == ["reply_queue_cleanup_incomplete"]


def test_slow_queue_does_not_starve_others(sqs):
    now = [time.time() + ORPHAN_REPLY_AGE_S + 1]
    stored = set()

    def store_reply(reply):
        stored.add(reply.id)
        if reply.id == "slow":
            now[0] += reply_queue_cleanup.TIME_BUDGET_S
            raise TableError("gone")

    harness = CleanupHarness(sqs)
    for job_id in ("slow", "a", "b"):
        harness.reply(harness.queue(job_id), job_id)
    cleanup = ReplyQueueCleanup(sqs, prefix=PREFIX, store_reply=store_reply, clock=lambda: now[0])
    eventually(lambda: cleanup.run() or stored == {"slow", "a", "b"})


def test_no_queues_is_a_no_op(harness):
    harness.run()
    assert harness.sqs.calls == {"list_queues": 1}
