"""Test the job table and the slots of pending jobs, in DynamoDB and in the fakes that stand for them."""

import itertools
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from msgspec.structs import replace

from chalicelib.contract import MAX_MESSAGE_BYTES, pack
from chalicelib.dynamodb import TableError, from_item
from chalicelib.jobs.job_results import JobResults
from chalicelib.jobs.job_table import (
    TOMBSTONE_TTL_S,
    TRANSITIONS,
    TTL_ATTRIBUTE,
    JobRecord,
    JobState,
    JobTable,
    states_before,
    to_item,
)
from chalicelib.jobs.pending_jobs import ABANDON_AFTER_S, NoSlotError, PendingJobs
from infra.local.emulated_aws import create_resources
from tests.support.fakes.payloads import FakePayloadStore
from tests.support.fakes.tables import FakeJobTable, FakePendingJobs
from tests.support.records import make_result

NOW_S = 1_794_000_000
LIMIT = 3


@pytest.fixture(scope="module")
def table_name(aws):
    return create_resources(aws.environment, stack=f"s-{uuid.uuid4().hex}")["JOBS_TABLE"]


@pytest.fixture(params=["dynamodb", "fake"])
def table(request, dynamodb, table_name):
    return JobTable(dynamodb, name=table_name) if request.param == "dynamodb" else FakeJobTable()


@pytest.fixture(params=["dynamodb", "fake"])
def pending_jobs(request, dynamodb, table_name):
    return PendingJobs(dynamodb, name=table_name) if request.param == "dynamodb" else FakePendingJobs()


def record(**changes):
    members = {
        "job_id": uuid.uuid4().hex,
        "key_id": "key",
        "state": JobState.CLAIMED,
        "body_sha256": "f" * 64,
        "claim_token": uuid.uuid4().hex,
        "holds_slot": True,
        "claim_expires_at": NOW_S + 60,
        "start_deadline": NOW_S + 3600,
        "retained_until": NOW_S + 90_000,
        "webhook_url": "https://receiver.example/1",
    }
    return JobRecord(**members | changes)


def claimed(table, **changes):
    return table.claim(record(**changes), now_s=NOW_S)


def test_missing_job_returns_none(table):
    assert table.read(uuid.uuid4().hex) is None
    assert table.set_reply(uuid.uuid4().hex, b"x") is None
    assert table.mark_deleted(uuid.uuid4().hex, key_id="key") is None


def test_claimed_job_round_trips(table):
    bare = {"holds_slot": False, "webhook_url": None, "body_sha256": "", "claim_expires_at": 0}
    for changes in ({}, {"state": JobState.ACCEPTED, **bare}, {"state": JobState.HIDDEN, "reply": b"x"}):
        written = record(**changes)
        assert table.claim(written, now_s=NOW_S) is written
        assert table.read(written.job_id) == written


@pytest.mark.parametrize("reply", [b"", b"12", b"\0\xff", b"eA==", bytes(range(256)) * 1280], ids=range(5))
def test_reply_round_trips(table, reply):
    job = claimed(table)
    assert (
        table.set_reply(job.job_id, reply)
        == table.read(job.job_id)
        == replace(job, state=JobState.FINISHED, reply=reply)
    )


def test_largest_result_is_stored(table):
    """The largest that fits in a message; tests/unit/test_message_sizes.py computes the size of the whole item."""
    reply = pack(make_result("0" * 32, stdout="x" * MAX_MESSAGE_BYTES))
    job, hidden = claimed(table), record(state=JobState.HIDDEN, reply=reply)
    assert table.set_reply(job.job_id, reply) == table.read(job.job_id) == replace(job, state="finished", reply=reply)
    assert table.claim(hidden, now_s=NOW_S) == table.read(hidden.job_id) == hidden


def test_second_claim_returns_existing_record(table):
    first = claimed(table)
    assert table.claim(record(job_id=first.job_id, key_id="other"), now_s=NOW_S) == first
    assert table.read(first.job_id) == first


@pytest.mark.parametrize(("now_s", "is_new"), [(NOW_S + 89_999, False), (NOW_S + 90_000, True)])
def test_expired_job_can_be_reclaimed(table, now_s, is_new):
    first = claimed(table)
    table.set_reply(first.job_id, b"x")
    second = record(job_id=first.job_id, retained_until=NOW_S + 200_000)
    assert (table.claim(second, now_s=now_s) is second) == is_new
    assert (table.read(first.job_id) == second) == is_new


def test_concurrent_claims_have_one_winner(table):
    job_id = uuid.uuid4().hex
    with ThreadPoolExecutor(16) as threads:
        tried = [record(job_id=job_id, body_sha256=f"{n}") for n in range(16)]
        stored = list(threads.map(lambda one: table.claim(one, now_s=NOW_S), tried))
    assert sum(one is other for one, other in zip(tried, stored, strict=True)) == 1
    assert len({one.body_sha256 for one in stored}) == 1


def test_first_reply_wins(table):
    job = claimed(table)
    first = table.set_reply(job.job_id, b"first")
    assert table.set_reply(job.job_id, b"second") == first == replace(job, state=JobState.FINISHED, reply=b"first")


def test_replace_succeeds_when_unchanged(table):
    current = claimed(table)
    taken_over = replace(current, claim_token="another", claim_expires_at=NOW_S + 120)
    assert table.replace_if_unchanged(current, taken_over) is taken_over
    assert table.replace_if_unchanged(current, replace(current, claim_expires_at=NOW_S + 180)) == taken_over
    assert table.read(current.job_id) == taken_over


def test_retried_write_is_recognized_by_token(dynamodb, table_name):
    class DropsFirstResponse:
        def put_item(self, **arguments):
            dynamodb.put_item(**arguments)
            return dynamodb.put_item(**arguments)

    table = JobTable(DropsFirstResponse(), name=table_name)
    first, second = record(), record(claim_token="another")
    assert table.claim(first, now_s=NOW_S).claim_token == first.claim_token
    assert table.replace_if_unchanged(first, replace(second, job_id=first.job_id)).claim_token == second.claim_token


class Interleaved:
    """A DynamoDB client: another process acts right before one of its calls."""

    def __init__(self, dynamodb, act, *, before_call):
        self._dynamodb, self._act, self._before_call, self._calls = dynamodb, act, before_call, itertools.count()

    def __getattr__(self, operation):
        def call(**arguments):
            if next(self._calls) == self._before_call:
                self._act()
            return getattr(self._dynamodb, operation)(**arguments)

        return call


@pytest.fixture(params=range(6))
def interleaved(request, dynamodb, table_name):
    """Return a job, and its table for a process that makes some calls before another process accepts the job."""
    job, table = record(state=JobState.ACCEPTED), JobTable(dynamodb, name=table_name)
    client = Interleaved(dynamodb, lambda: table.claim(job, now_s=NOW_S), before_call=request.param)
    return job, JobTable(client, name=table_name)


def test_result_is_kept_whenever_its_job_is_accepted(interleaved, dynamodb, table_name):
    job, table = interleaved
    results = JobResults(
        table, PendingJobs(dynamodb, name=table_name), FakePayloadStore(), lambda _: None, clock=lambda: NOW_S
    )
    reply = make_result(job.job_id)
    stored = results.record_reply(reply, key_id=job.key_id)
    assert stored == table.read(job.job_id)
    assert (stored.state, stored.reply) in [(JobState.FINISHED, pack(reply)), (JobState.HIDDEN, pack(reply))]


def test_deletion_is_confirmed_only_if_the_job_is_deleted(interleaved):
    job, table = interleaved
    deleted = table.mark_deleted(job.job_id, key_id=job.key_id)
    assert deleted is None or (deleted.state is JobState.DELETED and deleted == table.read(job.job_id))


def test_finished_or_deleted_job_is_not_replaced(table):
    finished, deleted = claimed(table), claimed(table)
    expected = [table.set_reply(finished.job_id, b"x"), table.mark_deleted(deleted.job_id, key_id="key")]
    assert [table.replace_if_unchanged(job, replace(job, start_deadline=1)) for job in (finished, deleted)] == expected
    assert [table.read(job.job_id) for job in (finished, deleted)] == expected


def test_accepted_job_is_not_replaced(table):
    current = claimed(table)
    accepted = table.replace_if_unchanged(current, replace(current, state=JobState.ACCEPTED))
    replaced = table.replace_if_unchanged(current, replace(current, claim_token="another"))
    assert replaced == table.read(current.job_id) == accepted


def test_missing_job_is_not_replaced(table):
    missing = record()
    with pytest.raises(TableError):
        table.replace_if_unchanged(missing, missing)
    assert table.read(missing.job_id) is None


def test_released_claim_leaves_no_record(table):
    job = claimed(table)
    table.release_claim(job)
    table.release_claim(job)
    assert table.read(job.job_id) is None


def test_changed_claim_is_not_released(table):
    finished, taken_over = claimed(table), claimed(table)
    table.set_reply(finished.job_id, b"x")
    table.replace_if_unchanged(taken_over, replace(taken_over, claim_token="another"))
    for job in (finished, taken_over):
        table.release_claim(job)
        assert table.read(job.job_id) is not None


def test_deleted_job_keeps_no_data_and_accepts_no_reply(table):
    job = claimed(table, expectations=b"x")
    table.set_reply(job.job_id, b"x")
    empty = replace(job, state=JobState.DELETED, reply=None, expectations=b"", webhook_url=None)
    assert table.mark_deleted(job.job_id, key_id="key") == empty
    assert table.mark_deleted(job.job_id, key_id="key") == empty
    assert table.set_reply(job.job_id, b"x") == empty
    assert table.read(job.job_id) == empty


@pytest.mark.parametrize(
    ("key_id", "changes"), [("other", {}), ("key", {"state": JobState.HIDDEN})], ids=["foreign", "hidden"]
)
def test_foreign_job_is_not_deleted(table, key_id, changes):
    job = claimed(table, **changes)
    assert table.mark_deleted(job.job_id, key_id=key_id) == job
    assert table.read(job.job_id) == job


def test_accepted_job_can_be_deleted(table):
    accepted = claimed(table, body_sha256="", state=JobState.ACCEPTED)
    assert table.mark_deleted(accepted.job_id, key_id="key").state is JobState.DELETED


def test_ttl_is_one_day_after_retention():
    job = record()
    assert to_item(job)[TTL_ATTRIBUTE] == {"N": str(job.retained_until + TOMBSTONE_TTL_S)}
    assert from_item(to_item(job), JobRecord) == job


def test_transitions_are_enforced(table):
    """Try every write on a record in every state."""
    writes = {
        JobState.CLAIMED: lambda job: table.replace_if_unchanged(job, replace(job, state=JobState.CLAIMED)),
        JobState.ACCEPTED: lambda job: table.replace_if_unchanged(job, replace(job, state=JobState.ACCEPTED)),
        JobState.FINISHED: lambda job: table.set_reply(job.job_id, b"x"),
        JobState.DELETED: lambda job: table.mark_deleted(job.job_id, key_id="key"),
        None: table.release_claim,
    }
    for before in JobState:
        for after, write in writes.items():
            job = claimed_in_state(table, before)
            write(job)
            current = table.read(job.job_id)
            expected = after if before in states_before(after) else before
            assert (current and current.state) == expected, (before, after)


def claimed_in_state(table, state):
    """Store a record in a state, on a legal path to it."""
    first = state if state in TRANSITIONS[None] else JobState.CLAIMED
    job = claimed(table, state=first)
    if state is JobState.FINISHED:
        return table.set_reply(job.job_id, b"x")
    return table.mark_deleted(job.job_id, key_id="key") if state is JobState.DELETED else job


def test_missing_table_raises(dynamodb):
    table, pending_jobs, job = JobTable(dynamodb, name="nowhere"), PendingJobs(dynamodb, name="nowhere"), record()
    calls = [
        lambda: table.read(job.job_id),
        lambda: table.claim(job, now_s=NOW_S),
        lambda: table.replace_if_unchanged(job, job),
        lambda: table.release_claim(job),
        lambda: table.set_reply(job.job_id, b"x"),
        lambda: table.mark_deleted(job.job_id, key_id="key"),
        lambda: pending_jobs.reserve(job, limit=LIMIT, now_s=0),
        lambda: pending_jobs.release(job),
    ]
    for call in calls:
        with pytest.raises(TableError):
            call()


def test_malformed_item_raises():
    for item in ({"job_id": {"S": "x"}}, to_item(record()) | {"start_deadline": {"S": "soon"}}):
        with pytest.raises(TableError):
            from_item(item, JobRecord)


def make_job(job_id, *, key_id, slot_expires_at=NOW_S + 60):
    return record(job_id=job_id, key_id=key_id, start_deadline=slot_expires_at - ABANDON_AFTER_S)


def reserve(pending_jobs, job_id, *, key_id, now_s=NOW_S, **options):
    pending_jobs.reserve(make_job(job_id, key_id=key_id, **options), limit=LIMIT, now_s=now_s)


@pytest.fixture
def key_id():
    return uuid.uuid4().hex


def reserve_all(pending_jobs, key_id):
    for number in range(LIMIT):
        reserve(pending_jobs, f"{number}", key_id=key_id)


def test_pending_jobs_up_to_plan_limit_are_accepted(pending_jobs, key_id):
    reserve_all(pending_jobs, key_id)
    with pytest.raises(NoSlotError):
        reserve(pending_jobs, "one more", key_id=key_id)
    reserve(pending_jobs, "one", key_id=f"other than {key_id}")


def test_reserving_a_slot_is_idempotent(pending_jobs, key_id):
    reserve_all(pending_jobs, key_id)
    reserve_all(pending_jobs, key_id)
    pending_jobs.release(make_job("0", key_id=key_id))
    reserve(pending_jobs, "one more", key_id=key_id)


def test_releasing_a_slot_is_idempotent(pending_jobs, key_id):
    pending_jobs.release(make_job("0", key_id=key_id))
    reserve_all(pending_jobs, key_id)
    for _ in range(2):
        pending_jobs.release(make_job("0", key_id=key_id))
    reserve(pending_jobs, "one more", key_id=key_id)
    with pytest.raises(NoSlotError):
        reserve(pending_jobs, "two more", key_id=key_id)


def test_expired_slot_is_free(pending_jobs, key_id):
    reserve(pending_jobs, "lost", key_id=key_id, slot_expires_at=NOW_S + 10)
    for number in range(LIMIT - 1):
        reserve(pending_jobs, f"{number}", key_id=key_id)
    with pytest.raises(NoSlotError):
        reserve(pending_jobs, "early", key_id=key_id, now_s=NOW_S + 9)
    reserve(pending_jobs, "later", key_id=key_id, now_s=NOW_S + 10)
    with pytest.raises(NoSlotError):
        reserve(pending_jobs, "one more", key_id=key_id, now_s=NOW_S + 10)


def test_releasing_the_last_slot_frees_all(pending_jobs, key_id):
    reserve(pending_jobs, "a", key_id=key_id)
    pending_jobs.release(make_job("a", key_id=key_id))
    reserve_all(pending_jobs, key_id)


def test_concurrent_reservations_respect_plan_limit(pending_jobs, key_id):
    def try_(number):
        try:
            reserve(pending_jobs, f"{number}", key_id=key_id)
        except NoSlotError:
            return False
        return True

    with ThreadPoolExecutor(16) as threads:
        assert sum(threads.map(try_, range(16))) == LIMIT
