"""Compute rates and quotas, without a clock or a table. For admission, which charges the requests that pass.

A rate limit is GCRA (ITU-T I.371). A key has a theoretical arrival time (TAT) for each of its two rates. Each request
moves one of them forward by one interval, and is rejected if it is already further ahead of the clock than the burst
allows.
"""

from datetime import UTC, datetime
from typing import Final

from msgspec import Struct

from chalicelib.access.api_keys import KeyRecord
from chalicelib.access.plans import Plan, Rate

SECOND_US: Final = 1_000_000


class RateStatus(Struct, frozen=True, kw_only=True):
    """What is left of one rate of a key at `now_us`, in microseconds since the epoch."""

    rate: Rate
    now_us: int
    tat_us: int  # at least now_us

    @property
    def requests_left(self) -> int:
        """Return how many requests the rate allows now."""
        return max(0, 1 - _ceil_div(self.wait_us, interval_us(self.rate)))

    @property
    def wait_us(self) -> int:
        """Return the time until the next request is allowed; 0 or less if it is allowed now."""
        return self.tat_us - max_tat_us(self.rate, self.now_us)

    @property
    def retry_after_s(self) -> int:
        """Return the seconds until the next request is allowed, rounded up; 0 if it is allowed now."""
        return max(0, _ceil_div(self.wait_us, SECOND_US))

    def headers(self, name: str) -> tuple[str, str]:
        """Return the items of RateLimit-Policy and RateLimit; the policy is fully reset after t seconds."""
        window_s = _ceil_div(self.rate.burst, self.rate.per_second)
        reset_s = _ceil_div(self.tat_us - self.now_us, SECOND_US)
        return f'"{name}";q={self.rate.burst};w={window_s}', f'"{name}";r={self.requests_left};t={reset_s}'


class QuotaStatus(Struct, frozen=True, kw_only=True):
    """What is left of the rates and the quota of a key at `now_us`, in microseconds since the epoch."""

    plan: Plan
    now_us: int
    run_rate: RateStatus
    read_rate: RateStatus
    month: int
    runs: int

    @property
    def runs_left(self) -> int:
        """Return how many runs the quota allows this month."""
        return max(0, self.plan.runs_per_month - self.runs)

    @property
    def month_ends_at(self) -> int:
        """Return when the quota resets, in seconds since the epoch."""
        return _month_start(self.month + 89 if self.month % 100 == 12 else self.month + 1)  # noqa: PLR2004 - December

    @property
    def month_left_s(self) -> int:
        """Return the seconds until the quota resets, rounded up."""
        return _ceil_div(self.month_ends_at * SECOND_US - self.now_us, SECOND_US)

    def retry_after_s(self, *, runs: int = 1) -> int:
        """Return the seconds until a request that costs `runs` is allowed, rounded up; 0 if it is allowed now."""
        month_left_s = 0 if self.runs_left >= runs else self.month_left_s
        return max(self.run_rate.retry_after_s, month_left_s)

    def headers(self) -> dict[str, str]:
        """Return the headers of draft-ietf-httpapi-ratelimit-headers-10."""
        month_s = self.month_ends_at - _month_start(self.month)
        month = f'"month";q={self.plan.runs_per_month};w={month_s}', f'"month";r={self.runs_left};t={self.month_left_s}'
        items = (self.run_rate.headers("rate"), self.read_rate.headers("read"), month)
        policies, remainders = zip(*items, strict=True)
        return {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(remainders)}


def quota_status(record: KeyRecord, plan: Plan, *, now_us: int) -> QuotaStatus:
    """Return the quota status according to `record`. If the record is stale, the key has less left."""
    month = current_month(record, now_us)
    return QuotaStatus(
        plan=plan,
        now_us=now_us,
        run_rate=RateStatus(rate=plan.run_rate, now_us=now_us, tat_us=max(now_us, record.tat_us)),
        read_rate=RateStatus(rate=plan.read_rate, now_us=now_us, tat_us=max(now_us, record.read_tat_us)),
        month=month,
        runs=record.runs if record.month == month else 0,
    )


def current_month(record: KeyRecord, now_us: int) -> int:
    """Return the month that a request at `now_us` counts in. It may follow a clock that is ahead of this one."""
    today = datetime.fromtimestamp(now_us // SECOND_US, UTC)
    return max(record.month, today.year * 100 + today.month)


def interval_us(rate: Rate) -> int:
    """Return the time between two requests at this rate, rounded up so that the rate is never exceeded."""
    return _ceil_div(SECOND_US, rate.per_second)


def max_tat_us(rate: Rate, now_us: int) -> int:
    """Return the latest TAT at which a request is allowed."""
    return now_us + interval_us(rate) * (rate.burst - 1)


def _month_start(month: int) -> int:
    return int(datetime(month // 100, month % 100, 1, tzinfo=UTC).timestamp())


def _ceil_div(dividend: int, divisor: int) -> int:
    return -(-dividend // divisor)
