from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from chalicelib.access import rate_limits
from chalicelib.access.api_keys import new_key
from chalicelib.access.plans import PLANS, Rate
from chalicelib.access.rate_limits import SECOND_US, quota_status
from tests.support.records import make_key_record

PLAN = replace(PLANS["pro"], requests_per_second=5, burst=10, runs_per_month=60)
KEY = make_key_record(new_key())


def us(*date):
    return int(datetime(*date, tzinfo=UTC).timestamp()) * SECOND_US


NOW_US = us(2026, 11, 30, 23, 59, 50)


def test_unused_key_has_everything_left():
    status = quota_status(KEY, PLAN, now_us=NOW_US)
    assert (status.run_rate.requests_left, status.runs_left, status.retry_after_s()) == (10, 60, 0)


@pytest.mark.parametrize(
    ("ahead_us", "requests_left", "retry_after_s"),
    [
        (0, 10, 0),
        (1, 9, 0),
        (200_000, 9, 0),
        (1_800_000, 1, 0),
        (1_800_001, 0, 1),
        (2_800_000, 0, 1),
        (2_800_001, 0, 2),
    ],
)
def test_rate_left_follows_the_arrival_time(ahead_us, requests_left, retry_after_s):
    status = quota_status(replace(KEY, tat_us=NOW_US + ahead_us), PLAN, now_us=NOW_US)
    assert (status.run_rate.requests_left, status.retry_after_s()) == (requests_left, retry_after_s)


def test_remaining_requests_match_admissions():
    for ahead_us in range(0, 2_200_000, 50_000):
        record, admitted = replace(KEY, tat_us=NOW_US + ahead_us), 0
        while not quota_status(record, PLAN, now_us=NOW_US).retry_after_s():
            record = replace(record, tat_us=max(record.tat_us, NOW_US) + rate_limits.interval_us(PLAN.run_rate))
            admitted += 1
        assert (
            quota_status(replace(KEY, tat_us=NOW_US + ahead_us), PLAN, now_us=NOW_US).run_rate.requests_left == admitted
        )


def test_exhausted_quota_retries_next_month():
    status = quota_status(replace(KEY, month=202611, runs=60), PLAN, now_us=NOW_US)
    assert (status.runs_left, status.retry_after_s(), status.month_ends_at) == (0, 10, us(2026, 12, 1) // SECOND_US)


def test_runs_of_an_earlier_month_do_not_count():
    assert quota_status(replace(KEY, month=202610, runs=60), PLAN, now_us=NOW_US).runs_left == 60


def test_future_month_in_record_is_respected():
    assert quota_status(replace(KEY, month=202612, runs=3), PLAN, now_us=NOW_US).runs_left == 57


def test_downgraded_plan_has_no_quota_left():
    assert quota_status(replace(KEY, month=202611, runs=100), PLAN, now_us=NOW_US).runs_left == 0


def test_december_rolls_over_to_january():
    assert quota_status(KEY, PLAN, now_us=us(2026, 12, 31)).month_ends_at == us(2027, 1, 1) // SECOND_US


def test_interval_is_rounded_up_so_that_the_rate_is_not_exceeded():
    assert rate_limits.interval_us(Rate(3, burst=1)) == 333_334


def test_headers_name_every_policy():
    record = replace(KEY, tat_us=NOW_US + 700_000, read_tat_us=NOW_US + 5_000, month=202611, runs=20)
    assert quota_status(record, PLAN, now_us=NOW_US).headers() == {
        "RateLimit-Policy": '"rate";q=10;w=2, "read";q=400;w=2, "month";q=60;w=2592000',
        "RateLimit": '"rate";r=6;t=1, "read";r=399;t=1, "month";r=40;t=10',
    }
