"""What one write of a key's slots costs. tests/integration/test_job_table.py tests the slots."""

import uuid

from chalicelib.access.api_keys import new_key
from chalicelib.access.plans import PLANS
from chalicelib.jobs import pending_jobs
from chalicelib.jobs.job_table import JobRecord, JobState
from chalicelib.jobs.pending_jobs import HASH_BYTES, TIME_BYTES

WRITE_UNIT_BYTES = 1024


def test_full_item_costs_one_write_unit():
    # https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html
    entries = max(plan.max_pending_jobs for plan in PLANS.values())
    ((name, key),) = pending_jobs.item_key(new_key().key_id).items()
    set_bytes = 3 + entries * (TIME_BYTES + HASH_BYTES + 1)
    assert len(name) + len(key["S"]) + len("slots") + set_bytes < WRITE_UNIT_BYTES


def test_entry_expires_at_its_second_wherever_the_counter_wraps():
    for start in (0, 1_794_000_000, (1 << 24) - 1, (1 << 31) - 600):
        record = JobRecord(
            job_id=uuid.uuid4().hex, key_id="k", state=JobState.CLAIMED, start_deadline=start, retained_until=start
        )
        entry, expires_at = pending_jobs._entry(record), pending_jobs.slot_expires_at(record)
        assert [pending_jobs._has_expired(entry, expires_at + shift_s) for shift_s in (-3600, -1, 0, 1, 86_400)] == [
            False,
            False,
            True,
            True,
            True,
        ]
