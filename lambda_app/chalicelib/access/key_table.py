"""Read and charge customer keys in DynamoDB. Each key is one item, so one conditional update checks and charges it."""

import secrets
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from chalicelib.access import rate_limits
from chalicelib.access.api_keys import KeyRecord, KeyStatus
from chalicelib.access.plans import Plan
from chalicelib.dynamodb import ConditionFailedError, from_item, stored_item, to_value, translate_errors

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

PARTITION_KEY: Final = "key_id"


class StaleRecordError(Exception):
    """The stored key does not allow this charge; nothing was written. `record` is the stored one, None if deleted."""

    def __init__(self, record: KeyRecord | None) -> None:
        super().__init__("the key has changed")
        self.record = record


class KeyTable(Struct, frozen=True):
    """The keys table. Thread-safe."""

    dynamodb: "DynamoDBClient"
    name: str

    def read(self, key_id: str) -> KeyRecord | None:
        """Return the current record of a key, or None if there is none. Raise TableError."""
        with translate_errors(self.name):
            response = self.dynamodb.get_item(TableName=self.name, Key=_key(key_id), ConsistentRead=True)
        return from_item(response["Item"], KeyRecord) if "Item" in response else None

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
        """Charge one request to one of the rates and `runs` to the quota, and return the new record.

        The key must be active, and its plan and the hash in `matched_attribute` must equal those of `expected`. Counts
        may have grown since `expected` was read, up to the limits. boto3 repeats a write whose response was lost; the
        charge id makes it count once. Raise StaleRecordError or TableError.
        """
        charge_id = secrets.token_hex(8)
        key = _key_conditions(expected, plan, matched_attribute=matched_attribute, now_us=now_us, charge_id=charge_id)
        rate = _rate_update(expected, plan, now_us=now_us, is_read=is_read)
        arguments = _update_arguments(key, rate, _quota_update(expected, plan, now_us=now_us, runs=runs))
        try:
            with translate_errors(self.name):
                response = self.dynamodb.update_item(TableName=self.name, Key=_key(expected.key_id), **arguments)
        except ConditionFailedError as failed:
            item = stored_item(failed, self.dynamodb, table=self.name, key=_key(expected.key_id))
            current = from_item(item, KeyRecord) if item else None
            if current is None or current.last_charge_id != charge_id:
                raise StaleRecordError(current) from failed
            return current
        return from_item(response["Attributes"], KeyRecord)


class _Part(Struct, frozen=True):
    """A part of a conditional update. DynamoDB has no max(), so the expected record selects the branch to try."""

    condition: str
    update: str
    values: dict[str, str | int]


def _key_conditions(expected: KeyRecord, plan: Plan, *, matched_attribute: str, now_us: int, charge_id: str) -> _Part:
    """Return the part that requires an active key with the expected plan and secret, and an update only once."""
    conditions = [
        "#status = :active",
        "#plan = :plan",
        f"{matched_attribute} = :sha256",
        "(attribute_not_exists(expires_at) OR expires_at > :now_s)",
        "(attribute_not_exists(last_charge_id) OR last_charge_id <> :charge_id)",
    ]
    if matched_attribute == "previous_secret_sha256":
        conditions.append("previous_secret_expires_at > :now_s")
    values: dict[str, str | int] = {
        ":active": KeyStatus.ACTIVE,
        ":plan": plan.name,
        ":sha256": getattr(expected, matched_attribute),
        ":now_s": now_us // rate_limits.SECOND_US,
        ":charge_id": charge_id,
    }
    return _Part(" AND ".join(conditions), "last_charge_id = :charge_id", values)


def _rate_update(expected: KeyRecord, plan: Plan, *, now_us: int, is_read: bool) -> _Part:
    tat, tat_us = ("read_tat_us", expected.read_tat_us) if is_read else ("tat_us", expected.tat_us)
    rate = plan.read_rate if is_read else plan.run_rate
    interval_us, max_us = rate_limits.interval_us(rate), rate_limits.max_tat_us(rate, now_us)
    if tat_us <= now_us:
        condition = f"(attribute_not_exists({tat}) OR {tat} <= :now_us)"  # keys from before the rate of reads
        return _Part(condition, f"{tat} = :next_us", {":now_us": now_us, ":next_us": now_us + interval_us})
    values: dict[str, str | int] = {":now_us": now_us, ":interval_us": interval_us, ":max_us": max_us}
    return _Part(f"{tat} > :now_us AND {tat} <= :max_us", f"{tat} = {tat} + :interval_us", values)


def _quota_update(expected: KeyRecord, plan: Plan, *, now_us: int, runs: int) -> _Part:
    month = rate_limits.current_month(expected, now_us)
    values: dict[str, str | int] = {":month": month, ":runs": runs}
    if expected.month != month:
        return _Part("#month < :month", "#month = :month, runs = :runs", values)
    if not runs:
        return _Part("#month = :month", "runs = runs + :runs", values)
    values[":max_runs"] = plan.runs_per_month - runs
    return _Part("#month = :month AND runs <= :max_runs", "runs = runs + :runs", values)


def _update_arguments(*parts: _Part) -> dict[str, Any]:
    return {
        "UpdateExpression": f"SET {', '.join(part.update for part in parts)}",
        "ConditionExpression": " AND ".join(part.condition for part in parts),
        "ExpressionAttributeNames": {"#status": "status", "#plan": "plan", "#month": "month"},  # reserved words
        "ExpressionAttributeValues": {name: to_value(value) for part in parts for name, value in part.values.items()},
        "ReturnValues": "ALL_NEW",
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }


def _key(key_id: str) -> dict[str, Any]:
    return {PARTITION_KEY: {"S": key_id}}
