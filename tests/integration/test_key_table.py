"""The write that admits, in DynamoDB and in the fake: same answers to the same questions."""

import uuid

import pytest
from msgspec.structs import replace

from chalicelib.access.api_keys import KeyStatus, new_key
from chalicelib.access.key_table import ChangedError, KeyTable, KeyTableError, from_item, to_item
from chalicelib.access.plans import PLANS
from infra.local.emulated_aws import client, create_queues_and_tables
from tests.support.fakes.tables import FakeKeyTable
from tests.support.records import make_key_record

PLAN = replace(PLANS["pro"], requests_per_second=5, burst=10, runs_per_month=60)
NOW_S = 1_794_000_000  # 2026-11-06
NOW_US = NOW_S * 1_000_000
KEY, OLD = new_key(), new_key()
HELD = make_key_record(KEY, old_secret_sha256=OLD.sha256, old_secret_until=NOW_S + 1)
USED = replace(HELD, tat_us=NOW_US + 1_800_000, month=202611, runs=59)


class RealTable:
    """A KeyTable of its own, and the client to put records into it."""

    def __init__(self, environment):
        self._dynamodb = client("dynamodb", environment)
        self._name = create_queues_and_tables(environment, stack=f"s-{uuid.uuid4().hex}")["KEYS_TABLE"]
        table = KeyTable(self._dynamodb, name=self._name)
        self.read, self.spend = table.read, table.spend

    def put(self, record):
        self._dynamodb.put_item(TableName=self._name, Item=to_item(record))


class FakeTable(FakeKeyTable):
    def put(self, record):
        self.records[record.key_id] = record


@pytest.fixture(params=["dynamodb", "fake"])
def table(request, aws):
    return RealTable(aws.environment) if request.param == "dynamodb" else FakeTable()


def spend(table, seen, **changes):
    arguments = {"plan": PLAN, "opened_by": "secret_sha256", "now_us": NOW_US, "runs": 1} | changes
    return replace(table.spend(seen, arguments.pop("plan"), **arguments), spent_by="")


def test_record_round_trips(table):
    for record in (HELD, USED, replace(HELD, expires_at=NOW_S, status=KeyStatus.REVOKED, owner="1")):
        table.put(record)
        assert table.read(KEY.key_id) == record


def test_unknown_key_returns_none(table):
    assert table.read(KEY.key_id) is None


WRITES = {
    "never_used": (HELD, {"tat_us": NOW_US + 200_000, "month": 202611, "runs": 1}),
    "idle": (replace(USED, tat_us=NOW_US), {"tat_us": NOW_US + 200_000, "runs": 60}),
    "busy": (USED, {"tat_us": NOW_US + 2_000_000, "runs": 60}),
    "new_month": (replace(USED, month=202610, runs=60), {"tat_us": NOW_US + 2_000_000, "month": 202611, "runs": 1}),
    "other_clock_ahead": (replace(USED, month=202612), {"tat_us": NOW_US + 2_000_000, "runs": 60}),
}


@pytest.mark.parametrize(("held", "written"), WRITES.values(), ids=WRITES)
def test_update_with_matching_state_succeeds(table, held, written):
    table.put(held)
    expected = replace(held, **written)
    assert spend(table, held) == expected
    assert replace(table.read(KEY.key_id), spent_by="") == expected


def test_zero_run_request_succeeds_with_exhausted_quota(table):
    table.put(replace(USED, runs=61))
    expected = replace(USED, tat_us=NOW_US + 2_000_000, runs=61)
    assert spend(table, USED, runs=0) == replace(table.read(KEY.key_id), spent_by="") == expected


def test_retried_write_consumes_once(aws):
    real = RealTable(aws.environment)
    real.put(USED)
    once = real._dynamodb.update_item

    class Deaf:
        def update_item(self, **arguments):
            once(**arguments)
            return once(**arguments)

    real._dynamodb = Deaf()
    assert spend(real, USED) == replace(USED, tat_us=NOW_US + 2_000_000, runs=60)


def test_update_tolerates_changed_counters(table):
    table.put(USED)
    spent = spend(table, replace(USED, tat_us=NOW_US + 1, runs=3))
    assert (spent.tat_us, spent.runs) == (NOW_US + 2_000_000, 60)


GOOD_OLD = {"opened_by": "old_secret_sha256"}
REFUSED = {
    "gone": (None, HELD, {}),
    "revoked": (replace(HELD, status=KeyStatus.REVOKED), HELD, {}),
    "revoked_as_seen": (replace(HELD, status=KeyStatus.REVOKED), replace(HELD, status=KeyStatus.REVOKED), {}),
    "expired": (replace(HELD, expires_at=NOW_S), HELD, {}),
    "other_plan": (replace(HELD, plan="free"), HELD, {}),
    "other_secret": (replace(HELD, secret_sha256=OLD.sha256), HELD, {}),
    "other_old_secret": (replace(HELD, old_secret_sha256=KEY.sha256), HELD, GOOD_OLD),
    "old_secret_over": (replace(HELD, old_secret_until=NOW_S), HELD, GOOD_OLD),
    "rate_used_up": (replace(USED, tat_us=NOW_US + 1_800_001), USED, {}),
    "quota_used_up": (replace(USED, runs=60), USED, {}),
    "busy_not_idle": (USED, replace(USED, tat_us=NOW_US), {}),
    "idle_not_busy": (replace(USED, tat_us=NOW_US), USED, {}),
    "month_not_new": (USED, replace(USED, month=202610), {}),
    "month_over": (replace(USED, month=202612), USED, {}),
}


@pytest.mark.parametrize(("held", "seen", "changes"), REFUSED.values(), ids=REFUSED)
def test_conflicting_update_writes_nothing_and_returns_current_record(table, held, seen, changes):
    if held:
        table.put(held)
    with pytest.raises(ChangedError) as caught:
        spend(table, seen, **changes)
    assert caught.value.record == held
    assert table.read(KEY.key_id) == held


def test_key_and_old_secret_are_valid_until_expiry(table):
    table.put(replace(HELD, expires_at=NOW_S + 1))
    assert spend(table, HELD, now_us=NOW_US + 999_999, **GOOD_OLD).runs == 1


def test_item_does_not_grow_over_months(table):
    table.put(HELD)
    for months in range(24):
        held = table.read(KEY.key_id)
        spend(table, held, now_us=NOW_US + months * 31 * 86_400_000_000)
    spent = to_item(table.read(KEY.key_id))
    assert spent.keys() == to_item(HELD).keys()
    assert sum(map(len, spent)) + sum(len(v) for value in spent.values() for v in value.values()) < 512


def test_missing_table_raises(aws):
    table = KeyTable(client("dynamodb", aws.environment), name="nowhere")
    with pytest.raises(KeyTableError):
        table.read(KEY.key_id)
    with pytest.raises(KeyTableError):
        spend(table, HELD)


def test_malformed_item_raises():
    with pytest.raises(KeyTableError):
        from_item({"key_id": {"S": "x"}, "runs": {"S": "many"}})
