"""Orders to jobs and results, with tables and hosts in memory."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from msgspec.structs import replace

from chalicelib import problems
from chalicelib.access.plans import PLANS
from chalicelib.api.run_request import RunRequest
from chalicelib.contract import Failure, FailureReason, encode
from chalicelib.jobs.job_results import FOUND_KEPT_S, SETTLED_AFTER_S, Results, waits_until
from chalicelib.jobs.job_table import JobRecord, JobTableError
from chalicelib.jobs.job_view import of_record
from chalicelib.jobs.submission import ASYNC_LIFE_S, SENDING_S, SYNC_LIFE_S, WAITING_S, Order, idempotent_id
from chalicelib.jobs.submit import PATIENCE_S, Jobs
from chalicelib.problems import ProblemError
from tests.support.fakes.sqs import client_error
from tests.support.fakes.tables import FakeJobTable, FakeWaitingJobs
from tests.support.problems import raises_problem
from tests.support.records import make_result

NOW = 1_794_000_000.5
KEPT_S = 1000
PLAN = replace(PLANS["free"], max_pending_jobs=2)


class FakeHostRegistry:
    """Answers with `reply(job)`: None is late. `error` is raised instead of sending."""

    def __init__(self):
        self.sent = []
        self.put_back_ids = []
        self.error = None
        self.reply = lambda job: make_result(job.id, stdout=f"run {len(self.sent)}")

    def reply_to(self):
        return "http://queue/reply"

    def run(self, job, *, key_id, if_late):
        self.send(job, key_id=key_id)
        if (reply := self.reply(job)) is None:
            if_late()
        return reply

    def put_back(self, job_id):
        self.put_back_ids.append(job_id)

    def send(self, job, *, key_id):
        if self.error:
            raise self.error
        self.sent.append((job, key_id))


class FakeWebhooks:
    def __init__(self):
        self.enqueued = []

    def enqueue(self, record):
        self.enqueued.append(record.job_id)


class World:
    """Everything around Jobs, and a clock that moves only when told, or when somebody sleeps."""

    def __init__(self):
        self.now = NOW
        self.table, self.hosts = FakeJobTable(), FakeHostRegistry()
        self.waiting, self.webhooks = FakeWaitingJobs(), FakeWebhooks()
        self.admitted = []  # runs of each request
        self.refusal = None
        self.results = Results(self.table, waiting=self.waiting, webhooks=self.webhooks, clock=lambda: self.now)
        self.jobs = Jobs(
            self.table,
            hosts=self.hosts,
            waiting=self.waiting,
            results=self.results,
            result_retention_s=KEPT_S,
            clock=lambda: self.now,
            sleep=self.sleep,
        )
        self.while_asleep = lambda: None

    def sleep(self, seconds):
        self.now += seconds
        self.while_asleep()

    @property
    def paid(self):
        return sum(self.admitted)

    def admit(self, *, runs):
        if self.refusal:
            raise self.refusal
        self.admitted.append(runs)

    def submit(self, **changes):
        return self.jobs.submit(order(**changes), admit=self.admit)

    @property
    def only(self):
        (record,) = self.table.records.values()
        return record


def order(**changes):
    members = {
        "request": RunRequest(code="c", input="i", timeout_s=2.5),
        "key_id": "key",
        "plan": PLAN,
        "wait_s": 20.0,
        "body": b"body",
    }
    return Order(**members | changes)


@pytest.fixture
def world():
    return World()


def test_sync_result_is_returned_without_storing_record(world):
    reply = world.submit()
    ((job, key_id),) = world.hosts.sent
    assert (reply, key_id, world.admitted) == (make_result(job.id, stdout="run 1"), "key", [1])
    assert (job.code, job.input, job.timeout_s, job.reply_to) == ("c", "i", 2.5, "http://queue/reply")
    assert (job.submitted_at, job.reply_by, job.expires_at) == (NOW, NOW + 20, int(NOW) + SYNC_LIFE_S)
    assert world.table.records == {}


def test_job_ids_are_unique(world):
    assert world.submit().id != world.submit().id


@pytest.mark.parametrize("changes", [{}, {"idempotency_key": "k"}, {"is_async": True}, {"is_counted": True}], ids=str)
def test_rejected_submission_sends_and_stores_nothing(world, changes):
    world.refusal = ProblemError(problems.JOB_QUEUE_UNAVAILABLE)
    with raises_problem(problems.JOB_QUEUE_UNAVAILABLE):
        world.submit(**changes)
    assert (world.table.records, world.hosts.sent, world.waiting.entries["key"]) == ({}, [], {})


def test_late_result_is_accepted_and_stored(world):
    world.hosts.reply = lambda _: None
    record = world.submit()
    assert (record.reply, record.key_id, record.kept_until) == (None, "key", int(NOW) + SYNC_LIFE_S + KEPT_S)
    world.results.settle(make_result(record.job_id), key_id="key")
    assert of_record(world.results.get(record.job_id, key_id="key"))["stdout"] == "out"


def test_result_stored_before_acceptance_is_returned(world):
    world.hosts.reply = lambda job: world.results.settle(make_result(job.id), key_id="key") and None
    assert world.submit().reply == encode(make_result(world.only.job_id))


def test_accept_failure_returns_504(world):
    def reply(_):
        world.table.failing = True

    world.hosts.reply = reply
    with raises_problem(problems.RESULT_TIMEOUT):
        world.submit()


def test_async_job_is_accepted_immediately(world):
    record = world.submit(is_async=True)
    ((job, _),) = world.hosts.sent
    assert (job.reply_to, job.expires_at, record.job_id) == (None, int(NOW) + ASYNC_LIFE_S, job.id)
    assert world.results.get(job.id, key_id="key").reply is None


def test_async_send_failure_leaves_no_record(world):
    world.hosts.error = ProblemError(problems.JOB_QUEUE_UNAVAILABLE)
    with raises_problem(problems.JOB_QUEUE_UNAVAILABLE):
        world.submit(is_async=True)
    assert (world.table.records, world.waiting.entries["key"]) == ({}, {})


def test_pending_jobs_are_limited_by_plan(world):
    first = world.submit(is_async=True)
    world.submit(is_async=True)
    with raises_problem(problems.TOO_MANY_PENDING_JOBS):
        world.submit(is_async=True)
    assert len(world.hosts.sent) == len(world.table.records) == PLAN.max_pending_jobs == world.paid
    world.results.settle(make_result(first.job_id))
    world.submit(is_async=True)


def test_lost_job_slot_expires(world):
    last = [world.submit(is_async=True) for _ in range(PLAN.max_pending_jobs)][-1]
    world.now = waits_until(last)
    world.submit(is_async=True)


@pytest.mark.parametrize("changes", [{}, {"idempotency_key": "k"}], ids=["plain", "idempotent"])
def test_sync_job_reserves_slot_under_pressure(world, changes):
    counted = []
    world.hosts.reply = lambda job: counted.append(len(world.waiting.entries["key"])) or make_result(job.id)
    world.submit(**changes, is_counted=True)
    world.submit()
    assert (counted, world.waiting.entries["key"]) == ([1, 0], {})


def test_slot_is_released_on_send_failure(world):
    world.hosts.error = ProblemError(problems.JOB_QUEUE_UNAVAILABLE)
    with raises_problem(problems.JOB_QUEUE_UNAVAILABLE):
        world.submit(is_counted=True)
    assert world.waiting.entries["key"] == {}


def test_late_job_holds_slot_until_result(world):
    world.hosts.reply = lambda _: None
    record = world.submit(is_counted=True)
    assert len(world.waiting.entries["key"]) == 1
    world.results.settle(make_result(record.job_id))
    assert world.waiting.entries["key"] == {}


def test_slot_release_failure_does_not_fail_request(world):
    def remove(*_, **__):
        raise JobTableError("gone")

    world.waiting.remove = remove
    assert world.submit(is_counted=True).stdout == "run 1"


@pytest.mark.parametrize("is_async", [False, True])
def test_idempotent_request_runs_once(world, is_async):
    first = world.submit(idempotency_key="k", is_async=is_async)
    again = world.submit(idempotency_key="k", is_async=is_async)
    assert (len(world.hosts.sent), world.admitted) == (1, [1, 0])
    assert (again.job_id, again.reply) == (first.job_id, first.reply)


def test_idempotent_replay_is_rate_limited(world):
    world.submit(idempotency_key="k")
    world.refusal = ProblemError(problems.JOB_QUEUE_UNAVAILABLE)
    with raises_problem(problems.JOB_QUEUE_UNAVAILABLE):
        world.submit(idempotency_key="k")
    assert world.only.reply is not None


def test_idempotency_key_is_scoped_to_customer(world):
    world.submit(idempotency_key="k")
    world.submit(idempotency_key="k", key_id="other")
    assert len(world.hosts.sent) == 2


def test_idempotency_key_reuse_with_different_body_is_rejected(world):
    world.submit(idempotency_key="k")
    with raises_problem(problems.IDEMPOTENCY_KEY_REUSED):
        world.submit(idempotency_key="k", body=b"other")
    assert (len(world.hosts.sent), world.paid) == (1, 1)


def test_expired_idempotency_key_starts_new_job(world):
    world.submit(idempotency_key="k")
    world.now = world.only.kept_until
    world.submit(idempotency_key="k", body=b"other")
    assert (len(world.hosts.sent), world.paid) == (2, 2)


def test_replay_waits_for_running_job(world):
    world.hosts.reply = lambda _: None
    promised = world.submit(idempotency_key="k")
    world.while_asleep = lambda: world.now > NOW + 3 and world.results.settle(make_result(promised.job_id))
    assert world.submit(idempotency_key="k").reply == encode(make_result(promised.job_id))
    assert (len(world.hosts.sent), world.paid) == (1, 1)


def test_replay_of_late_job_returns_same_pending_job(world):
    world.hosts.reply = lambda _: None
    promised = world.submit(idempotency_key="k")
    assert world.submit(idempotency_key="k") == promised
    assert NOW + 20 <= world.now < NOW + 21
    assert len(world.hosts.sent) == 1


def test_waiting_replay_does_not_write(world):
    world.hosts.reply = lambda _: None
    world.submit(idempotency_key="k")
    writes = []
    for name in ("claim", "replace"):
        write = getattr(world.table, name)
        setattr(world.table, name, lambda *a, _write=write, **k: writes.append(1) or _write(*a, **k))
    world.submit(idempotency_key="k")
    assert len(writes) == 1


def test_first_result_wins(world):
    world.hosts.reply = lambda job: world.results.settle(make_result(job.id, stdout="first")) and make_result(job.id)
    reply = world.submit(idempotency_key="k")
    assert of_record(reply)["stdout"] == "first"


class DiedError(BaseException):
    """The process ends here."""


def dies(*_, **__):
    raise DiedError


def died(world, where, **changes):
    """The process of a first request dies."""
    if where == "before_it_sent":
        world.hosts.send = dies
    elif changes.get("is_async"):
        world.table.replace = dies
    else:
        world.hosts.reply = dies
    with pytest.raises(DiedError):
        world.submit(idempotency_key="k", **changes)
    for alive in (world.hosts, world.table):
        for method in ("send", "replace"):
            vars(alive).pop(method, None)
    world.hosts.reply = lambda job: make_result(job.id, stdout="second")


@pytest.mark.parametrize("where", ["before_it_sent", "before_it_answered"])
@pytest.mark.parametrize("was_async", [False, True], ids=["waited_for", "async"])
@pytest.mark.parametrize(
    "again",
    [{"is_async": True}, {}, {"wait_s": 1.0}, {"wait_s": 25.0}],
    ids=["async_again", "waited_for_again", "short_wait", "long_wait"],
)
def test_replay_resends_job_after_process_death_without_charge(world, where, was_async, again):
    died(world, where, is_async=was_async)
    before = len(world.hosts.sent)
    record = world.submit(idempotency_key="k", **again)
    assert len(world.hosts.sent) == before + 1
    assert (world.paid, {job.id for job, _ in world.hosts.sent}) == (1, {record.job_id})
    assert (record.reply is not None) or record.promised
    assert world.now - NOW <= again.get("wait_s", 0 if "is_async" in again else 20) + PATIENCE_S + 3
    sent = len(world.hosts.sent)
    world.submit(idempotency_key="k", is_async=True)
    assert len(world.hosts.sent) == sent


def test_replay_waits_again_after_process_death(world):
    died(world, "before_it_answered")
    world.now += 20 + WAITING_S + 1
    reply = world.submit(idempotency_key="k")
    assert (of_record(reply)["stdout"], world.now) == ("second", NOW + 20 + WAITING_S + 1)


def test_only_one_concurrent_replay_resends_job(world):
    died(world, "before_it_sent", is_async=True)
    world.now += SENDING_S + 1
    begun = threading.Barrier(16)
    world.jobs._sleep = lambda _: time.sleep(0.01)

    def submit(_):
        begun.wait()
        return world.submit(idempotency_key="k", is_async=True)

    with ThreadPoolExecutor(16) as threads:
        assert all(record.promised for record in threads.map(submit, range(16)))
    assert (len(world.hosts.sent), len(world.waiting.entries["key"])) == (1, 1)


def test_accepted_async_job_is_never_resent(world):
    first = world.submit(idempotency_key="k", is_async=True)
    world.now = NOW + ASYNC_LIFE_S - 1
    assert world.submit(idempotency_key="k", is_async=True) == first
    assert (world.paid, len(world.hosts.sent)) == (1, 1)


def test_sent_async_job_survives_accept_failure(world):
    send = world.hosts.send

    def send_and_lose_the_table(job, *, key_id):
        send(job, key_id=key_id)
        world.table.failing = True

    world.hosts.send = send_and_lose_the_table
    with raises_problem(problems.JOB_STORE_UNAVAILABLE):
        world.submit(idempotency_key="k", is_async=True)
    assert len(world.table.records) == len(world.waiting.entries["key"]) == 1


def test_replay_sends_job_after_slot_reservation_failure(world):
    add, world.waiting.add = world.waiting.add, lambda *_, **__: (_ for _ in ()).throw(JobTableError("gone"))
    with raises_problem(problems.JOB_STORE_UNAVAILABLE):
        world.submit(idempotency_key="k", is_async=True)
    world.waiting.add = add
    assert world.submit(idempotency_key="k", is_async=True).promised
    assert (world.paid, len(world.hosts.sent)) == (1, 1)


@pytest.mark.parametrize("is_async", [False, True])
def test_resent_job_gets_full_lifetime(world, is_async):
    world.hosts.error = ProblemError(problems.JOB_QUEUE_UNAVAILABLE)
    with raises_problem(problems.JOB_QUEUE_UNAVAILABLE):
        world.submit(idempotency_key="k", is_async=is_async)
    world.hosts.error = None
    world.now += ASYNC_LIFE_S
    world.submit(idempotency_key="k", is_async=True)
    ((job, _),) = world.hosts.sent
    assert job.expires_at == world.only.expires_at == int(world.now) + ASYNC_LIFE_S
    assert list(world.waiting.entries["key"]) == [(job.id, waits_until(world.only))]


def test_replay_does_not_resend_while_first_request_is_active(world):
    again = []

    def reply(job):
        world.while_asleep = lambda: world.now > NOW + 3 and world.jobs._promise(world.only, is_stored=True)
        again.append(world.submit(idempotency_key="k", wait_s=1.0))
        return make_result(job.id)

    world.hosts.reply = reply
    assert world.submit(idempotency_key="k", wait_s=1.0).reply is not None
    assert (len(world.hosts.sent), again[0].promised) == (1, 1)


def test_replay_with_shorter_wait_resends_and_is_accepted(world):
    again = []

    def reply(job):
        if not again:
            again.append(None)
            again[0] = world.submit(idempotency_key="k", wait_s=1.0)
        return make_result(job.id)

    world.hosts.reply = reply
    reply = world.submit(idempotency_key="k", wait_s=20.0)
    assert ([job.reply_to is None for job, _ in world.hosts.sent], again[0].promised) == ([False, True], 1)
    assert reply.reply == world.only.reply


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("again_async", [False, True])
def test_idempotent_send_failure_is_charged_once(world, is_async, again_async):
    world.hosts.error = ProblemError(problems.JOB_QUEUE_UNAVAILABLE)
    with raises_problem(problems.JOB_QUEUE_UNAVAILABLE):
        world.submit(idempotency_key="k", is_async=is_async)
    world.hosts.error = None
    began = world.now
    world.submit(idempotency_key="k", is_async=again_async)
    assert (world.paid, len(world.hosts.sent), world.now) == (1, 1, began)


def test_unstorable_result_is_redelivered(world):
    def reply(job):
        world.table.failing = True
        return make_result(job.id)

    world.hosts.reply = reply
    with raises_problem(problems.JOB_STORE_UNAVAILABLE):
        world.submit(idempotency_key="k")
    ((job, _),) = world.hosts.sent
    assert world.hosts.put_back_ids == [job.id]


def test_rejected_idempotent_request_can_be_retried(world):
    world.refusal = ProblemError(problems.TOO_MANY_PENDING_JOBS)
    with raises_problem(problems.TOO_MANY_PENDING_JOBS):
        world.submit(idempotency_key="k")
    assert world.table.records == {}
    world.refusal = None
    world.submit(idempotency_key="k", body=b"other")


def test_replay_of_rejected_request_returns_503(world):
    seen = world.jobs._record(order(idempotency_key="k"), idempotent_id(order(idempotency_key="k")))
    world.table.claim(seen, now_s=int(NOW))
    world.while_asleep = lambda: world.table.unclaim(seen)
    with raises_problem(problems.JOB_STORE_UNAVAILABLE):
        world.submit(idempotency_key="k")


def test_concurrent_first_requests_run_and_charge_once(world):
    begun = threading.Barrier(32)
    admitted = []

    def submit(_):
        begun.wait()
        return world.jobs.submit(order(idempotency_key="k"), admit=lambda *, runs: admitted.append(runs))

    world.hosts.reply = lambda job: time.sleep(0.05) or make_result(job.id)
    world.jobs._sleep = lambda _: time.sleep(0.01)
    with ThreadPoolExecutor(32) as threads:
        replies = {record.reply for record in threads.map(submit, range(32))}
    assert replies == {encode(make_result(world.only.job_id))}
    assert (sum(admitted), len(world.hosts.sent)) == (1, 1)


def test_foreign_job_is_not_found(world):
    record = world.submit(is_async=True)
    for job_id, key_id in ((record.job_id, "other"), ("0" * 32, "key")):
        with raises_problem(problems.JOB_NOT_FOUND):
            world.results.get(job_id, key_id=key_id)
        with raises_problem(problems.JOB_NOT_FOUND):
            world.results.forget(job_id, key_id=key_id)


def test_deleted_job_stays_deleted(world):
    record = world.submit(is_async=True, idempotency_key="k")
    world.results.forget(record.job_id, key_id="key")
    world.results.settle(make_result(record.job_id), key_id="key")
    assert (world.only.reply, world.waiting.entries["key"]) == (None, {})
    with raises_problem(problems.JOB_EXPIRED_OR_DELETED):
        world.results.get(record.job_id, key_id="key")
    with raises_problem(problems.JOB_EXPIRED_OR_DELETED):
        world.submit(is_async=True, idempotency_key="k")


def forgetting(world, method):
    """`method`, whose job is forgotten just before; a loop that never ends fails."""
    calls = iter(range(50))

    def forget_first(*arguments, **options):
        if next(calls) == 0:
            world.results.forget(world.only.job_id, key_id="key")
        return method(*arguments, **options)

    return forget_first


@pytest.mark.parametrize("is_async", [False, True])
def test_job_deleted_during_takeover_returns_410(world, is_async):
    died(world, "before_it_sent")
    world.now += 20 + WAITING_S + 1
    world.table.replace = forgetting(world, world.table.replace)
    with raises_problem(problems.JOB_EXPIRED_OR_DELETED):
        world.submit(idempotency_key="k", is_async=is_async)


@pytest.mark.parametrize("reply", [None, make_result("0" * 32)], ids=["late", "in_time"])
def test_job_deleted_while_waiting_returns_410(world, reply):
    world.hosts.reply = forgetting(world, lambda job: reply and make_result(job.id))
    with raises_problem(problems.JOB_EXPIRED_OR_DELETED):
        world.submit(idempotency_key="k")


def test_async_job_deleted_while_sending_returns_410(world):
    world.table.replace = forgetting(world, world.table.replace)
    with raises_problem(problems.JOB_EXPIRED_OR_DELETED):
        world.submit(idempotency_key="k", is_async=True)


def test_orphan_result_releases_slot(world):
    world.hosts.reply = lambda job: world.results.settle(make_result(job.id), key_id="key") and None
    assert world.submit(is_counted=True).reply is not None
    assert world.waiting.entries["key"] == {}


def test_expired_result_returns_410(world):
    record = world.submit(is_async=True)
    world.results.settle(make_result(record.job_id))
    world.now = record.kept_until
    with raises_problem(problems.JOB_EXPIRED_OR_DELETED):
        world.results.get(record.job_id, key_id="key")


def test_lost_job_fails_as_expired(world):
    record = world.submit(is_async=True)
    world.now = record.expires_at + SETTLED_AFTER_S
    shown = of_record(world.results.get(record.job_id, key_id="key"))
    assert (shown["status"], shown["problem"].type) == ("failed", "urn:python-exec:problem:job-failed:start-timeout")
    assert world.waiting.entries["key"] == {}


def test_orphan_result_is_hidden_until_job_is_accepted(world):
    world.results.settle(make_result("0" * 32), key_id="key")
    assert world.only.kept_until == int(NOW) + FOUND_KEPT_S
    for ask in (world.results.get, world.results.forget):
        with raises_problem(problems.JOB_NOT_FOUND):
            ask("0" * 32, key_id="key")
    assert world.results.settle(make_result("1" * 32)) is None


def test_duplicate_run_of_answered_job_is_hidden(world):
    reply = world.submit()
    world.results.settle(make_result(reply.id, stdout="run 2"), key_id="key")
    with raises_problem(problems.JOB_NOT_FOUND):
        world.results.get(reply.id, key_id="key")


def test_result_arriving_during_acceptance_is_stored(world):
    promise = record_of_job(expires_at=int(NOW) + 60, kept_until=int(NOW) + 500)
    settle = world.table.settle

    def settle_just_before_the_promise(job_id, reply):
        world.table.settle = settle
        found = settle(job_id, reply)
        world.table.claim(promise, now_s=int(NOW))
        return found

    world.table.settle = settle_just_before_the_promise
    world.results.settle(make_result(promise.job_id), key_id="key")
    assert world.only == replace(promise, reply=encode(make_result(promise.job_id)))


def test_webhook_enqueue_is_retried_until_it_succeeds(world):
    record = world.submit(is_async=True, request=RunRequest(code="c", callback_url="https://example.org"))
    for _ in range(2):
        world.results.settle(Failure(id=record.job_id, reason=FailureReason.SANDBOX_ERROR))
    assert world.webhooks.enqueued == [record.job_id] * 2  # its state is the webhooks' to change


def test_job_table_failure_returns_503(world):
    world.table.failing = True
    for changes in ({"idempotency_key": "k"}, {"is_async": True}):
        with raises_problem(problems.JOB_STORE_UNAVAILABLE):
            world.submit(**changes)
    with raises_problem(problems.JOB_STORE_UNAVAILABLE):
        world.results.get("0" * 32, key_id="key")
    with pytest.raises(JobTableError):
        world.results.settle(make_result("0" * 32))


def test_resent_job_uses_remaining_wait(world):
    first = world.jobs._record(order(idempotency_key="k"), idempotent_id(order(idempotency_key="k")))
    world.table.claim(replace(first, retry_at=int(NOW) + 15), now_s=int(NOW))
    world.submit(idempotency_key="k")
    ((job, _),) = world.hosts.sent
    assert job.reply_by <= NOW + 20


def record_of_job(**changes):
    members = {"job_id": "0" * 32, "key_id": "key", "retry_at": 1, "expires_at": 2, "kept_until": 3}
    return JobRecord(**members | changes)


def test_job_body_shows_pending_and_webhook_state():
    assert of_record(record_of_job()) == {"id": "0" * 32, "status": "pending"}
    shown = of_record(record_of_job(webhook_url="https://x", reply=encode(make_result("0" * 32))))
    assert shown["webhook"] == {"state": "pending", "attempts": 0, "error": None}
    assert "version" not in shown


def test_queue_error_propagates(world):
    world.hosts.error = client_error("x")
    with pytest.raises(type(world.hosts.error)):
        world.submit()
