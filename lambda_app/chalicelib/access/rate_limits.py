"""Rate and quota as arithmetic: no clock, no table. For admission, which writes what this allows.

The rate is GCRA (ITU-T I.371): a key has a theoretical arrival time; each request moves it one interval on,
and is refused when that would put it further ahead of the clock than the burst allows.
"""

from datetime import UTC, datetime
from typing import Final

from msgspec import Struct

from chalicelib.access.api_keys import KeyRecord
from chalicelib.access.plans import Plan

SECOND_US: Final = 1_000_000


class QuotaStatus(Struct, frozen=True, kw_only=True):
    """How much of its plan a key has left at `now_us`, microseconds since the epoch."""

    plan: Plan
    now_us: int
    tat_us: int  # not before now_us
    month: int
    runs: int

    @property
    def requests_left(self) -> int:
        """Requests that would be admitted now, one after the other."""
        ahead_us = self.tat_us - max_tat_us(self.plan, self.now_us)
        return max(0, 1 - _ceil_div(ahead_us, interval_us(self.plan)))

    @property
    def runs_left(self) -> int:
        return max(0, self.plan.runs_per_month - self.runs)

    @property
    def month_ends_at(self) -> int:
        """Seconds since the epoch."""
        return _month_start(self.month + 89 if self.month % 100 == 12 else self.month + 1)  # noqa: PLR2004 - December

    def retry_after_s(self, *, runs: int = 1) -> int:
        """The shortest wait, in whole seconds, after which a request is admitted; 0 if it is now."""
        wait_us = self.tat_us - max_tat_us(self.plan, self.now_us)
        if self.runs_left < runs:
            wait_us = max(wait_us, self.month_ends_at * SECOND_US - self.now_us)
        return max(0, _ceil_div(wait_us, SECOND_US))

    def headers(self) -> dict[str, str]:
        """RateLimit fields as in draft-ietf-httpapi-ratelimit-headers-10. After t seconds a policy is whole again."""
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
    """Where the key stands, as far as `record` knows. The real one can only have less left."""
    month = current_month(record, now_us)
    return QuotaStatus(
        plan=plan,
        now_us=now_us,
        tat_us=max(now_us, record.tat_us),
        month=month,
        runs=record.runs if record.month == month else 0,
    )


def current_month(record: KeyRecord, now_us: int) -> int:
    """The month that a request at `now_us` counts in; the record's own when another clock is ahead of ours."""
    today = datetime.fromtimestamp(now_us // SECOND_US, UTC)
    return max(record.month, today.year * 100 + today.month)


def interval_us(plan: Plan) -> int:
    """Between two requests at the plan's rate; rounded up, so that the rate is never exceeded."""
    return _ceil_div(SECOND_US, plan.requests_per_second)


def max_tat_us(plan: Plan, now_us: int) -> int:
    """The latest theoretical arrival time with which a request is admitted."""
    return now_us + interval_us(plan) * (plan.burst - 1)


def _month_start(month: int) -> int:
    return int(datetime(month // 100, month % 100, 1, tzinfo=UTC).timestamp())


def _ceil_div(dividend: int, divisor: int) -> int:
    return -(-dividend // divisor)
