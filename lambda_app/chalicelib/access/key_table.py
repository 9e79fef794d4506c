"""Read and charge customer keys in DynamoDB. Each key is one item, so one conditional update checks and charges it."""

import secrets
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from chalicelib.access import rate_limits
from chalicelib.access.api_keys import KeyRecord, KeyStatus
from chalicelib.access.plans import Plan
from chalicelib.dynamodb import ConditionFailedError, from_item, to_value, translate_errors

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

    def charge(self, expected: KeyRecord, plan: Plan, *, matched_attribute: str, now_us: int, runs: int) -> KeyRecord:
        """Charge one request to the rate and `runs` to the quota, and return the new record.

        The key must be active, and its plan and the hash in `matched_attribute` must equal those of `expected`. Counts
        may have grown since `expected` was read, up to the limits. boto3 repeats a write whose response was lost; the
        charge id makes it count once. Raise StaleRecordError or TableError.
        """
        charge_id = secrets.token_hex(8)
        arguments = _update_arguments(
            expected, plan, matched_attribute=matched_attribute, now_us=now_us, runs=runs, charge_id=charge_id
        )
        try:
            with translate_errors(self.name):
                response = self.dynamodb.update_item(TableName=self.name, Key=_key(expected.key_id), **arguments)
        except ConditionFailedError as failed:
            current = from_item(failed.item, KeyRecord) if failed.item else None
            if current is None or current.last_charge_id != charge_id:
                raise StaleRecordError(current) from failed
            return current
        return from_item(response["Attributes"], KeyRecord)


def _update_arguments(
    expected: KeyRecord, plan: Plan, *, matched_attribute: str, now_us: int, runs: int, charge_id: str
) -> dict[str, Any]:
    """Return the arguments of one of four updates. DynamoDB has no max(), so `expected` selects the branches to try."""
    month, interval_us = rate_limits.current_month(expected, now_us), rate_limits.interval_us(plan)
    values: dict[str, str | int] = {
        ":active": KeyStatus.ACTIVE,
        ":plan": plan.name,
        ":sha256": getattr(expected, matched_attribute),
        ":now_s": now_us // rate_limits.SECOND_US,
        ":now_us": now_us,
        ":month": month,
        ":runs": runs,
        ":charge_id": charge_id,
    }
    conditions = [
        "#status = :active",
        "#plan = :plan",
        f"{matched_attribute} = :sha256",
        "(attribute_not_exists(expires_at) OR expires_at > :now_s)",
        "(attribute_not_exists(last_charge_id) OR last_charge_id <> :charge_id)",
    ]
    updates = ["last_charge_id = :charge_id"]
    if matched_attribute == "previous_secret_sha256":
        conditions.append("previous_secret_expires_at > :now_s")
    if expected.tat_us <= now_us:
        conditions.append("tat_us <= :now_us")
        updates.append("tat_us = :next_us")
        values[":next_us"] = now_us + interval_us
    else:
        conditions.append("tat_us > :now_us AND tat_us <= :max_us")
        updates.append("tat_us = tat_us + :interval_us")
        values |= {":interval_us": interval_us, ":max_us": rate_limits.max_tat_us(plan, now_us)}
    if expected.month == month:
        conditions.append("#month = :month")
        updates.append("runs = runs + :runs")
        if runs:
            conditions.append("runs <= :max_runs")
            values[":max_runs"] = plan.runs_per_month - runs
    else:
        conditions.append("#month < :month")
        updates.append("#month = :month, runs = :runs")
    return {
        "UpdateExpression": f"SET {', '.join(updates)}",
        "ConditionExpression": " AND ".join(conditions),
        "ExpressionAttributeNames": {"#status": "status", "#plan": "plan", "#month": "month"},  # reserved words
        "ExpressionAttributeValues": {name: to_value(value) for name, value in values.items()},
        "ReturnValues": "ALL_NEW",
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }


def _key(key_id: str) -> dict[str, Any]:
    return {PARTITION_KEY: {"S": key_id}}
