"""Authenticate callers and charge their requests. Runs before every route that needs a key.

The cached record of a key selects which conditional update to try. Because counters only grow, a rejection derived
from it is final until the limit resets, so it needs no call (docs/decisions/006).
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from msgspec import Struct

from chalicelib import problems
from chalicelib.access import api_keys, rate_limits
from chalicelib.access.api_keys import KeyRecord, KeyStatus
from chalicelib.access.key_cache import KeyCache
from chalicelib.access.key_table import KeyTable, StaleRecordError
from chalicelib.access.plans import PLANS, Plan, Rate
from chalicelib.access.rate_limits import QuotaStatus
from chalicelib.dynamodb import TableError
from chalicelib.problems import ProblemError
from chalicelib.telemetry import request_context

logger = logging.getLogger(__name__)

# A failed condition returns the current record. The rate and the month can each roll over once in between, so three
# attempts are enough; the others are for an operator who edits the key at that moment.
MAX_UPDATE_ATTEMPTS: Final = 5


class Caller(Struct, frozen=True, kw_only=True):
    """The authenticated sender of a request, and the last known status of its key."""

    record: KeyRecord
    secret_sha256: str  # of the presented secret
    quota_status: QuotaStatus

    @property
    def plan(self) -> Plan:
        """Return the plan of the caller's key."""
        return self.quota_status.plan


class Admission:
    """The authentication and charging of requests. Thread-safe."""

    def __init__(
        self, key_table: KeyTable, *, plans: Mapping[str, Plan] = PLANS, clock: Callable[[], float] = time.time
    ) -> None:
        self._key_table = key_table
        self._plans = plans
        self._clock = clock
        self._key_cache = KeyCache()

    def authenticate(self, presented_keys: Sequence[str]) -> Caller:
        """Return the caller whose key is the only one in `presented_keys`, even if it is inactive or over a limit.

        Read the key unless its cached record matches. Raise ProblemError.
        """
        key = api_keys.parse(presented_keys[0].strip()) if len(presented_keys) == 1 else None
        if key is None:
            raise ProblemError(problems.UNAUTHORIZED)
        secret_sha256, now_us = key.secret_sha256, self._now_us()
        cached = self._key_cache.get(key.key_id)
        if cached is not None and cached.matching_secret_attribute(secret_sha256, now_us=now_us):
            return self._caller(cached, secret_sha256, now_us)
        try:
            record = self._key_table.read(key.key_id)
        except TableError as error:
            logger.exception("key_read_failed")
            raise ProblemError(problems.AUTHENTICATION_UNAVAILABLE) from error
        if record is None or not record.matching_secret_attribute(secret_sha256, now_us=now_us):
            raise ProblemError(problems.UNAUTHORIZED)
        self._key_cache.put(record)
        return self._caller(record, secret_sha256, now_us)

    def reject_if_limited(self, caller: Caller, *, runs: int) -> None:
        """Raise ProblemError if the key is inactive, over its rate, or cannot pay for `runs`. Makes no call."""
        require_active_key(caller)
        if caller.quota_status.retry_after_s(runs=runs):
            raise _limit_problem(caller.quota_status, runs=runs)

    def charge(self, caller: Caller, *, runs: int = 1, is_read: bool = False) -> Caller:
        """Charge one request to one of the caller's rates and `runs` to its quota: 0 for a replay or a refused request.

        A request that the quota cannot pay counts toward the rate before it is rejected. Costs one write, or no call if
        the cached record is over the rate. Return the caller with its new status. Raise ProblemError; it is a 401 if
        the secret was replaced after authentication.
        """
        record, now_us = caller.record, self._now_us()
        for _ in range(MAX_UPDATE_ATTEMPTS):
            matched_attribute = record.matching_secret_attribute(caller.secret_sha256, now_us=now_us)
            if matched_attribute is None:
                raise ProblemError(problems.UNAUTHORIZED)
            current = self._caller(record, caller.secret_sha256, now_us)
            require_active_key(current)
            _check_rate(current.quota_status, runs=runs, is_read=is_read)
            can_pay = current.quota_status.runs_left >= runs
            try:
                charged = self._key_table.charge(
                    record,
                    current.plan,
                    matched_attribute=matched_attribute,
                    now_us=now_us,
                    runs=runs if can_pay else 0,
                    is_read=is_read,
                )
            except StaleRecordError as stale:
                if stale.record is None:
                    self._key_cache.evict(record.key_id)
                    raise ProblemError(problems.UNAUTHORIZED) from stale
                record = stale.record
                self._key_cache.put(record)
            except TableError as error:
                logger.exception("key_write_failed")
                raise ProblemError(problems.AUTHENTICATION_UNAVAILABLE) from error
            else:
                self._key_cache.put(charged)
                charged_caller = self._caller(charged, caller.secret_sha256, now_us)
                if not can_pay:
                    raise _limit_problem(charged_caller.quota_status, runs=runs)
                return charged_caller
        logger.error("key_update_conflict")
        raise ProblemError(problems.AUTHENTICATION_UNAVAILABLE)

    def charge_read(self, caller: Caller) -> Caller:
        """Charge one request to the caller's rate of reads, as `charge` does. The new status is never stale."""
        return self.charge(caller, runs=0, is_read=True)

    def _caller(self, record: KeyRecord, secret_sha256: str, now_us: int) -> Caller:
        quota_status = rate_limits.quota_status(record, self._plans[record.plan], now_us=now_us)
        request_context.bind(key_id=record.key_id, plan=record.plan)
        request_context.set_headers(quota_status.headers())
        return Caller(record=record, secret_sha256=secret_sha256, quota_status=quota_status)

    def _now_us(self) -> int:
        return int(self._clock() * rate_limits.SECOND_US)


def require_active_key(caller: Caller) -> None:
    """Raise ProblemError if the caller's key is revoked or expired."""
    record, now_s = caller.record, caller.quota_status.now_us // rate_limits.SECOND_US
    if record.status is not KeyStatus.ACTIVE:
        raise ProblemError(problems.KEY_REVOKED)
    if record.expires_at is not None and record.expires_at <= now_s:
        raise ProblemError(problems.KEY_EXPIRED, detail=f"This key expired at {rfc3339(record.expires_at)}.")


def rfc3339(timestamp: int) -> str:
    """Return a time in seconds since the epoch as RFC 3339 writes it."""
    return datetime.fromtimestamp(timestamp, UTC).isoformat().replace("+00:00", "Z")


def _check_rate(quota_status: QuotaStatus, *, runs: int, is_read: bool) -> None:
    """Raise ProblemError if the key is over the rate that a request counts toward."""
    if is_read and (wait_s := quota_status.read_rate.retry_after_s):
        raise _rate_problem(quota_status.plan, quota_status.plan.read_rate, "read", wait_s=wait_s)
    if not is_read and quota_status.run_rate.retry_after_s:
        raise _limit_problem(quota_status, runs=runs)


def _limit_problem(quota_status: QuotaStatus, *, runs: int) -> ProblemError:
    """Return the 429 for an exhausted rate or quota. Its Retry-After holds unless another client uses the key."""
    plan, wait_s = quota_status.plan, quota_status.retry_after_s(runs=runs)
    if quota_status.runs_left >= runs:
        return _rate_problem(plan, plan.run_rate, "request", wait_s=wait_s)
    resets_at = rfc3339(quota_status.month_ends_at)
    detail = f"Plan {plan.name} allows {plan.runs_per_month} runs per month. Retry after {resets_at}."
    headers = {"Retry-After": str(wait_s)}
    return ProblemError(problems.QUOTA_EXCEEDED, detail=detail, headers=headers, plan=plan.name)


def _rate_problem(plan: Plan, rate: Rate, noun: str, *, wait_s: int) -> ProblemError:
    nouns = noun if rate.per_second == 1 else f"{noun}s"
    detail = f"Plan {plan.name} allows {rate.per_second} {nouns} per second (burst {rate.burst}). Retry in {wait_s} s."
    headers = {"Retry-After": str(wait_s)}
    return ProblemError(problems.RATE_LIMITED, detail=detail, headers=headers, plan=plan.name)
