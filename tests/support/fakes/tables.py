"""Fake the DynamoDB tables of the API.

tests/integration/test_key_table.py and test_job_table.py run the same tests on these fakes and on the emulator, except
for FakeHostRegistry.
"""

import threading
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from chalicelib.access import rate_limits
from chalicelib.access.api_keys import KeyRecord, KeyStatus
from chalicelib.access.key_table import StaleRecordError
from chalicelib.access.plans import Plan, Rate
from chalicelib.contract import HostReport
from chalicelib.dynamodb import TableError
from chalicelib.jobs.job_table import TRANSITIONS, JobRecord, JobState, WebhookState, states_before
from chalicelib.jobs.pending_jobs import NoSlotError, slot_expires_at


class FakeKeyTable:
    """A KeyTable in memory. Set `is_unavailable` to simulate an outage."""

    def __init__(self, *records: KeyRecord) -> None:
        self._lock = threading.Lock()
        self.records = {record.key_id: record for record in records}
        self.calls: Counter[str] = Counter()
        self.is_unavailable = False

    def change(self, key_id: str, **changes: Any) -> None:
        with self._lock:
            self.records[key_id] = replace(self.records[key_id], **changes)

    def read(self, key_id: str) -> KeyRecord | None:
        with self._lock:
            self._record_call("read")
            return self.records.get(key_id)

    def charge(
        self,
        expected: KeyRecord,
        plan: Plan,
        *,
        matched_attribute: str,
        now_us: int,
        runs: int = 0,
        is_read: bool = False,
    ) -> KeyRecord:
        with self._lock:
            self._record_call("charge")
            current = self.records.get(expected.key_id)
            if current is None or not self._matches_expected(
                current, expected, plan, matched_attribute=matched_attribute, now_us=now_us, runs=runs, is_read=is_read
            ):
                raise StaleRecordError(current)
            month = rate_limits.current_month(expected, now_us)
            tat, rate = _rate(plan, is_read=is_read)
            tat_us = max(getattr(current, tat), now_us) + rate_limits.interval_us(rate)
            runs += current.runs if current.month == month else 0
            charged = replace(current, month=month, runs=runs, **{tat: tat_us})
            self.records[expected.key_id] = charged
            return charged

    def _matches_expected(
        self,
        current: KeyRecord,
        expected: KeyRecord,
        plan: Plan,
        *,
        matched_attribute: str,
        now_us: int,
        runs: int,
        is_read: bool,
    ) -> bool:
        now_s = now_us // rate_limits.SECOND_US
        month = rate_limits.current_month(expected, now_us)
        tat, rate = _rate(plan, is_read=is_read)
        same_month = current.month == month and (not runs or current.runs + runs <= plan.runs_per_month)
        return (
            current.status is KeyStatus.ACTIVE
            and current.plan == plan.name
            and getattr(current, matched_attribute) == getattr(expected, matched_attribute)
            and (matched_attribute == "secret_sha256" or current.previous_secret_expires_at > now_s)
            and (current.expires_at is None or current.expires_at > now_s)
            and (getattr(current, tat) > now_us) == (getattr(expected, tat) > now_us)
            and getattr(current, tat) <= rate_limits.max_tat_us(rate, now_us)
            and (same_month if expected.month == month else current.month < month)
        )

    def _record_call(self, operation: str) -> None:
        self.calls[operation] += 1
        if self.is_unavailable:
            raise TableError("gone")


def _rate(plan: Plan, *, is_read: bool) -> tuple[str, Rate]:
    """Return the arrival time and the rate that a request counts toward."""
    return ("read_tat_us", plan.read_rate) if is_read else ("tat_us", plan.run_rate)


class FakeJobTable:
    """A JobTable in memory. Set `is_unavailable` to simulate an outage."""

    def __init__(self, *records: JobRecord) -> None:
        self._lock = threading.Lock()
        self.records = {record.job_id: record for record in records}
        self.calls = 0
        self.is_unavailable = False

    def read(self, job_id: str) -> JobRecord | None:
        with self._lock:
            return self._get(job_id)

    def claim(self, record: JobRecord, *, now_s: int) -> JobRecord:
        with self._lock:
            current = self._get(record.job_id)
            if current is None or current.retained_until <= now_s:
                assert record.state in TRANSITIONS[None]
                return self._put(record)
            return current

    def replace_if_unchanged(self, expected: JobRecord, record: JobRecord) -> JobRecord:
        with self._lock:
            current = self._get(expected.job_id)
            if current is None:
                raise TableError("no such job")
            return self._put(record) if self._is_claim_of(current, expected, record.state) else current

    def release_claim(self, record: JobRecord) -> None:
        with self._lock:
            current = self._get(record.job_id)
            if current is not None and self._is_claim_of(current, record, None):
                del self.records[record.job_id]

    def set_reply(self, job_id: str, reply: bytes) -> JobRecord | None:
        return self._update(job_id, self._may_become(JobState.FINISHED), state=JobState.FINISHED, reply=reply)

    def mark_deleted(self, job_id: str, *, key_id: str) -> JobRecord | None:
        may_be_deleted = self._may_become(JobState.DELETED)
        changes: dict[str, Any] = {
            "state": JobState.DELETED,
            "reply": None,
            "expectations": b"",
            "webhook_url": None,
            "webhook_error": None,
        }
        return self._update(job_id, lambda current: current.key_id == key_id and may_be_deleted(current), **changes)

    def update_webhook(
        self, expected: JobRecord, state: WebhookState, *, attempts: int, error: str | None = None
    ) -> JobRecord | None:
        def is_unchanged(current: JobRecord) -> bool:
            is_expected = (expected.webhook_state, expected.webhook_attempts) == (
                current.webhook_state,
                current.webhook_attempts,
            )
            return current.state is JobState.FINISHED and is_expected

        changes: dict[str, Any] = {"webhook_state": state, "webhook_attempts": attempts, "webhook_error": error or ""}
        return self._update(expected.job_id, is_unchanged, **changes)

    def webhook_state(self) -> tuple[WebhookState, int, str | None]:
        """Return state, attempts and error of the webhook of the only job."""
        (record,) = self.records.values()
        return record.webhook_state, record.webhook_attempts, record.webhook_error

    def _update(self, job_id: str, condition: Callable[[JobRecord], bool], **changes: Any) -> JobRecord | None:
        with self._lock:
            current = self._get(job_id)
            if current is None or not condition(current):
                return current
            return self._put(replace(current, **changes))

    def _get(self, job_id: str) -> JobRecord | None:
        self.calls += 1
        if self.is_unavailable:
            raise TableError("gone")
        return self.records.get(job_id)

    def _put(self, record: JobRecord) -> JobRecord:
        self.records[record.job_id] = record
        return record

    def _may_become(self, state: JobState | None) -> Callable[[JobRecord], bool]:
        return lambda current: current.state in states_before(state)

    def _is_claim_of(self, current: JobRecord, expected: JobRecord, state: JobState | None) -> bool:
        return self._may_become(state)(current) and current.claim_token == expected.claim_token


class FakePendingJobs:
    """PendingJobs in memory. Set `is_unavailable` to simulate an outage."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.entries: defaultdict[str, dict[tuple[str, int], bool]] = defaultdict(dict)
        self.calls = 0
        self.is_unavailable = False

    def reserve(self, record: JobRecord, *, limit: int, now_s: int) -> None:
        self.calls += 1
        if self.is_unavailable:
            raise TableError("gone")
        with self._lock:
            entries, entry = self.entries[record.key_id], self._entry(record)
            if entry not in entries and len(entries) >= limit:
                for expired in [entry for entry in entries if entry[1] <= now_s]:
                    del entries[expired]
                if len(entries) >= limit:
                    raise NoSlotError
            entries[entry] = True

    def release(self, record: JobRecord) -> None:
        with self._lock:
            self.entries[record.key_id].pop(self._entry(record), None)

    def _entry(self, record: JobRecord) -> tuple[str, int]:
        return record.job_id, slot_expires_at(record)


class FakeHostRegistry:
    """HostRegistry in memory. Set `is_unavailable` to simulate an outage."""

    def __init__(self) -> None:
        self.reports: dict[str, HostReport] = {}
        self.is_unavailable = False

    def store(self, report: HostReport) -> None:
        self._check()
        self.reports[report.host] = report

    def recent_reports(self) -> list[HostReport]:
        self._check()
        return list(self.reports.values())

    def _check(self) -> None:
        if self.is_unavailable:
            raise TableError("gone")
