"""Test when the isolation check passes, fails or tries again, with an in-memory engine."""

import contextlib
import json

import pytest
from msgspec import structs

from chalicelib.contract import IsolationState, OutputBytes, RunUsage, Status
from executor_host import metrics
from executor_host.channel import SandboxError
from executor_host.engine_versions import ComponentVersion
from executor_host.isolation_check import (
    CHECK_INTERVAL_S,
    MAX_PROBE_ATTEMPTS,
    RECHECK_DELAY_S,
    RETRY_DELAY_S,
    IsolationCheck,
)
from executor_host.outcome import Outcome
from executor_host.pool import Pool
from tests.support.fakes.docker_engine import FakeDockerEngine
from tests.support.polling import eventually
from tests.support.probe_reports import gvisor_probe_report, probe_report


def reported(report, status=Status.OK):
    return Outcome(
        status=status,
        stdout=json.dumps(report),
        stderr="",
        output_bytes=OutputBytes(stdout=0, stderr=0),
        usage=RunUsage(duration_ms=1, cpu_ms=0, memory_bytes=0),
    )


PASSING, DIFFERENT = reported(probe_report()), reported(probe_report() | {"processes": 320})


@pytest.fixture
def engine():
    return FakeDockerEngine()


@pytest.fixture
def check_after(engine, monkeypatch):
    """Return a function that returns a check, not started, whose next probes end as passed to it."""
    monkeypatch.setattr("executor_host.isolation_check.ACQUIRE_TIMEOUT_S", 0.5)
    with contextlib.ExitStack() as started:

        def check_after(*outcomes, is_gvisor=False):
            engine.outcomes += outcomes
            pool = Pool(engine, size=1, start_threads=1)
            pool.start()
            started.callback(pool.stop, 5)
            started.callback(vars(engine).update, failing=False)  # a pool stops only once no container is left
            return IsolationCheck(engine, pools=[pool], is_gvisor=is_gvisor)

        yield check_after


def outcome_of(check):
    return check.state, check.passed.is_set(), metrics.ISOLATION_CHECK_PASSED._value.get()


PASSED, FAILED = (IsolationState.PASSED, True, 1), (IsolationState.FAILED, False, 0)


def test_check_is_pending_before_first_probe(check_after):
    check = check_after()
    assert (check.state, check.passed.is_set()) == (IsolationState.PENDING, False)


def test_passing_probe_lets_jobs_run(check_after):
    check = check_after(PASSING)
    assert check.check() == CHECK_INTERVAL_S == 600
    assert outcome_of(check) == PASSED


def test_difference_is_logged_and_checked_again(check_after, caplog):
    check = check_after(PASSING, DIFFERENT, PASSING)
    check.check()
    assert check.check() == RECHECK_DELAY_S
    assert outcome_of(check) == FAILED
    (record,) = [record for record in caplog.records if record.message == "isolation_check_failed"]
    assert record.differences == [{"name": "python: processes", "expected": "256", "actual": "320"}]
    check.check()
    assert outcome_of(check) == PASSED


def test_old_version_is_a_difference(check_after, engine):
    engine.component_versions["runc"] = ComponentVersion("1.1.11", "")
    check = check_after(PASSING)
    check.check()
    assert outcome_of(check) == FAILED


def test_engine_outage_is_not_a_difference(check_after, engine):
    check = check_after()
    engine.failing = True
    assert [check.check() for _ in range(MAX_PROBE_ATTEMPTS + 1)] == [RETRY_DELAY_S] * (MAX_PROBE_ATTEMPTS + 1)
    assert check.state is IsolationState.PENDING


LOST = {
    "sandbox_lost": SandboxError("died"),
    "timeout": reported(probe_report(), status=Status.TIMEOUT),
    "no_report": reported("x"),
    "nested_report": structs.replace(reported("x"), stdout='{"x":' + "[" * 100_000),
}


@pytest.mark.parametrize("outcome", LOST.values(), ids=LOST)
def test_lost_probe_is_repeated(check_after, outcome):
    check = check_after(PASSING, *[outcome] * (MAX_PROBE_ATTEMPTS - 1), PASSING)
    check.check()
    for _ in range(MAX_PROBE_ATTEMPTS - 1):
        assert check.check() == RETRY_DELAY_S
        assert outcome_of(check) == PASSED
    assert check.check() == CHECK_INTERVAL_S


@pytest.mark.parametrize("outcome", LOST.values(), ids=LOST)
def test_probe_that_never_reports_is_a_difference(check_after, outcome):
    check = check_after(*[outcome] * MAX_PROBE_ATTEMPTS)
    for _ in range(MAX_PROBE_ATTEMPTS):
        check.check()
    assert outcome_of(check) == FAILED


@pytest.mark.parametrize(("status", "expected"), [(Status.OUT_OF_MEMORY, PASSED), (Status.OK, FAILED)])
def test_gvisor_must_kill_the_sandbox_for_its_memory(check_after, status, expected):
    check = check_after(reported(gvisor_probe_report(), status=status), is_gvisor=True)
    check.check()
    assert outcome_of(check) == expected


def test_crashed_check_stops_jobs_until_one_passes(check_after, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr("executor_host.isolation_check.RECHECK_DELAY_S", 0.01)
    check = check_after(PASSING, ValueError("a bug"), PASSING)
    check.check()
    check.start()
    states = ["passed", "crashed", "failed", "passed"]
    eventually(lambda: recorded_states(caplog) == [f"isolation_check_{state}" for state in states])
    check.stop()
    assert outcome_of(check) == PASSED


def recorded_states(caplog):
    return [record.message for record in caplog.records if record.message.startswith("isolation_check_")]
