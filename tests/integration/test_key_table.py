"""The key table in DynamoDB and its fake charge and reject the same requests."""

import pytest
from msgspec.structs import replace

from chalicelib.access.api_keys import KeyRecord, KeyStatus, new_key
from chalicelib.access.key_table import KeyTable, StaleRecordError
from chalicelib.access.plans import PLANS
from chalicelib.dynamodb import TableError, from_item, to_item
from tests.support.fakes.tables import FakeKeyTable
from tests.support.records import make_key_record

PLAN = replace(PLANS["pro"], requests_per_second=5, burst=10, runs_per_month=60)
NOW_S = 1_794_000_000  # 2026-11-06
NOW_US = NOW_S * 1_000_000
KEY, PREVIOUS = new_key(), new_key()
CURRENT = make_key_record(KEY, previous_secret_sha256=PREVIOUS.secret_sha256, previous_secret_expires_at=NOW_S + 1)
USED = replace(CURRENT, tat_us=NOW_US + 1_800_000, month=202611, runs=59)


class RealTable:
    """A KeyTable with an empty table, and a client to put records into it."""

    def __init__(self, dynamodb, name):
        self._dynamodb, self._name = dynamodb, name
        table = KeyTable(dynamodb, name=name)
        self.read, self.charge = table.read, table.charge

    def put(self, record):
        self._dynamodb.put_item(TableName=self._name, Item=to_item(record))


class FakeTable(FakeKeyTable):
    def put(self, record):
        self.records[record.key_id] = record


@pytest.fixture
def real_table(dynamodb, keys_table):
    return RealTable(dynamodb, keys_table)


@pytest.fixture(params=["dynamodb", "fake"])
def table(request):
    return request.getfixturevalue("real_table") if request.param == "dynamodb" else FakeTable()


def charge(table, expected, **changes):
    arguments = {"plan": PLAN, "matched_attribute": "secret_sha256", "now_us": NOW_US, "runs": 1} | changes
    return replace(table.charge(expected, arguments.pop("plan"), **arguments), last_charge_id="")


def test_record_round_trips(table):
    for record in (CURRENT, USED, replace(CURRENT, expires_at=NOW_S, status=KeyStatus.REVOKED, owner="1")):
        table.put(record)
        assert table.read(KEY.key_id) == record


def test_unknown_key_returns_none(table):
    assert table.read(KEY.key_id) is None


WRITES = {
    "never_used": (CURRENT, {"tat_us": NOW_US + 200_000, "month": 202611, "runs": 1}),
    "idle": (replace(USED, tat_us=NOW_US), {"tat_us": NOW_US + 200_000, "runs": 60}),
    "busy": (USED, {"tat_us": NOW_US + 2_000_000, "runs": 60}),
    "new_month": (replace(USED, month=202610, runs=60), {"tat_us": NOW_US + 2_000_000, "month": 202611, "runs": 1}),
    "other_clock_ahead": (replace(USED, month=202612), {"tat_us": NOW_US + 2_000_000, "runs": 60}),
}


@pytest.mark.parametrize(("current", "written"), WRITES.values(), ids=WRITES)
def test_update_with_matching_state_succeeds(table, current, written):
    table.put(current)
    updated = replace(current, **written)
    assert charge(table, current) == updated
    assert replace(table.read(KEY.key_id), last_charge_id="") == updated


READ = {"is_read": True, "runs": 0}
READS = {
    "never_used": (CURRENT, {"read_tat_us": NOW_US + 5_000, "month": 202611}),
    "idle": (replace(USED, read_tat_us=NOW_US), {"read_tat_us": NOW_US + 5_000}),
    "busy": (replace(USED, read_tat_us=NOW_US + 1_995_000), {"read_tat_us": NOW_US + 2_000_000}),
    "over_rate_and_quota": (replace(USED, tat_us=NOW_US * 2, runs=61), {"read_tat_us": NOW_US + 5_000}),
}


@pytest.mark.parametrize(("current", "written"), READS.values(), ids=READS)
def test_read_changes_only_its_own_rate(table, current, written):
    table.put(current)
    updated = replace(current, **written)
    assert charge(table, current, **READ) == replace(table.read(KEY.key_id), last_charge_id="") == updated


def test_key_from_before_the_rate_of_reads_is_charged(real_table):
    real_table.put(USED)
    real_table._dynamodb.update_item(
        TableName=real_table._name, Key={"key_id": {"S": KEY.key_id}}, UpdateExpression="REMOVE read_tat_us"
    )
    assert charge(real_table, USED, **READ).read_tat_us == NOW_US + 5_000


def test_zero_run_request_succeeds_with_exhausted_quota(table):
    table.put(replace(USED, runs=61))
    updated = replace(USED, tat_us=NOW_US + 2_000_000, runs=61)
    assert charge(table, USED, runs=0) == replace(table.read(KEY.key_id), last_charge_id="") == updated


def test_retried_write_consumes_once(real_table):
    real_table.put(USED)

    class DropsFirstResponse:
        def update_item(self, **arguments):
            real_table._dynamodb.update_item(**arguments)
            return real_table._dynamodb.update_item(**arguments)

    table = KeyTable(DropsFirstResponse(), name=real_table._name)
    assert charge(table, USED) == replace(USED, tat_us=NOW_US + 2_000_000, runs=60)


def test_update_tolerates_changed_counters(table):
    table.put(USED)
    charged = charge(table, replace(USED, tat_us=NOW_US + 1, runs=3))
    assert (charged.tat_us, charged.runs) == (NOW_US + 2_000_000, 60)


MATCHES_PREVIOUS = {"matched_attribute": "previous_secret_sha256"}
CONFLICTS = {
    "deleted": (None, CURRENT, {}),
    "revoked": (replace(CURRENT, status=KeyStatus.REVOKED), CURRENT, {}),
    "known_to_be_revoked": (replace(CURRENT, status=KeyStatus.REVOKED), replace(CURRENT, status=KeyStatus.REVOKED), {}),
    "expired": (replace(CURRENT, expires_at=NOW_S), CURRENT, {}),
    "other_plan": (replace(CURRENT, plan="free"), CURRENT, {}),
    "other_secret": (replace(CURRENT, secret_sha256=PREVIOUS.secret_sha256), CURRENT, {}),
    "other_previous_secret": (replace(CURRENT, previous_secret_sha256=KEY.secret_sha256), CURRENT, MATCHES_PREVIOUS),
    "previous_secret_expired": (replace(CURRENT, previous_secret_expires_at=NOW_S), CURRENT, MATCHES_PREVIOUS),
    "rate_used_up": (replace(USED, tat_us=NOW_US + 1_800_001), USED, {}),
    "read_rate_used_up": (replace(USED, read_tat_us=NOW_US + 1_995_001), replace(USED, read_tat_us=NOW_US + 1), READ),
    "quota_used_up": (replace(USED, runs=60), USED, {}),
    "busy_not_idle": (USED, replace(USED, tat_us=NOW_US), {}),
    "idle_not_busy": (replace(USED, tat_us=NOW_US), USED, {}),
    "month_not_new": (USED, replace(USED, month=202610), {}),
    "month_over": (replace(USED, month=202612), USED, {}),
}


@pytest.mark.parametrize(("current", "expected", "changes"), CONFLICTS.values(), ids=CONFLICTS)
def test_conflicting_update_writes_nothing_and_returns_current_record(table, current, expected, changes):
    if current:
        table.put(current)
    with pytest.raises(StaleRecordError) as caught:
        charge(table, expected, **changes)
    assert caught.value.record == current
    assert table.read(KEY.key_id) == current


def test_key_and_old_secret_are_valid_until_expiry(table):
    table.put(replace(CURRENT, expires_at=NOW_S + 1))
    assert charge(table, CURRENT, now_us=NOW_US + 999_999, **MATCHES_PREVIOUS).runs == 1


def test_item_does_not_grow_over_months(table):
    table.put(CURRENT)
    for months in range(24):
        current = table.read(KEY.key_id)
        charge(table, current, now_us=NOW_US + months * 31 * 86_400_000_000)
    charged = to_item(table.read(KEY.key_id))
    assert charged.keys() == to_item(CURRENT).keys()
    assert sum(map(len, charged)) + sum(len(v) for value in charged.values() for v in value.values()) < 512


def test_missing_table_raises(dynamodb):
    table = KeyTable(dynamodb, name="missing")
    with pytest.raises(TableError):
        table.read(KEY.key_id)
    with pytest.raises(TableError):
        charge(table, CURRENT)


def test_malformed_item_raises():
    with pytest.raises(TableError):
        from_item({"key_id": {"S": "x"}, "runs": {"S": "many"}}, KeyRecord)
