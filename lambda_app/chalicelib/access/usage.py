"""Describe a key's plan and what is left of it. For `GET /usage`."""

from msgspec import Struct

from chalicelib.access.admission import Caller, rfc3339


class PlanLimits(Struct, frozen=True, kw_only=True):
    """The limits of a plan that apply to every request."""

    requests_per_second: int
    burst: int
    reads_per_second: int
    runs_per_month: int
    timeout_s: float
    input_bytes: int
    files_bytes: int
    batch_runs: int


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
        limits=PlanLimits(
            requests_per_second=plan.requests_per_second,
            burst=plan.burst,
            reads_per_second=plan.reads_per_second,
            runs_per_month=plan.runs_per_month,
            timeout_s=plan.max_timeout_s,
            input_bytes=plan.max_input_bytes,
            files_bytes=plan.max_files_bytes,
            batch_runs=plan.max_batch_runs,
        ),
        used=quota_status.runs,
        left=quota_status.runs_left,
        resets_at=rfc3339(quota_status.month_ends_at),
    )
