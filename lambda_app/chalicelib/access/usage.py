"""Describe a key's plan and what is left of it. For `GET /usage`."""

import msgspec
from msgspec import Struct

from chalicelib.access.admission import Caller, rfc3339


class PlanLimits(Struct, frozen=True, kw_only=True, rename=lambda name: name.removeprefix("max_")):
    """The limits of a plan that apply to every request."""

    requests_per_second: int
    burst: int
    reads_per_second: int
    runs_per_month: int
    max_timeout_s: float
    max_input_bytes: int
    max_files_bytes: int
    max_batch_runs: int


class KeyUsage(Struct, frozen=True, kw_only=True):
    """The body of a response. The counts are those of the current month."""

    key_id: str
    plan: str
    limits: PlanLimits
    used: int
    left: int
    resets_at: str  # RFC 3339


def key_usage(caller: Caller) -> KeyUsage:
    """Return the usage of the caller's key."""
    plan, quota_status = caller.plan, caller.quota_status
    return KeyUsage(
        key_id=caller.record.key_id,
        plan=plan.name,
        limits=msgspec.convert(plan, PlanLimits, from_attributes=True),
        used=quota_status.runs,
        left=quota_status.runs_left,
        resets_at=rfc3339(quota_status.month_ends_at),
    )
