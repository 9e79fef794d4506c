"""Who may pass: a good key with rate and quota left. In front of every route that runs code.

What this process saw last of a key decides which write it tries, and refuses without a call what can only have
become worse since. Nothing is admitted without that write (docs/decisions/006).
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, Protocol

from msgspec import Struct

from chalicelib import problems
from chalicelib.access import api_keys, rate_limits
from chalicelib.access.api_keys import ApiKey, KeyRecord, KeyStatus
from chalicelib.access.key_cache import KeyCache
from chalicelib.access.key_table import KeyTableError, StaleRecordError
from chalicelib.access.plans import PLANS, Plan
from chalicelib.access.rate_limits import QuotaStatus
from chalicelib.problems import ProblemError
from chalicelib.telemetry import request_context

log = logging.getLogger(__name__)

# A wrong guess teaches what is right, and the rate and the month can each turn once meanwhile: three writes.
# The others are for an operator who changes the key at that moment.
MAX_UPDATE_ATTEMPTS: Final = 5
MAX_CREDENTIAL_CHARS: Final = 256  # of what is looked at; a key has 48
UNAUTHORIZED_AFTER_S: Final = 0.025  # above what a read takes: to find an item takes longer than to find none


class Table(Protocol):
    """What is used of a KeyTable."""

    def read(self, key_id: str) -> KeyRecord | None:
        """Raises KeyTableError."""

    def charge(self, expected: KeyRecord, plan: Plan, *, matched_attribute: str, now_us: int, runs: int) -> KeyRecord:
        """Raises StaleRecordError or KeyTableError."""


class Caller(Struct, frozen=True, kw_only=True):
    """Who sends a request: somebody who holds a key's secret. `quota_status` is what was last seen."""

    record: KeyRecord
    secret_sha256: str  # of the secret that was presented
    quota_status: QuotaStatus

    @property
    def plan(self) -> Plan:
        return self.quota_status.plan


class PlanLimits(Struct, frozen=True, kw_only=True):
    """A plan, as `GET /usage` shows it."""

    requests_per_second: int
    burst: int
    runs_per_month: int
    timeout_s: float
    input_bytes: int


class KeyUsage(Struct, frozen=True, kw_only=True):
    """The answer of `GET /usage`; counts are of the current month."""

    key_id: str
    plan: str
    limits: PlanLimits
    used: int
    left: int
    resets_at: str  # RFC 3339


class Admission:
    """Checks and counts requests. Any number of threads may use it at once."""

    def __init__(
        self,
        table: Table,
        *,
        plans: Mapping[str, Plan] = PLANS,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._table = table
        self._plans = plans
        self._clock = clock
        self._sleep = sleep
        self._key_cache = KeyCache()
        # They take the place of what is no key, or not there, so that each refusal costs what another does.
        self._dummy_key = api_keys.new_key()
        self._dummy_record = KeyRecord(
            key_id=self._dummy_key.key_id,
            secret_sha256=api_keys.UNMATCHABLE_SHA256,
            status=KeyStatus.REVOKED,
            plan="",
            owner="",
            created_at=0,
        )

    def authenticate(self, credentials: Sequence[str], *, bypass_cache: bool = False) -> Caller:
        """Who holds the one key in `credentials`, whatever may be said against it otherwise.

        Costs a read unless the key is known; `bypass_cache` always costs it. Raises ProblemError, whatever is
        wrong after one read and the same time, or ProblemError.
        """
        started_at = time.monotonic()
        presented = self._parse(credentials)
        sha256, now_us = presented.secret_sha256, self._now_us()
        if not bypass_cache:
            record = self._key_cache.get(presented.key_id) or self._dummy_record
            if record.matching_secret_attribute(sha256, now_s=now_us / rate_limits.SECOND_US):
                return self._caller(record, sha256, now_us)
        try:
            found = self._table.read(presented.key_id)
        except KeyTableError as error:
            log.exception("key_read_failed")
            raise ProblemError(problems.AUTHENTICATION_UNAVAILABLE) from error
        record = found or self._dummy_record
        if not record.matching_secret_attribute(sha256, now_s=now_us / rate_limits.SECOND_US):
            self._sleep(max(0.0, started_at + UNAUTHORIZED_AFTER_S - time.monotonic()))
            raise ProblemError(problems.UNAUTHORIZED)
        self._key_cache.put(record)
        return self._caller(record, sha256, now_us)

    def reject_if_limited(self, caller: Caller, *, runs: int) -> None:
        """Raise ProblemError if the cached record already rules out a charge. Makes no call.

        Since counters only grow, such a rejection stays right until the limit resets. The quota counts if `runs` is 1.
        """
        require_active_key(caller)
        if caller.quota_status.retry_after_s(runs=runs):
            raise _limited(caller.quota_status, runs=runs)

    def charge(self, caller: Caller, *, runs: int = 1) -> Caller:
        """Takes one request from the caller's rate, and `runs` from the quota: none for what was paid for before.

        Costs one write, none if the refusal is known. Raises ProblemError, ProblemError,
        ProblemError, or ProblemError if the secret was replaced since it was identified.
        """
        record, now_us = caller.record, self._now_us()
        for _ in range(MAX_UPDATE_ATTEMPTS):
            matched_attribute = record.matching_secret_attribute(
                caller.secret_sha256, now_s=now_us / rate_limits.SECOND_US
            )
            if matched_attribute is None:
                raise ProblemError(problems.UNAUTHORIZED)
            quota_status = rate_limits.quota_status(record, self._plans[record.plan], now_us=now_us)
            _require_usable(record, quota_status)
            if quota_status.retry_after_s(runs=runs):
                raise _limited(quota_status, runs=runs)
            try:
                record = self._table.charge(
                    record, quota_status.plan, matched_attribute=matched_attribute, now_us=now_us, runs=runs
                )
            except StaleRecordError as changed:
                if changed.record is None:
                    self._key_cache.evict(record.key_id)
                    raise ProblemError(problems.UNAUTHORIZED) from changed
                record = changed.record
                self._key_cache.put(record)
            except KeyTableError as error:
                log.exception("key_write_failed")
                raise ProblemError(problems.AUTHENTICATION_UNAVAILABLE) from error
            else:
                self._key_cache.put(record)
                return self._caller(record, caller.secret_sha256, now_us)
        log.error("key_update_conflict")
        raise ProblemError(problems.AUTHENTICATION_UNAVAILABLE)

    def usage(self, caller: Caller) -> KeyUsage:
        """What the caller may do and has left. Raises ProblemError."""
        require_active_key(caller)
        plan, quota_status = caller.plan, caller.quota_status
        return KeyUsage(
            key_id=caller.record.key_id,
            plan=plan.name,
            limits=PlanLimits(
                requests_per_second=plan.requests_per_second,
                burst=plan.burst,
                runs_per_month=plan.runs_per_month,
                timeout_s=plan.max_timeout_s,
                input_bytes=plan.max_input_bytes,
            ),
            used=quota_status.runs,
            left=quota_status.runs_left,
            resets_at=_rfc3339(quota_status.month_ends_at),
        )

    def _parse(self, credentials: Sequence[str]) -> ApiKey:
        """A key of nobody for what is no key: it is looked up all the same, so that all refusals take as long."""
        text = credentials[0].strip()[:MAX_CREDENTIAL_CHARS] if len(credentials) == 1 else ""
        return api_keys.parse(text) or self._dummy_key

    def _caller(self, record: KeyRecord, sha256: str, now_us: int) -> Caller:
        quota_status = rate_limits.quota_status(record, self._plans[record.plan], now_us=now_us)
        request_context.bind(key_id=record.key_id, plan=record.plan)
        request_context.set_headers(quota_status.headers())
        return Caller(record=record, secret_sha256=sha256, quota_status=quota_status)

    def _now_us(self) -> int:
        return int(self._clock() * rate_limits.SECOND_US)


def collect_presented_keys(api_keys: Sequence[str], authorizations: Sequence[str]) -> list[str]:
    """Every key in the values of X-Api-Key and Authorization; what is no Bearer counts as an empty one."""
    found = list(api_keys)
    for value in authorizations:
        scheme, _, token = value.strip().partition(" ")
        found.append(token if scheme.lower() == "bearer" else "")  # RFC 9110 11.1: case does not matter
    return found


def require_active_key(caller: Caller) -> None:
    """Raises ProblemError."""
    _require_usable(caller.record, caller.quota_status)


def _require_usable(record: KeyRecord, quota_status: QuotaStatus) -> None:
    if record.status is not KeyStatus.ACTIVE:
        raise ProblemError(problems.KEY_REVOKED, headers=quota_status.headers())
    if record.expires_at is not None and record.expires_at <= quota_status.now_us // rate_limits.SECOND_US:
        detail = f"This key expired at {_rfc3339(record.expires_at)}."
        raise ProblemError(problems.KEY_EXPIRED, detail=detail, headers=quota_status.headers())


def _limited(quota_status: QuotaStatus, *, runs: int) -> ProblemError:
    """Return the 429 for a used-up rate or quota. Its Retry-After holds unless another client uses the key."""
    plan, wait_s = quota_status.plan, quota_status.retry_after_s(runs=runs)
    if quota_status.runs_left >= runs:
        problem_type = problems.RATE_LIMITED
        detail = f"Plan {plan.name} allows {plan.requests_per_second} requests per second (burst {plan.burst})."
    else:
        problem_type = problems.QUOTA_EXCEEDED
        detail = f"Plan {plan.name} allows {plan.runs_per_month} runs per month."
    headers = {**quota_status.headers(), "Retry-After": str(wait_s)}
    return ProblemError(problem_type, detail=f"{detail} Retry in {wait_s} s.", headers=headers, plan=plan.name)


def _rfc3339(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")
