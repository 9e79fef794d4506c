import pytest

from chalicelib import problems
from chalicelib.access.plans import PLANS
from chalicelib.api.run_request import RunRequest, check_plan_limits
from chalicelib.contract import DEFAULT_TIMEOUT_S, MAX_BATCH_RUNS, MAX_INPUT_BYTES, MAX_TIMEOUT_S
from chalicelib.settings import DEFAULT_MAX_QUEUE_DEPTH
from tests.support.problems import raises_problem

FREE = PLANS["free"]


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_plan_limits_are_within_contract_bounds(plan):
    assert DEFAULT_TIMEOUT_S <= plan.max_timeout_s <= MAX_TIMEOUT_S
    assert 0 < plan.max_input_bytes <= MAX_INPUT_BYTES
    assert 0 < plan.max_batch_runs <= MAX_BATCH_RUNS
    assert min(plan.requests_per_second, plan.burst, plan.runs_per_month, plan.max_pending_jobs) > 0
    assert plan.reads_per_second >= 2 * plan.max_pending_jobs  # each may be polled once per second
    assert plan.max_pending_jobs <= DEFAULT_MAX_QUEUE_DEPTH / 2  # no key alone is an overload (docs/decisions/012)


def test_request_at_plan_limit_is_accepted():
    check_plan_limits(RunRequest(code="1", timeout_s=FREE.max_timeout_s, input="x" * FREE.max_input_bytes), FREE)


def test_timeout_above_plan_limit_reports_limit():
    with raises_problem(problems.PLAN_LIMIT_EXCEEDED) as caught:
        check_plan_limits(RunRequest(code="1", timeout_s=3.1), FREE)
    problem = caught.value.problem
    assert (problem.status, problem.field, problem.plan, problem.limit_s) == (403, "timeout_s", "free", 3.0)
    assert problem.detail == "timeout_s exceeds the limit of 3 s for plan free."


def test_input_above_plan_limit_reports_limit_in_bytes():
    with raises_problem(problems.PLAN_LIMIT_EXCEEDED) as caught:
        check_plan_limits(RunRequest(code="1", input="ü" * 32769), FREE)
    problem = caught.value.problem
    assert (problem.status, problem.field, problem.plan, problem.limit_bytes) == (403, "input", "free", 65536)
    assert problem.detail == "input exceeds the limit of 65536 bytes for plan free."
