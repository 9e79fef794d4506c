"""Conditions that fail on a database that does not return the item."""

import pytest

from chalicelib.access.admission import Admission
from chalicelib.access.api_keys import new_key
from chalicelib.access.key_table import KeyTable
from chalicelib.dynamodb import to_item
from chalicelib.jobs import pending_jobs
from chalicelib.jobs.job_table import JobRecord, JobState, JobTable
from chalicelib.jobs.job_table import to_item as job_item
from chalicelib.jobs.pending_jobs import NoSlotError, PendingJobs
from chalicelib.problems import ProblemError
from tests.support.fakes.sqs import client_error
from tests.support.records import make_key_record


class TerseDynamoDb:
    """One item, whose updates fail `failures` times without returning it."""

    def __init__(self, item, *, failures):
        self.item, self.failures, self.reads = item, failures, 0

    def get_item(self, **_):
        self.reads += 1
        return {} if self.item is None else {"Item": self.item}

    def update_item(self, **_):
        if self.failures:
            self.failures -= 1
            raise client_error("ConditionalCheckFailedException")
        return {"Attributes": self.item}

    put_item = update_item


def make_record(**changes):
    members = {
        "job_id": "a",
        "key_id": "k",
        "state": JobState.CLAIMED,
        "start_deadline": 1_000,
        "retained_until": 2_000,
    }
    return JobRecord(**members | changes)


def test_key_that_another_client_charged_is_still_valid():
    key = new_key()
    admission = Admission(KeyTable(TerseDynamoDb(to_item(make_key_record(key)), failures=2), name="keys"))
    caller = admission.authenticate([str(key)])
    assert admission.charge(caller).record.key_id == key.key_id


def test_key_that_was_deleted_is_invalid():
    key = new_key()
    database = TerseDynamoDb(to_item(make_key_record(key)), failures=1)
    admission = Admission(KeyTable(database, name="keys"))
    caller = admission.authenticate([str(key)])
    database.item = None
    with pytest.raises(ProblemError) as raised:
        admission.charge(caller)
    assert raised.value.problem.status == 401


def test_finished_job_is_not_taken_for_a_missing_one():
    record = make_record(state=JobState.FINISHED)
    table = JobTable(TerseDynamoDb(job_item(record), failures=2), name="jobs")
    assert table.set_reply(record.job_id, b"") == record
    assert table.claim(record, now_s=0) == record


def test_missing_job_has_no_record():
    assert JobTable(TerseDynamoDb(None, failures=1), name="jobs").set_reply("a", b"") is None


def test_expired_slots_are_removed():
    record = make_record()
    item = {"slots": {"BS": [pending_jobs._entry(record)]}}
    slots = PendingJobs(TerseDynamoDb(item, failures=1), name="jobs")
    slots.reserve(record, limit=1, now_s=10_000)
    with pytest.raises(NoSlotError):
        PendingJobs(TerseDynamoDb(item, failures=1), name="jobs").reserve(record, limit=1, now_s=1_000)
