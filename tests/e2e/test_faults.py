"""Every fault of `make faults` once, so that each change is tested: about two minutes instead of fifteen."""

import contextlib

import pytest

from tests.faults import injections, report, run
from tests.faults.stack import FaultStack

# make faults keeps the real visibility timeouts; these are just longer than the interval between extensions.
VISIBILITY_TIMEOUT_S = 6
POISON_VISIBILITY_TIMEOUT_S = 2


@pytest.fixture(scope="module")
def fault_stack(tmp_path_factory):
    with contextlib.ExitStack() as resources:
        stack = FaultStack(resources, tmp_path_factory.mktemp("f"))
        stack.set_visibility_timeout(VISIBILITY_TIMEOUT_S, "JOB_QUEUE_URL", "RESULTS_QUEUE_URL", "WEBHOOK_QUEUE_URL")
        yield stack


def assert_no_violations(fault_report):
    assert fault_report.violations == [], "\n".join(report.format_table([fault_report]))


HALVES = [pytest.mark.xdist_group(f"faults-{half}") for half in (1, 2)]  # each has a stack of its own


@pytest.mark.parametrize(
    "fault", [pytest.param(fault, marks=HALVES[number % 2]) for number, fault in enumerate(injections.FAULTS)]
)
def test_every_job_has_exactly_one_result_under_faults(fault_stack, fault, monkeypatch):
    monkeypatch.setattr(run, "COOLDOWN_S", 0.5)
    assert_no_violations(run.run_fault(fault_stack, fault, 1))


@HALVES[1]
def test_job_that_crashes_hosts_is_dead_lettered(fault_stack):
    fault_stack.set_visibility_timeout(POISON_VISIBILITY_TIMEOUT_S, "JOB_QUEUE_URL")
    assert_no_violations(run.run_poison_job(fault_stack, pauses_s=[0] * report.KILLS, is_alone=True))
