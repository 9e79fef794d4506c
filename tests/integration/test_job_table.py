"""What is written of a job, in DynamoDB and in the fakes: same answers to the same questions."""

import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from msgspec.structs import replace

from chalicelib import problems
from chalicelib.access.plans import PLANS
from chalicelib.jobs.job_table import TOMBSTONE_S, TTL_ATTRIBUTE, JobRecord, JobTable, JobTableError, from_item, to_item
from chalicelib.jobs.pending_jobs import WaitingJobs
from chalicelib.problems import ProblemError
from infra.local.emulated_aws import client, create_queues_and_tables
from tests.support.fakes.tables import FakeJobTable, FakeWaitingJobs
from tests.support.problems import raises_problem

NOW_S = 1_794_000_000
PLAN = replace(PLANS["free"], max_pending_jobs=3)


@pytest.fixture(scope="module")
def dynamodb(aws):
    return client("dynamodb", aws.environment)


@pytest.fixture(scope="module")
def table_name(aws):
    return create_queues_and_tables(aws.environment, stack=f"s-{uuid.uuid4().hex}")["JOBS_TABLE"]


@pytest.fixture(params=["dynamodb", "fake"])
def table(request, dynamodb, table_name):
    return JobTable(dynamodb, name=table_name) if request.param == "dynamodb" else FakeJobTable()


@pytest.fixture(params=["dynamodb", "fake"])
def waiting(request, dynamodb, table_name):
    return WaitingJobs(dynamodb, name=table_name) if request.param == "dynamodb" else FakeWaitingJobs()


def record(**changes):
    members = {
        "job_id": uuid.uuid4().hex,
        "key_id": "key",
        "fingerprint": "f" * 64,
        "nonce": uuid.uuid4().hex,
        "counted": 1,
        "retry_at": NOW_S + 60,
        "expires_at": NOW_S + 3600,
        "kept_until": NOW_S + 90_000,
        "webhook_url": "https://receiver.example/1",
    }
    return JobRecord(**members | changes)


def claimed(table, **changes):
    return table.claim(record(**changes), now_s=NOW_S)


def unlike(text):
    """A text that looks like something else to whoever guesses types."""
    return pytest.param(text, id=repr(text))


def test_missing_job_returns_none(table):
    assert table.read(uuid.uuid4().hex) is None
    assert table.settle(uuid.uuid4().hex, "{}") is None
    assert table.forget(uuid.uuid4().hex, key_id="key") is None


def test_claimed_job_round_trips(table):
    for changes in ({}, {"counted": 0, "promised": 1, "webhook_url": None, "fingerprint": "", "retry_at": 0}):
        written = record(**changes)
        assert table.claim(written, now_s=NOW_S) is written
        assert table.read(written.job_id) == written


@pytest.mark.parametrize(
    "reply", [unlike(text) for text in ("null", "12", "true", "1e5", "", " ", "{}", "A" * 250_000)]
)
def test_reply_round_trips(table, reply):
    job = claimed(table)
    assert table.settle(job.job_id, reply) == table.read(job.job_id) == replace(job, reply=reply)


def test_second_claim_returns_existing_record(table):
    first = claimed(table)
    assert table.claim(record(job_id=first.job_id, key_id="other"), now_s=NOW_S) == first
    assert table.read(first.job_id) == first


@pytest.mark.parametrize(("now_s", "is_new"), [(NOW_S + 89_999, False), (NOW_S + 90_000, True)])
def test_expired_job_can_be_reclaimed(table, now_s, is_new):
    first = claimed(table)
    table.settle(first.job_id, "{}")
    second = record(job_id=first.job_id, kept_until=NOW_S + 200_000)
    assert (table.claim(second, now_s=now_s) is second) == is_new
    assert (table.read(first.job_id) == second) == is_new


def test_concurrent_claims_have_one_winner(table):
    job_id = uuid.uuid4().hex
    with ThreadPoolExecutor(16) as threads:
        tried = [record(job_id=job_id, fingerprint=f"{n}") for n in range(16)]
        found = list(threads.map(lambda one: table.claim(one, now_s=NOW_S), tried))
    assert sum(one is other for one, other in zip(tried, found, strict=True)) == 1
    assert len({one.fingerprint for one in found}) == 1


def test_first_reply_wins(table):
    job = claimed(table)
    first = table.settle(job.job_id, "first")
    assert table.settle(job.job_id, "second") == first == replace(job, reply="first")


def test_replace_succeeds_when_unchanged(table):
    seen = claimed(table)
    again = replace(seen, nonce="another", retry_at=NOW_S + 120)
    assert table.replace(seen, again) is again
    assert table.replace(seen, replace(seen, retry_at=NOW_S + 180)) == again
    assert table.read(seen.job_id) == again


def test_retried_write_is_recognized_by_token(dynamodb, table_name):
    class Deaf:
        def put_item(self, **arguments):
            dynamodb.put_item(**arguments)
            return dynamodb.put_item(**arguments)

    table = JobTable(Deaf(), name=table_name)
    first, again = record(), record(nonce="another")
    assert table.claim(first, now_s=NOW_S).nonce == first.nonce
    assert table.replace(first, replace(again, job_id=first.job_id)).nonce == again.nonce


def test_finished_or_deleted_job_is_not_replaced(table):
    answered, forgotten = claimed(table), claimed(table)
    expected = [table.settle(answered.job_id, "{}"), table.forget(forgotten.job_id, key_id="key")]
    assert [table.replace(seen, replace(seen, expires_at=1)) for seen in (answered, forgotten)] == expected
    assert [table.read(seen.job_id) for seen in (answered, forgotten)] == expected


def test_accepted_job_is_not_replaced(table):
    seen = claimed(table)
    promised = table.replace(seen, replace(seen, promised=1))
    assert table.replace(seen, replace(seen, nonce="another")) == table.read(seen.job_id) == promised


def test_missing_job_is_not_replaced(table):
    seen = record()
    with pytest.raises(JobTableError):
        table.replace(seen, seen)
    assert table.read(seen.job_id) is None


def test_released_claim_leaves_no_record(table):
    job = claimed(table)
    table.unclaim(job)
    table.unclaim(job)
    assert table.read(job.job_id) is None


def test_changed_claim_is_not_released(table):
    answered, sent_again = claimed(table), claimed(table)
    table.settle(answered.job_id, "{}")
    table.replace(sent_again, replace(sent_again, nonce="another"))
    for job in (answered, sent_again):
        table.unclaim(job)
        assert table.read(job.job_id) is not None


def test_deleted_job_keeps_no_data_and_accepts_no_reply(table):
    job = claimed(table)
    table.settle(job.job_id, "{}")
    empty = replace(job, reply=None, webhook_url=None, forgotten=1)
    assert table.forget(job.job_id, key_id="key") == empty
    assert table.forget(job.job_id, key_id="key") == empty
    assert table.settle(job.job_id, "{}") == empty
    assert table.read(job.job_id) == empty


@pytest.mark.parametrize(
    ("key_id", "changes"), [("other", {}), ("key", {"fingerprint": ""})], ids=["of_another_key", "not_asked_for"]
)
def test_foreign_job_is_not_deleted(table, key_id, changes):
    job = claimed(table, **changes)
    assert table.forget(job.job_id, key_id=key_id) == job
    assert table.read(job.job_id) == job


def test_accepted_job_can_be_deleted(table):
    assert table.forget(claimed(table, fingerprint="", promised=1).job_id, key_id="key").forgotten


def test_ttl_is_one_day_after_retention():
    job = record()
    assert to_item(job)[TTL_ATTRIBUTE] == {"N": str(job.kept_until + TOMBSTONE_S)}
    assert from_item(to_item(job)) == job


def test_missing_table_raises(dynamodb):
    table, waiting, job = JobTable(dynamodb, name="nowhere"), WaitingJobs(dynamodb, name="nowhere"), record()
    calls = [
        lambda: table.read(job.job_id),
        lambda: table.claim(job, now_s=NOW_S),
        lambda: table.replace(job, job),
        lambda: table.unclaim(job),
        lambda: table.settle(job.job_id, "{}"),
        lambda: table.forget(job.job_id, key_id="key"),
        lambda: waiting.add("a", key_id="key", plan=PLAN, until=1, now_s=0),
        lambda: waiting.remove("a", key_id="key", until=1),
    ]
    for call in calls:
        with pytest.raises(JobTableError):
            call()


def test_malformed_item_raises():
    for item in ({"job_id": {"S": "x"}}, to_item(record()) | {"expires_at": {"S": "soon"}}):
        with pytest.raises(JobTableError):
            from_item(item)


def add(waiting, job_id, *, key_id, until=NOW_S + 60, now_s=NOW_S):
    waiting.add(job_id, key_id=key_id, plan=PLAN, until=until, now_s=now_s)


@pytest.fixture
def key_id():
    return uuid.uuid4().hex


def full(waiting, key_id, **changes):
    for n in range(PLAN.max_pending_jobs):
        add(waiting, f"{n}", key_id=key_id, **changes)


def test_pending_jobs_up_to_plan_limit_are_accepted(waiting, key_id):
    full(waiting, key_id)
    with raises_problem(problems.TOO_MANY_PENDING_JOBS):
        add(waiting, "one more", key_id=key_id)
    add(waiting, "one", key_id=f"other than {key_id}")


def test_adding_pending_job_is_idempotent(waiting, key_id):
    full(waiting, key_id)
    full(waiting, key_id)
    waiting.remove("0", key_id=key_id, until=NOW_S + 60)
    add(waiting, "one more", key_id=key_id)


def test_removing_pending_job_is_idempotent(waiting, key_id):
    waiting.remove("0", key_id=key_id, until=NOW_S + 60)
    full(waiting, key_id)
    for _ in range(2):
        waiting.remove("0", key_id=key_id, until=NOW_S + 60)
    add(waiting, "one more", key_id=key_id)
    with raises_problem(problems.TOO_MANY_PENDING_JOBS):
        add(waiting, "two more", key_id=key_id)


def test_expired_entry_frees_slot(waiting, key_id):
    add(waiting, "over", key_id=key_id, until=NOW_S + 10)
    for n in range(PLAN.max_pending_jobs - 1):
        add(waiting, f"{n}", key_id=key_id)
    with raises_problem(problems.TOO_MANY_PENDING_JOBS):
        add(waiting, "early", key_id=key_id, now_s=NOW_S + 9)
    add(waiting, "later", key_id=key_id, now_s=NOW_S + 10)
    with raises_problem(problems.TOO_MANY_PENDING_JOBS):
        add(waiting, "one more", key_id=key_id, now_s=NOW_S + 10)


def test_removing_last_entry_frees_all_slots(waiting, key_id):
    add(waiting, "a", key_id=key_id)
    waiting.remove("a", key_id=key_id, until=NOW_S + 60)
    full(waiting, key_id)


def test_concurrent_adds_respect_plan_limit(waiting, key_id):
    def try_(n):
        try:
            add(waiting, f"{n}", key_id=key_id)
        except ProblemError:
            return False
        return True

    with ThreadPoolExecutor(16) as threads:
        assert sum(threads.map(try_, range(16))) == PLAN.max_pending_jobs
