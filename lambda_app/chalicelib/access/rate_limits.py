"""Compute rates and quotas, without a clock or a table. For admission, which charges the requests that pass.

The rate limit is GCRA (ITU-T I.371). A key has a theoretical arrival time (TAT). Each request moves it forward by one
interval, and is rejected if the TAT is already further ahead of the clock than the burst allows.
"""

from datetime import UTC, datetime
from typing import Final

from msgspec import Struct

from chalicelib.access.api_keys import KeyRecord
from chalicelib.access.plans import Plan

SECOND_US: Final = 1_000_000


class QuotaStatus(Struct, frozen=True, kw_only=True):
    """The remaining rate and quota of a key at `now_us`, in microseconds since the epoch."""

    plan: Plan
    now_us: int
    tat_us: int  # at least now_us
    month: int
    runs: int

    @property
    def requests_left(self) -> int:
        """Return how many requests the rate allows now."""
        ahead_us = self.tat_us - max_tat_us(self.plan, self.now_us)
        return max(0, 1 - _ceil_div(ahead_us, interval_us(self.plan)))

    @property
    def runs_left(self) -> int:
        """Return how many runs the quota allows this month."""
        return max(0, self.plan.runs_per_month - self.runs)

    @property
    def month_ends_at(self) -> int:
        """Return when the quota resets, in seconds since the epoch."""
        return _month_start(self.month + 89 if self.month % 100 == 12 else self.month + 1)  # noqa: PLR2004 - December

    def retry_after_s(self, *, runs: int = 1) -> int:
        """Return the seconds until a request that costs `runs` is allowed, rounded up; 0 if it is allowed now."""
        wait_us = self.tat_us - max_tat_us(self.plan, self.now_us)
        if self.runs_left < runs:
            wait_us = max(wait_us, self.month_ends_at * SECOND_US - self.now_us)
        return max(0, _ceil_div(wait_us, SECOND_US))

    def headers(self) -> dict[str, str]:
        """Return the headers of draft-ietf-httpapi-ratelimit-headers-10. A policy is fully reset after t seconds."""
        plan = self.plan
        month_s = self.month_ends_at - _month_start(self.month)
        rate_s = _ceil_div(self.tat_us - self.now_us, SECOND_US)
        month_left_s = _ceil_div(self.month_ends_at * SECOND_US - self.now_us, SECOND_US)
        return {
            "RateLimit-Policy": f'"rate";q={plan.burst};w={_ceil_div(plan.burst, plan.requests_per_second)}, '
            f'"month";q={plan.runs_per_month};w={month_s}',
            "RateLimit": f'"rate";r={self.requests_left};t={rate_s}, "month";r={self.runs_left};t={month_left_s}',
        }


def quota_status(record: KeyRecord, plan: Plan, *, now_us: int) -> QuotaStatus:
    """Return the quota status according to `record`. If the record is stale, the key has less left."""
    month = current_month(record, now_us)
    return QuotaStatus(
        plan=plan,
        now_us=now_us,
        tat_us=max(now_us, record.tat_us),
        month=month,
        runs=record.runs if record.month == month else 0,
    )


def current_month(record: KeyRecord, now_us: int) -> int:
    """Return the month that a request at `now_us` counts in. It may follow a clock that is ahead of this one."""
    today = datetime.fromtimestamp(now_us // SECOND_US, UTC)
    return max(record.month, today.year * 100 + today.month)


def interval_us(plan: Plan) -> int:
    """Return the time between two requests at the plan's rate, rounded up so that the rate is never exceeded."""
    return _ceil_div(SECOND_US, plan.requests_per_second)


def max_tat_us(plan: Plan, now_us: int) -> int:
    """Return the latest TAT at which a request is allowed."""
    return now_us + interval_us(plan) * (plan.burst - 1)


def _month_start(month: int) -> int:
    return int(datetime(month // 100, month % 100, 1, tzinfo=UTC).timestamp())


def _ceil_div(dividend: int, divisor: int) -> int:
    return -(-dividend // divisor)
