"""The rate limit under generated arrivals: the promise of GCRA, and the exactness of Retry-After."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from chalicelib.access import rate_limits
from chalicelib.access.api_keys import new_key
from chalicelib.access.plans import PLANS
from chalicelib.access.rate_limits import SECOND_US, quota_status
from tests.support.records import make_key_record

KEY = make_key_record(new_key())
START_US = 1_800_000_000 * SECOND_US  # in 2027
CLOCK_US = st.integers(START_US, START_US + 400 * 86_400 * SECOND_US)
RATED_PLANS = st.builds(
    lambda rate, burst: replace(PLANS["pro"], requests_per_second=rate, burst=burst, runs_per_month=10**9),
    rate=st.integers(1, 1_000),
    burst=st.integers(1, 50),
)
PAUSES_US = st.just(0) | st.integers(0, 5_000) | st.integers(0, 2 * SECOND_US)


def charge(record, plan, now_us):
    """Return the record after an admitted request, or None if the request is rejected."""
    if quota_status(record, plan, now_us=now_us).retry_after_s():
        return None
    return replace(record, tat_us=max(record.tat_us, now_us) + rate_limits.interval_us(plan.run_rate))


@given(RATED_PLANS, st.lists(PAUSES_US, max_size=80))
def test_no_window_exceeds_burst_and_rate(plan, pauses_us):
    record, now_us, admitted_us = KEY, START_US, []
    for pause_us in pauses_us:
        now_us += pause_us
        if charged := charge(record, plan, now_us):
            record = charged
            admitted_us.append(now_us)
    for first, opened_us in enumerate(admitted_us):
        for last, closed_us in enumerate(admitted_us[first:], first):
            elapsed_us = closed_us - opened_us
            assert last - first + 1 <= plan.burst + plan.requests_per_second * elapsed_us / SECOND_US


@given(RATED_PLANS)
def test_unused_key_admits_exactly_one_burst(plan):
    record, admitted = KEY, 0
    while charged := charge(record, plan, START_US):
        record, admitted = charged, admitted + 1
    assert admitted == plan.burst


@given(RATED_PLANS, CLOCK_US, st.integers(0, 100 * SECOND_US), st.integers(0, 3), st.integers(0, 3))
def test_retry_after_is_the_shortest_wait(plan, now_us, ahead_us, allowed_runs, used_runs):
    plan = replace(plan, runs_per_month=allowed_runs + 1)
    month = rate_limits.current_month(KEY, now_us)
    record = replace(KEY, tat_us=now_us + ahead_us, month=month, runs=used_runs)

    def wait_s(elapsed_s):
        return quota_status(record, plan, now_us=now_us + elapsed_s * SECOND_US).retry_after_s()

    retry_after_s = wait_s(0)
    assert wait_s(retry_after_s) == 0
    assert retry_after_s == 0 or wait_s(retry_after_s - 1) == 1
    assert retry_after_s == 0 or charge(record, plan, now_us) is None


@given(RATED_PLANS, CLOCK_US, st.integers(0, 100 * SECOND_US))
def test_remaining_requests_are_admitted(plan, now_us, ahead_us):
    record = replace(KEY, tat_us=now_us + ahead_us)
    requests_left = quota_status(record, plan, now_us=now_us).run_rate.requests_left
    for _ in range(requests_left):
        record = charge(record, plan, now_us)
    assert charge(record, plan, now_us) is None
