"""Jobs and replies in the payload store, and what happens while the store fails."""

import pytest

from chalicelib import problems
from chalicelib.contract import Failure, FailureReason, ReplyReference, pack
from chalicelib.jobs.job_table import JobState
from chalicelib.jobs.payload_store import PayloadStoreError
from chalicelib.jobs.submit import PendingJob
from tests.support.fakes.payloads import URL
from tests.support.problems import raises_problem
from tests.support.records import make_result
from tests.unit.jobs.harness import Harness

each_request = pytest.mark.parametrize("changes", [{}, {"idempotency_key": "k"}], ids=["plain", "idempotent"])


@pytest.fixture
def harness():
    """A harness whose hosts store each reply and send its reference."""
    harness = Harness()
    harness.hosts.reply = lambda job: harness.payloads.store_reply(make_result(job.id))
    return harness


def fail_after_reply(harness):
    """Let the store fail once the reply is in it."""

    def reply(job):
        reference = harness.payloads.store_reply(make_result(job.id))
        harness.payloads.is_unavailable = True
        return reference

    harness.hosts.reply = reply


def test_job_carries_the_upload_url_of_its_own_reply(harness):
    harness.submit()
    ((job, _),) = harness.hosts.sent
    assert job.reply_upload_url == f"{URL}/replies/{job.id}"


@each_request
def test_stored_reply_is_returned(harness, changes):
    reply = harness.submit(**changes)
    assert reply == make_result(harness.hosts.sent[0][0].id)


def test_payloads_of_answered_request_are_deleted(harness):
    reply = harness.submit()
    assert reply == make_result(reply.id)
    assert harness.payloads.objects == {}


def test_stored_job_of_answered_request_is_deleted(harness):
    send = harness.hosts.send

    def store_and_send(job, *, key_id):
        harness.payloads.put_job(job, pack(job))
        send(job, key_id=key_id)
        return True

    harness.hosts.send = store_and_send
    harness.hosts.reply = lambda job: make_result(job.id)
    harness.submit()
    assert harness.payloads.objects == {}


def test_failed_deletion_does_not_fail_the_request(harness):
    def delete(_job_id):
        raise PayloadStoreError("gone")

    harness.payloads.delete = delete
    assert harness.submit().stdout == "out"


def test_stored_reply_of_idempotent_request_is_kept_for_replays(harness):
    first = harness.submit(idempotency_key="k")
    assert harness.submit(idempotency_key="k") == first == harness.stored_reply(first.id)
    assert len(harness.hosts.sent) == 1


@each_request
def test_reply_that_cannot_be_read_is_accepted_and_returned_later(harness, changes):
    fail_after_reply(harness)
    pending = harness.submit(**changes)
    assert pending == PendingJob(harness.only_record.job_id)
    with raises_problem(problems.PAYLOAD_STORE_UNAVAILABLE) as raised:
        harness.stored_reply(pending.job_id)
    assert (raised.value.problem.status, raised.value.headers) == (503, {"Retry-After": "2"})
    harness.payloads.is_unavailable = False
    assert harness.stored_reply(pending.job_id) == make_result(pending.job_id)
    assert (len(harness.hosts.sent), harness.runs_charged, harness.slots()) == (1, 1, {})


def test_late_stored_reply_is_recorded_without_reading_it(harness):
    pending = harness.submit(is_async=True)
    harness.payloads.store_reply(make_result(pending.job_id))
    harness.payloads.is_unavailable = True
    harness.results.record_reply(ReplyReference(id=pending.job_id))
    assert (harness.only_record.state, harness.slots()) == (JobState.FINISHED, {})
    assert len(harness.only_record.reply) < 200
    harness.payloads.is_unavailable = False
    assert harness.stored_reply(pending.job_id) == make_result(pending.job_id)


@pytest.mark.parametrize(
    "data", [b"", b"garbage", pack(make_result("f" * 32)), pack(ReplyReference(id="0" * 32))],
    ids=["empty", "garbage", "of_another_job", "reference"],
)  # fmt: skip
def test_corrupt_payload_fails_the_job(harness, data):
    pending = harness.submit(is_async=True)
    harness.payloads.objects[f"{URL}/replies/{pending.job_id}"] = data
    harness.results.record_reply(ReplyReference(id=pending.job_id))
    assert harness.stored_reply(pending.job_id) == Failure(id=pending.job_id, reason=FailureReason.PAYLOAD_LOST)


def test_deletion_removes_the_stored_reply(harness):
    pending = harness.submit(is_async=True)
    harness.results.record_reply(harness.payloads.store_reply(make_result(pending.job_id)))
    harness.results.delete(pending.job_id, key_id="key")
    assert harness.payloads.objects == {}


def test_deletion_by_another_key_keeps_the_stored_reply(harness):
    pending = harness.submit(is_async=True)
    harness.results.record_reply(harness.payloads.store_reply(make_result(pending.job_id)))
    with raises_problem(problems.JOB_NOT_FOUND):
        harness.results.delete(pending.job_id, key_id="other")
    assert harness.stored_reply(pending.job_id) == make_result(pending.job_id)


def test_deletion_is_repeated_after_store_failure(harness):
    pending = harness.submit(is_async=True)
    harness.results.record_reply(harness.payloads.store_reply(make_result(pending.job_id)))
    harness.payloads.is_unavailable = True
    with raises_problem(problems.PAYLOAD_STORE_UNAVAILABLE):
        harness.results.delete(pending.job_id, key_id="key")
    harness.payloads.is_unavailable = False
    harness.results.delete(pending.job_id, key_id="key")
    assert harness.payloads.objects == {}


def test_stored_reply_to_a_deleted_job_is_deleted(harness):
    pending = harness.submit(is_async=True)
    harness.results.delete(pending.job_id, key_id="key")
    harness.results.record_reply(harness.payloads.store_reply(make_result(pending.job_id)))
    assert harness.payloads.objects == {}
