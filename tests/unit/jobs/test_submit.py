"""Submissions to jobs and results, with tables and hosts in memory."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from msgspec.structs import replace

from chalicelib import problems
from chalicelib.access.load_shedding import QueueLoad
from chalicelib.contract import Failure, FailureReason, pack
from chalicelib.dynamodb import TableError
from chalicelib.jobs.job_results import ORPHAN_RESULT_TTL_S
from chalicelib.jobs.job_table import JobRecord, JobState
from chalicelib.jobs.job_view import job_body
from chalicelib.jobs.pending_jobs import ABANDON_AFTER_S, slot_expires_at
from chalicelib.jobs.submission import (
    ASYNC_JOB_TTL_S,
    SEND_CLAIM_TTL_S,
    SYNC_JOB_TTL_S,
    WAIT_CLAIM_MARGIN_S,
    RunRequest,
    idempotent_job_id,
)
from chalicelib.jobs.submit import TAKEOVER_GRACE_S, PendingJob
from chalicelib.problems import ProblemError
from chalicelib.telemetry import request_context
from tests.support.fakes.sqs import client_error
from tests.support.problems import raises_problem
from tests.support.records import make_result
from tests.unit.jobs.harness import NOW, PLAN, RETENTION_S, Harness, submission


@pytest.fixture
def harness():
    return Harness()


def test_sync_result_is_returned_without_storing_record(harness):
    reply = harness.submit()
    ((job, key_id),) = harness.hosts.sent
    assert (reply, key_id, harness.charges) == (make_result(job.id, stdout="run 1"), "key", [1])
    assert (job.code, job.input, job.args, job.timeout_s) == ("c", "i", ("-n", "3"), 2.5)
    assert job.reply_to == "http://queue/reply"
    assert (job.submitted_at, job.reply_by, job.start_deadline) == (NOW, NOW + 20, int(NOW) + SYNC_JOB_TTL_S)
    assert harness.table.records == {}


def test_job_ids_are_unique(harness):
    assert harness.submit().id != harness.submit().id


@pytest.mark.parametrize(
    "changes", [{}, {"idempotency_key": "k"}, {"is_async": True}, {"queue_load": QueueLoad.HIGH}], ids=str
)
def test_rejected_submission_sends_and_stores_nothing(harness, changes):
    harness.rejection = ProblemError(problems.JOB_QUEUE_UNAVAILABLE)
    with raises_problem(problems.JOB_QUEUE_UNAVAILABLE):
        harness.submit(**changes)
    assert (harness.table.records, harness.hosts.sent, harness.slots()) == ({}, [], {})


def test_late_result_is_accepted_and_stored(harness):
    harness.hosts.reply = lambda _: None
    pending = harness.submit()
    record = harness.only_record
    assert pending == PendingJob(record.job_id)
    assert (record.state, record.key_id) == (JobState.ACCEPTED, "key")
    assert record.retained_until == int(NOW) + SYNC_JOB_TTL_S + RETENTION_S
    harness.results.record_reply(make_result(record.job_id), key_id="key")
    assert harness.stored_reply(record.job_id).stdout == "out"


def test_result_stored_before_acceptance_is_returned(harness):
    harness.hosts.reply = lambda job: harness.results.record_reply(make_result(job.id), key_id="key") and None
    assert harness.submit() == make_result(harness.only_record.job_id)


def test_reply_at_the_last_poll_is_stored_and_returned(harness):
    harness.hosts.reply = lambda _: None
    harness.hosts.late_reply = make_result
    reply = harness.submit()
    assert harness.stored_reply(reply.id) == reply


def test_reply_wait_and_late_replies_are_recorded_as_metrics(harness):
    request_context.start()
    harness.submit()
    assert set(request_context.current().metrics) == {"ReplyWaitMs"}
    harness.hosts.reply = lambda _: None
    harness.submit()
    assert request_context.current().metrics["LateReplies"] == 1


@pytest.mark.parametrize("changes", [{}, {"idempotency_key": "k"}], ids=["plain", "idempotent"])
def test_reply_queue_failure_uses_no_run(harness, changes):
    harness.hosts.lease_error = ProblemError(problems.JOB_QUEUE_UNAVAILABLE)
    with raises_problem(problems.JOB_QUEUE_UNAVAILABLE):
        harness.submit(**changes, queue_load=QueueLoad.HIGH)
    assert (harness.charges, harness.table.records, harness.slots()) == ([0], {}, {})


def test_accept_failure_returns_504(harness):
    def reply(_):
        harness.table.is_unavailable = True

    harness.hosts.reply = reply
    with raises_problem(problems.RESULT_TIMEOUT):
        harness.submit()


def test_async_job_is_accepted_immediately(harness):
    pending = harness.submit(is_async=True)
    ((job, _),) = harness.hosts.sent
    assert (job.reply_to, job.start_deadline, pending) == (None, int(NOW) + ASYNC_JOB_TTL_S, PendingJob(job.id))
    assert harness.results.get(job.id, key_id="key").reply is None


def test_async_send_failure_leaves_no_record(harness):
    harness.hosts.error = ProblemError(problems.JOB_QUEUE_UNAVAILABLE)
    with raises_problem(problems.JOB_QUEUE_UNAVAILABLE):
        harness.submit(is_async=True)
    assert (harness.table.records, harness.slots()) == ({}, {})


def test_pending_jobs_are_limited_by_plan(harness):
    first = harness.submit(is_async=True)
    harness.submit(is_async=True)
    with raises_problem(problems.TOO_MANY_PENDING_JOBS):
        harness.submit(is_async=True)
    assert len(harness.hosts.sent) == len(harness.table.records) == PLAN.max_pending_jobs == harness.runs_charged
    harness.results.record_reply(make_result(first.job_id))
    harness.submit(is_async=True)


def test_lost_job_slot_expires(harness):
    last = [harness.submit(is_async=True) for _ in range(PLAN.max_pending_jobs)][-1]
    harness.now = slot_expires_at(harness.table.records[last.job_id])
    harness.submit(is_async=True)


@pytest.mark.parametrize("changes", [{}, {"idempotency_key": "k"}], ids=["plain", "idempotent"])
def test_sync_job_reserves_slot_under_pressure(harness, changes):
    counted = []
    harness.hosts.reply = lambda job: counted.append(len(harness.slots())) or make_result(job.id)
    harness.submit(**changes, queue_load=QueueLoad.HIGH)
    harness.submit()
    assert (counted, harness.slots()) == ([1, 0], {})


@pytest.mark.parametrize("changes", [{}, {"idempotency_key": "k"}, {"is_async": True}], ids=str)
def test_full_queue_admits_a_key_without_pending_jobs_only(harness, changes):
    assert harness.submit(**changes, queue_load=QueueLoad.FULL)
    pending = harness.submit(is_async=True, idempotency_key="pending")
    before = list(harness.charges)
    with raises_problem(problems.OVERLOADED):
        harness.submit(**changes | {"idempotency_key": "other"}, queue_load=QueueLoad.FULL)
    assert harness.charges == [*before, 0]
    harness.results.record_reply(make_result(pending.job_id))


def test_slot_is_released_on_send_failure(harness):
    harness.hosts.error = ProblemError(problems.JOB_QUEUE_UNAVAILABLE)
    with raises_problem(problems.JOB_QUEUE_UNAVAILABLE):
        harness.submit(queue_load=QueueLoad.HIGH)
    assert harness.slots() == {}


def test_late_job_holds_slot_until_result(harness):
    harness.hosts.reply = lambda _: None
    record = harness.submit(queue_load=QueueLoad.HIGH)
    assert len(harness.slots()) == 1
    harness.results.record_reply(make_result(record.job_id))
    assert harness.slots() == {}


def test_slot_release_failure_does_not_fail_request(harness):
    def release(*_, **__):
        raise TableError("gone")

    harness.pending_jobs.release = release
    assert harness.submit(queue_load=QueueLoad.HIGH).stdout == "run 1"


@pytest.mark.parametrize("is_async", [False, True])
def test_idempotent_request_runs_once(harness, is_async):
    first = harness.submit(idempotency_key="k", is_async=is_async)
    assert harness.submit(idempotency_key="k", is_async=is_async) == first
    assert (len(harness.hosts.sent), harness.charges) == (1, [1, 0])


def test_idempotent_replay_is_rate_limited(harness):
    harness.submit(idempotency_key="k")
    harness.rejection = ProblemError(problems.JOB_QUEUE_UNAVAILABLE)
    with raises_problem(problems.JOB_QUEUE_UNAVAILABLE):
        harness.submit(idempotency_key="k")
    assert harness.only_record.reply is not None


def test_idempotency_key_is_scoped_to_customer(harness):
    harness.submit(idempotency_key="k")
    harness.submit(idempotency_key="k", key_id="other")
    assert len(harness.hosts.sent) == 2


def test_idempotency_key_reuse_with_different_body_is_rejected(harness):
    harness.submit(idempotency_key="k")
    with raises_problem(problems.IDEMPOTENCY_KEY_REUSED):
        harness.submit(idempotency_key="k", body=b"other")
    assert (len(harness.hosts.sent), harness.charges) == (1, [1, 0])


def test_expired_idempotency_key_starts_new_job(harness):
    harness.submit(idempotency_key="k")
    harness.now = harness.only_record.retained_until
    harness.submit(idempotency_key="k", body=b"other")
    assert (len(harness.hosts.sent), harness.runs_charged) == (2, 2)


def test_replay_waits_for_running_job(harness):
    harness.hosts.reply = lambda _: None
    pending = harness.submit(idempotency_key="k")
    harness.on_sleep = lambda: harness.now > NOW + 3 and harness.results.record_reply(make_result(pending.job_id))
    assert harness.submit(idempotency_key="k") == make_result(pending.job_id)
    assert (len(harness.hosts.sent), harness.runs_charged) == (1, 1)


def test_replay_of_late_job_returns_same_pending_job(harness):
    harness.hosts.reply = lambda _: None
    pending = harness.submit(idempotency_key="k")
    assert harness.submit(idempotency_key="k") == pending
    assert NOW + 20 <= harness.now < NOW + 21
    assert len(harness.hosts.sent) == 1


def test_waiting_replay_does_not_write(harness):
    harness.hosts.reply = lambda _: None
    harness.submit(idempotency_key="k")
    writes = []
    for name in ("claim", "replace_if_unchanged"):
        write = getattr(harness.table, name)
        setattr(harness.table, name, lambda *a, _write=write, **k: writes.append(1) or _write(*a, **k))
    harness.submit(idempotency_key="k")
    assert len(writes) == 1


def test_first_result_wins(harness):
    harness.hosts.reply = lambda job: (
        harness.results.record_reply(make_result(job.id, stdout="first")) and make_result(job.id)
    )
    assert harness.submit(idempotency_key="k").stdout == "first"


class ProcessDiedError(BaseException):
    """The process ends here."""


def raise_process_died(*_, **__):
    raise ProcessDiedError


def kill_first_process(harness, where, **changes):
    """Submit a first request whose process dies."""
    if where == "before_it_sent":
        harness.hosts.send = raise_process_died
    elif changes.get("is_async"):
        harness.table.replace_if_unchanged = raise_process_died
    else:
        harness.hosts.reply = raise_process_died
    with pytest.raises(ProcessDiedError):
        harness.submit(idempotency_key="k", **changes)
    for survivor in (harness.hosts, harness.table):
        for method in ("send", "replace_if_unchanged"):
            vars(survivor).pop(method, None)
    harness.hosts.reply = lambda job: make_result(job.id, stdout="second")


@pytest.mark.parametrize("where", ["before_it_sent", "before_it_answered"])
@pytest.mark.parametrize("was_async", [False, True], ids=["waited_for", "async"])
@pytest.mark.parametrize(
    "again",
    [{"is_async": True}, {}, {"wait_s": 1.0}, {"wait_s": 23.0}],
    ids=["async_again", "waited_for_again", "short_wait", "long_wait"],
)
def test_replay_resends_job_after_process_death_without_charge(harness, where, was_async, again):
    kill_first_process(harness, where, is_async=was_async)
    before = len(harness.hosts.sent)
    outcome = harness.submit(idempotency_key="k", **again)
    assert len(harness.hosts.sent) == before + 1
    assert (harness.runs_charged, {job.id for job, _ in harness.hosts.sent}) == (1, {harness.only_record.job_id})
    assert outcome == PendingJob(harness.only_record.job_id) or outcome.stdout == "second"
    assert harness.now - NOW <= again.get("wait_s", 0 if "is_async" in again else 20) + TAKEOVER_GRACE_S + 3
    sent = len(harness.hosts.sent)
    harness.submit(idempotency_key="k", is_async=True)
    assert len(harness.hosts.sent) == sent


def test_replay_waits_again_after_process_death(harness):
    kill_first_process(harness, "before_it_answered")
    harness.now += 20 + WAIT_CLAIM_MARGIN_S + 1
    reply = harness.submit(idempotency_key="k")
    assert (reply.stdout, harness.now) == ("second", NOW + 20 + WAIT_CLAIM_MARGIN_S + 1)


def test_only_one_concurrent_replay_resends_job(harness):
    kill_first_process(harness, "before_it_sent", is_async=True)
    harness.now += SEND_CLAIM_TTL_S + 1
    begun = threading.Barrier(16)
    harness.jobs = replace(harness.jobs, sleep=lambda _: time.sleep(0.01))

    def submit(_):
        begun.wait()
        return harness.submit(idempotency_key="k", is_async=True)

    with ThreadPoolExecutor(16) as threads:
        assert set(threads.map(submit, range(16))) == {PendingJob(harness.only_record.job_id)}
    assert (len(harness.hosts.sent), len(harness.slots())) == (1, 1)


def test_accepted_async_job_is_never_resent(harness):
    first = harness.submit(idempotency_key="k", is_async=True)
    harness.now = NOW + ASYNC_JOB_TTL_S - 1
    assert harness.submit(idempotency_key="k", is_async=True) == first
    assert (harness.runs_charged, len(harness.hosts.sent)) == (1, 1)


def test_sent_async_job_survives_accept_failure(harness):
    send = harness.hosts.send

    def send_and_lose_the_table(job, *, key_id):
        send(job, key_id=key_id)
        harness.table.is_unavailable = True

    harness.hosts.send = send_and_lose_the_table
    with raises_problem(problems.JOB_STORE_UNAVAILABLE):
        harness.submit(idempotency_key="k", is_async=True)
    assert len(harness.table.records) == len(harness.slots()) == 1


def test_replay_sends_job_after_slot_reservation_failure(harness):
    reserve = harness.pending_jobs.reserve
    harness.pending_jobs.reserve = lambda *_, **__: (_ for _ in ()).throw(TableError("gone"))
    with raises_problem(problems.JOB_STORE_UNAVAILABLE):
        harness.submit(idempotency_key="k", is_async=True)
    harness.pending_jobs.reserve = reserve
    harness.submit(idempotency_key="k", is_async=True)
    assert harness.only_record.state is JobState.ACCEPTED
    assert (harness.runs_charged, len(harness.hosts.sent)) == (1, 1)


@pytest.mark.parametrize("is_async", [False, True])
def test_resent_job_gets_full_lifetime(harness, is_async):
    harness.hosts.error = ProblemError(problems.JOB_QUEUE_UNAVAILABLE)
    with raises_problem(problems.JOB_QUEUE_UNAVAILABLE):
        harness.submit(idempotency_key="k", is_async=is_async)
    harness.hosts.error = None
    harness.now += ASYNC_JOB_TTL_S
    harness.submit(idempotency_key="k", is_async=True)
    ((job, _),) = harness.hosts.sent
    assert job.start_deadline == harness.only_record.start_deadline == int(harness.now) + ASYNC_JOB_TTL_S
    assert list(harness.slots()) == [(job.id, slot_expires_at(harness.only_record))]


def test_replay_does_not_resend_while_first_request_is_active(harness):
    again = []

    def reply(job):
        harness.on_sleep = lambda: harness.now > NOW + 3 and harness.jobs._accept(harness.only_record, is_stored=True)
        again.append(harness.submit(idempotency_key="k", wait_s=1.0))
        return make_result(job.id)

    harness.hosts.reply = reply
    result = harness.submit(idempotency_key="k", wait_s=1.0)
    assert (len(harness.hosts.sent), again) == (1, [PendingJob(result.id)])


def test_replay_with_shorter_wait_resends_and_is_accepted(harness):
    again = []

    def reply(job):
        if not again:
            again.append(None)
            again[0] = harness.submit(idempotency_key="k", wait_s=1.0)
        return make_result(job.id)

    harness.hosts.reply = reply
    result = harness.submit(idempotency_key="k", wait_s=20.0)
    assert [job.reply_to is None for job, _ in harness.hosts.sent] == [False, True]
    assert again == [PendingJob(result.id)]
    assert pack(result) == harness.only_record.reply


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("again_async", [False, True])
def test_idempotent_send_failure_is_charged_once(harness, is_async, again_async):
    harness.hosts.error = ProblemError(problems.JOB_QUEUE_UNAVAILABLE)
    with raises_problem(problems.JOB_QUEUE_UNAVAILABLE):
        harness.submit(idempotency_key="k", is_async=is_async)
    harness.hosts.error = None
    began = harness.now
    harness.submit(idempotency_key="k", is_async=again_async)
    assert (harness.runs_charged, len(harness.hosts.sent), harness.now) == (1, 1, began)


def test_unstorable_result_is_redelivered(harness):
    def reply(job):
        harness.table.is_unavailable = True
        return make_result(job.id)

    harness.hosts.reply = reply
    with raises_problem(problems.JOB_STORE_UNAVAILABLE):
        harness.submit(idempotency_key="k")
    ((job, _),) = harness.hosts.sent
    assert harness.hosts.redelivered == [job.id]


def test_rejected_idempotent_request_can_be_retried(harness):
    harness.rejection = ProblemError(problems.TOO_MANY_PENDING_JOBS)
    with raises_problem(problems.TOO_MANY_PENDING_JOBS):
        harness.submit(idempotency_key="k")
    assert harness.table.records == {}
    harness.rejection = None
    harness.submit(idempotency_key="k", body=b"other")


def test_replay_of_rejected_request_returns_503(harness):
    seen = harness.jobs._build_record(
        submission(idempotency_key="k"), idempotent_job_id(submission(idempotency_key="k"))
    )
    harness.table.claim(seen, now_s=int(NOW))
    harness.on_sleep = lambda: harness.table.release_claim(seen)
    with raises_problem(problems.JOB_STORE_UNAVAILABLE):
        harness.submit(idempotency_key="k")


def test_concurrent_first_requests_run_and_charge_once(harness):
    begun = threading.Barrier(32)

    def submit(_):
        begun.wait()
        return harness.submit(idempotency_key="k")

    harness.hosts.reply = lambda job: time.sleep(0.05) or make_result(job.id)
    harness.jobs = replace(harness.jobs, sleep=lambda _: time.sleep(0.01))
    with ThreadPoolExecutor(32) as threads:
        replies = list(threads.map(submit, range(32)))
    assert replies == [make_result(harness.only_record.job_id)] * 32
    assert (harness.runs_charged, len(harness.hosts.sent)) == (1, 1)


def test_foreign_job_is_not_found(harness):
    record = harness.submit(is_async=True)
    for job_id, key_id in ((record.job_id, "other"), ("0" * 32, "key")):
        with raises_problem(problems.JOB_NOT_FOUND):
            harness.results.get(job_id, key_id=key_id)
        with raises_problem(problems.JOB_NOT_FOUND):
            harness.results.delete(job_id, key_id=key_id)


def test_deleted_job_stays_deleted(harness):
    record = harness.submit(is_async=True, idempotency_key="k")
    harness.results.delete(record.job_id, key_id="key")
    harness.results.record_reply(make_result(record.job_id), key_id="key")
    assert (harness.only_record.reply, harness.slots()) == (None, {})
    with raises_problem(problems.JOB_EXPIRED_OR_DELETED):
        harness.results.get(record.job_id, key_id="key")
    with raises_problem(problems.JOB_EXPIRED_OR_DELETED):
        harness.submit(is_async=True, idempotency_key="k")


def deleting_first(harness, method):
    """Wrap a method so that the job is deleted just before its first call. An endless loop fails."""
    calls = iter(range(50))

    def delete_first(*arguments, **options):
        if next(calls) == 0:
            harness.results.delete(harness.only_record.job_id, key_id="key")
        return method(*arguments, **options)

    return delete_first


@pytest.mark.parametrize("is_async", [False, True])
def test_job_deleted_during_takeover_returns_410(harness, is_async):
    kill_first_process(harness, "before_it_sent")
    harness.now += 20 + WAIT_CLAIM_MARGIN_S + 1
    harness.table.replace_if_unchanged = deleting_first(harness, harness.table.replace_if_unchanged)
    with raises_problem(problems.JOB_EXPIRED_OR_DELETED):
        harness.submit(idempotency_key="k", is_async=is_async)


@pytest.mark.parametrize("reply", [None, make_result("0" * 32)], ids=["late", "in_time"])
def test_job_deleted_while_waiting_returns_410(harness, reply):
    harness.hosts.reply = deleting_first(harness, lambda job: reply and make_result(job.id))
    with raises_problem(problems.JOB_EXPIRED_OR_DELETED):
        harness.submit(idempotency_key="k")


def test_async_job_deleted_while_sending_returns_410(harness):
    harness.table.replace_if_unchanged = deleting_first(harness, harness.table.replace_if_unchanged)
    with raises_problem(problems.JOB_EXPIRED_OR_DELETED):
        harness.submit(idempotency_key="k", is_async=True)


def test_orphan_result_releases_slot(harness):
    harness.hosts.reply = lambda job: harness.results.record_reply(make_result(job.id), key_id="key") and None
    assert harness.submit(queue_load=QueueLoad.HIGH).stdout == "out"
    assert harness.slots() == {}


def test_expired_result_returns_410(harness):
    record = harness.submit(is_async=True)
    harness.results.record_reply(make_result(record.job_id))
    harness.now = harness.only_record.retained_until
    with raises_problem(problems.JOB_EXPIRED_OR_DELETED):
        harness.results.get(record.job_id, key_id="key")


def test_lost_job_fails_with_start_timeout(harness):
    pending = harness.submit(is_async=True)
    harness.now = harness.only_record.start_deadline + ABANDON_AFTER_S
    body = job_body(harness.only_record, harness.stored_reply(pending.job_id))
    assert (body["status"], body["problem"].type) == ("failed", "urn:python-exec:problem:job-failed:start-timeout")
    assert harness.slots() == {}


def test_orphan_result_is_hidden_until_job_is_accepted(harness):
    harness.results.record_reply(make_result("0" * 32), key_id="key")
    assert harness.only_record.retained_until == int(NOW) + ORPHAN_RESULT_TTL_S
    for call in (harness.results.get, harness.results.delete):
        with raises_problem(problems.JOB_NOT_FOUND):
            call("0" * 32, key_id="key")
    assert harness.results.record_reply(make_result("1" * 32)) is None


def test_duplicate_run_of_answered_job_is_hidden(harness):
    reply = harness.submit()
    harness.results.record_reply(make_result(reply.id, stdout="run 2"), key_id="key")
    with raises_problem(problems.JOB_NOT_FOUND):
        harness.results.get(reply.id, key_id="key")


def test_result_arriving_during_acceptance_is_stored(harness):
    accepted = make_record(start_deadline=int(NOW) + 60, retained_until=int(NOW) + 500)
    set_reply = harness.table.set_reply

    def set_reply_just_before_acceptance(job_id, reply):
        harness.table.set_reply = set_reply
        record = set_reply(job_id, reply)
        harness.table.claim(accepted, now_s=int(NOW))
        return record

    harness.table.set_reply = set_reply_just_before_acceptance
    harness.results.record_reply(make_result(accepted.job_id), key_id="key")
    finished = replace(accepted, state=JobState.FINISHED, reply=pack(make_result(accepted.job_id)))
    assert harness.only_record == finished


def test_webhook_enqueue_is_retried_until_it_succeeds(harness):
    record = harness.submit(is_async=True, request=RunRequest(code="c", callback_url="https://example.org"))
    for _ in range(2):
        harness.results.record_reply(Failure(id=record.job_id, reason=FailureReason.SANDBOX_ERROR))
    # Whether the webhook is due is for its delivery to decide.
    assert [scheduled.job_id for scheduled in harness.webhooks] == [record.job_id] * 2


def test_job_table_failure_returns_503(harness):
    harness.table.is_unavailable = True
    for changes in ({"idempotency_key": "k"}, {"is_async": True}):
        with raises_problem(problems.JOB_STORE_UNAVAILABLE):
            harness.submit(**changes)
    with raises_problem(problems.JOB_STORE_UNAVAILABLE):
        harness.results.get("0" * 32, key_id="key")
    with pytest.raises(TableError):
        harness.results.record_reply(make_result("0" * 32))


def test_resent_job_uses_remaining_wait(harness):
    first = harness.jobs._build_record(
        submission(idempotency_key="k"), idempotent_job_id(submission(idempotency_key="k"))
    )
    harness.table.claim(replace(first, claim_expires_at=int(NOW) + 15), now_s=int(NOW))
    harness.submit(idempotency_key="k")
    ((job, _),) = harness.hosts.sent
    assert job.reply_by <= NOW + 20


def make_record(**changes):
    members = {"job_id": "0" * 32, "key_id": "key", "start_deadline": 2, "retained_until": 3}
    return JobRecord(**{"state": JobState.ACCEPTED, **members} | changes)


def test_job_body_shows_pending_and_webhook_state():
    assert job_body(make_record(), None) == {"id": "0" * 32, "status": "pending"}
    body = job_body(make_record(webhook_url="https://x"), make_result("0" * 32))
    assert body["webhook"] == {"state": "pending", "attempts": 0, "error": None}
    assert "version" not in body


def test_queue_error_propagates(harness):
    harness.hosts.error = client_error("x")
    with pytest.raises(type(harness.hosts.error)):
        harness.submit()
