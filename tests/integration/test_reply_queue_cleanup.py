"""Cleanup of reply queues on the emulator: listing them does not disturb clients that wait."""

import time
import uuid

import pytest

from chalicelib.contract import encode
from chalicelib.jobs.reply_queue import ATTRIBUTES
from chalicelib.jobs.reply_queue_cleanup import ORPHAN_REPLY_AGE_S, QUEUE_MAX_AGE_S, ReplyQueueCleanup
from tests.support.records import make_result


@pytest.fixture
def prefix():
    return f"reply-{uuid.uuid4().hex[:8]}-"


def clean_up_reply_queues(sqs, prefix, *, later_s=0.0):
    stored = []
    cleanup = ReplyQueueCleanup(
        sqs,
        prefix=prefix,
        store_reply=lambda reply: stored.append(reply.id),
        clock=lambda: time.time() + later_s,
    )
    cleanup.run()
    return sorted(stored)


def queues(sqs, prefix):
    return sqs.list_queues(QueueNamePrefix=prefix).get("QueueUrls", [])


def test_orphaned_reply_is_stored_and_queue_deleted(sqs, prefix):
    url, other = (
        sqs.create_queue(QueueName=name, Attributes=ATTRIBUTES)["QueueUrl"]
        for name in (f"{prefix}1", f"other-{prefix}1")
    )
    for n in range(12):
        sqs.send_message(QueueUrl=url, MessageBody=encode(make_result(f"{n:02}")))
    sqs.send_message(QueueUrl=other, MessageBody=encode(make_result("other")))

    assert clean_up_reply_queues(sqs, prefix) == []
    first = sqs.receive_message(QueueUrl=url)["Messages"]  # a client that waits still receives it, once
    assert len(first) == 1
    assert len(clean_up_reply_queues(sqs, prefix, later_s=ORPHAN_REPLY_AGE_S + 2)) == 11
    assert queues(sqs, prefix) == [url]
    assert clean_up_reply_queues(sqs, prefix, later_s=QUEUE_MAX_AGE_S + 2) == []
    assert queues(sqs, prefix) == []
    assert "Messages" in sqs.receive_message(QueueUrl=other)
