"""Fake the DynamoDB tables of the API."""

import threading
from collections import Counter, defaultdict

from msgspec.structs import replace

from chalicelib import problems
from chalicelib.access import rate_limits
from chalicelib.access.api_keys import KeyStatus
from chalicelib.access.key_table import KeyTableError, StaleRecordError
from chalicelib.fleet.host_registry import HostRegistryError
from chalicelib.jobs.job_table import JobTableError
from chalicelib.problems import ProblemError


class FakeKeyTable:
    """A KeyTable in memory. Set `is_unavailable` to simulate an outage."""

    def __init__(self, *records):
        self._lock = threading.Lock()
        self.records = {record.key_id: record for record in records}
        self.calls = Counter()
        self.is_unavailable = False

    def change(self, key_id, **changes):
        with self._lock:
            self.records[key_id] = replace(self.records[key_id], **changes)

    def read(self, key_id):
        with self._lock:
            self._record_call("read")
            return self.records.get(key_id)

    def charge(self, expected, plan, *, matched_attribute, now_us, runs):
        with self._lock:
            self._record_call("charge")
            current = self.records.get(expected.key_id)
            if current is None or not self._matches_expected(
                current, expected, plan, matched_attribute=matched_attribute, now_us=now_us, runs=runs
            ):
                raise StaleRecordError(current)
            month = rate_limits.current_month(expected, now_us)
            tat_us = max(current.tat_us, now_us) + rate_limits.interval_us(plan)
            runs += current.runs if current.month == month else 0
            self.records[expected.key_id] = replace(current, tat_us=tat_us, month=month, runs=runs)
            return replace(expected, tat_us=tat_us, month=month, runs=runs)

    def _matches_expected(self, current, expected, plan, *, matched_attribute, now_us, runs):
        now_s = now_us // rate_limits.SECOND_US
        month = rate_limits.current_month(expected, now_us)
        same_month = current.month == month and (not runs or current.runs + runs <= plan.runs_per_month)
        return (
            current.status is KeyStatus.ACTIVE
            and current.plan == plan.name
            and getattr(current, matched_attribute) == getattr(expected, matched_attribute)
            and (matched_attribute == "secret_sha256" or current.previous_secret_expires_at > now_s)
            and (current.expires_at is None or current.expires_at > now_s)
            and (current.tat_us > now_us) == (expected.tat_us > now_us)
            and current.tat_us <= rate_limits.max_tat_us(plan, now_us)
            and (same_month if expected.month == month else current.month < month)
        )

    def _record_call(self, operation):
        self.calls[operation] += 1
        if self.is_unavailable:
            raise KeyTableError("gone")


class FakeJobTable:
    """A JobTable in memory. `failing` takes it away."""

    def __init__(self, *records):
        self._lock = threading.Lock()
        self.records = {record.job_id: record for record in records}
        self.failing = False

    def read(self, job_id):
        with self._lock:
            return self._held(job_id)

    def claim(self, record, *, now_s):
        with self._lock:
            held = self._held(record.job_id)
            return self._put(record) if held is None or held.kept_until <= now_s else held

    def replace(self, seen, record):
        with self._lock:
            held = self._held(seen.job_id)
            if held is None:
                raise JobTableError("no such job")
            return self._put(record) if self._is_open(held) and not held.promised and held.nonce == seen.nonce else held

    def unclaim(self, record):
        with self._lock:
            held = self._held(record.job_id)
            if held is not None and self._is_open(held) and held.nonce == record.nonce:
                del self.records[record.job_id]

    def settle(self, job_id, reply):
        return self._change(job_id, self._is_open, reply=reply)

    def forget(self, job_id, *, key_id):
        nothing = {"reply": None, "webhook_url": None, "webhook_error": None}
        return self._change(job_id, lambda held: held.key_id == key_id and held.is_asked_for, forgotten=1, **nothing)

    def note_webhook(self, seen, state, *, attempts, error=None):
        as_seen = (seen.webhook_state, seen.webhook_attempts)
        changes = {"webhook_state": state, "webhook_attempts": attempts, "webhook_error": error or ""}
        return self._change(seen.job_id, lambda held: (held.webhook_state, held.webhook_attempts) == as_seen, **changes)

    def state(self):
        """Of its only job's webhook: state, attempts, error."""
        (held,) = self.records.values()
        return held.webhook_state, held.webhook_attempts, held.webhook_error

    def _change(self, job_id, condition, **changes):
        with self._lock:
            held = self._held(job_id)
            return self._put(replace(held, **changes)) if held is not None and condition(held) else held

    def _held(self, job_id):
        if self.failing:
            raise JobTableError("gone")
        return self.records.get(job_id)

    def _put(self, record):
        self.records[record.job_id] = record
        return record

    def _is_open(self, held):
        return held.reply is None and not held.forgotten


class FakeWaitingJobs:
    """WaitingJobs in memory."""

    def __init__(self):
        self._lock = threading.Lock()
        self.entries = defaultdict(dict)

    def add(self, job_id, *, key_id, plan, until, now_s):
        with self._lock:
            entries = self.entries[key_id]
            if (job_id, until) not in entries and len(entries) >= plan.max_pending_jobs:
                for entry in [entry for entry in entries if entry[1] <= now_s]:
                    del entries[entry]
                if len(entries) >= plan.max_pending_jobs:
                    raise ProblemError(problems.TOO_MANY_PENDING_JOBS)
            entries[job_id, until] = True

    def remove(self, job_id, *, key_id, until):
        with self._lock:
            self.entries[key_id].pop((job_id, until), None)


class FakeHostRegistry:
    """HostRegistry in memory. Set `is_unavailable` to simulate an outage."""

    def __init__(self):
        self.reports = {}
        self.is_unavailable = False

    def store(self, report):
        self._check()
        self.reports[report.host] = report

    def recent_reports(self):
        self._check()
        return list(self.reports.values())

    def _check(self):
        if self.is_unavailable:
            raise HostRegistryError("gone")
