"""Run batches with a fake engine. test_agent.py has the jobs of one run."""

import time
import uuid
from contextlib import contextmanager
from threading import Event

import pytest

from chalicelib.contract import BatchResult, Failure, FailureReason, Job, Run, Status
from executor_host.channel import SandboxError
from executor_host.core_scheduler import CoreScheduler
from executor_host.job_runner import LAST_ATTEMPT_DELAY_S, MAX_SANDBOX_ATTEMPTS, BatchInterruptedError, JobRunner
from executor_host.pool import NoSandboxError
from tests.support.fakes.docker_engine import FakeDockerEngine, make_outcome
from tests.support.records import UPLOAD_URL

FAILED = make_outcome(status=Status.ERROR)
BROKEN = SandboxError("died")


@pytest.fixture
def engine():
    return FakeDockerEngine()


@pytest.fixture
def stopping():
    return Event()


class OnDemandPool:
    """Start each sandbox when it is acquired."""

    def __init__(self, engine):
        self.runtime = engine.runtime
        self._engine = engine

    @contextmanager
    def acquire(self, timeout_s):  # noqa: ARG002 - of the pool
        if self._engine.failing:
            raise NoSandboxError
        yield self._engine.start_sandbox()


@pytest.fixture
def run(engine, stopping):
    """Return a function that runs a batch and returns its reply."""
    runner = JobRunner(OnDemandPool(engine), CoreScheduler(1), stopping=stopping)

    def run(*inputs, **changes):
        now = time.time()
        job = Job(
            id=uuid.uuid4().hex,
            code="the code",
            runs=tuple(Run(input=text, args=(text.upper(),)) for text in inputs),
            reply_to=None,
            reply_upload_url=UPLOAD_URL,
            **{"submitted_at": now - 2, "reply_by": now, "start_deadline": now + 20} | changes,
        )
        return runner.run(job, engine.start_sandbox())

    return run


def inputs_by_sandbox(engine):
    return [[stdin for _, stdin, _, _ in sandbox.ran] for sandbox in engine.started]


def statuses(reply):
    return [run and run.status for run in reply.runs]


def test_runs_of_a_batch_share_one_sandbox_in_order(run, engine):
    reply = run("a", "b", "c", timeout_s=1.5)
    assert isinstance(reply, BatchResult)
    assert [result.stderr for result in reply.runs] == ["a", "b", "c"]
    assert [sandbox.ran for sandbox in engine.started] == [
        [("the code", text, (text.upper(),), 1.5) for text in ("a", "b", "c")]
    ]


def test_sandbox_of_a_batch_is_closed_after_the_last_run(run, engine):
    run("a", "b")
    assert not engine.started[0].alive


def test_batch_reports_how_long_it_was_queued(run):
    assert 2000 <= run("a", "b").queued_ms < 20_000


def test_broken_sandbox_costs_only_its_run(run, engine):
    engine.outcomes += [[None, BROKEN]]
    assert statuses(run("a", "b", "c", "d")) == ["ok"] * 4
    assert inputs_by_sandbox(engine) == [["a", "b"], ["b", "c", "d"]]


def test_run_whose_sandbox_always_breaks_is_skipped(run, engine):
    engine.outcomes += [[None, BROKEN], *[[BROKEN]] * (MAX_SANDBOX_ATTEMPTS - 1)]
    assert statuses(run("a", "b", "c")) == ["ok", None, "ok"]
    assert inputs_by_sandbox(engine) == [["a", "b"], ["b"], ["b"], ["c"]]


def test_last_attempt_outlasts_a_short_fault_of_all_sandboxes(run, engine):
    started_at = []
    engine.on_run = lambda: started_at.append(time.monotonic())
    engine.outcomes += [[BROKEN]] * (MAX_SANDBOX_ATTEMPTS - 1)
    assert statuses(run("a")) == ["ok"]
    assert started_at[-1] - started_at[-2] >= LAST_ATTEMPT_DELAY_S


def test_batch_without_any_result_fails(run, engine):
    engine.outcomes += [[BROKEN]] * MAX_SANDBOX_ATTEMPTS
    reply = run("a")
    assert reply == Failure(id=reply.id, reason=FailureReason.SANDBOX_ERROR)


def test_expired_batch_fails_without_running(run, engine):
    reply = run("a", "b", start_deadline=time.time() - 1)
    assert reply == Failure(id=reply.id, reason=FailureReason.START_TIMEOUT)
    assert inputs_by_sandbox(engine) == [[]]


def test_batch_continues_after_a_failed_run(run, engine):
    engine.outcomes += [[None, FAILED]]
    assert statuses(run("a", "b", "c")) == ["ok", "error", "ok"]


def test_stop_on_failure_skips_the_runs_after_a_failed_one(run, engine):
    engine.outcomes += [[None, FAILED]]
    assert statuses(run("a", "b", "c", stop_on_failure=True)) == ["ok", "error", None]
    assert inputs_by_sandbox(engine) == [["a", "b"]]


def test_runs_that_do_not_fit_into_the_time_are_skipped(run, engine, monkeypatch):
    monkeypatch.setattr("executor_host.job_runner.MAX_BATCH_S", 0.5)
    engine.on_run = lambda: time.sleep(0.25)
    assert statuses(run("a", "b", "c", timeout_s=0.4)) == ["ok", None, None]


def test_stopping_agent_ends_a_batch_after_the_current_run(run, engine, stopping):
    engine.on_run = stopping.set
    with pytest.raises(BatchInterruptedError):
        run("a", "b", "c")
    assert inputs_by_sandbox(engine) == [["a"]]


def test_batch_without_a_second_sandbox_raises(run, engine, monkeypatch):
    monkeypatch.setattr("executor_host.job_runner.SANDBOX_ACQUIRE_TIMEOUT_S", 0.0)
    engine.outcomes += [[None, BROKEN]]
    engine.on_run = lambda: setattr(engine, "failing", True)
    with pytest.raises(NoSandboxError):
        run("a", "b", "c")
