"""The keys in DynamoDB, as admission sees them: a consistent read, and the one write that admits a request."""

import secrets
from collections.abc import Mapping
from typing import Any, Final, Protocol

import msgspec
from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.access import rate_limits
from chalicelib.access.api_keys import KeyRecord, KeyStatus
from chalicelib.access.plans import Plan

PARTITION_KEY: Final = "key_id"
Item = Mapping[str, Mapping[str, str]]  # {"plan": {"S": "free"}, "runs": {"N": "1"}}


class KeyTableError(Exception):
    """The table did not answer, or not as expected."""


class StaleRecordError(Exception):
    """The key is not, or no longer, as the caller assumed; nothing was written. `record` is how it is now."""

    def __init__(self, record: KeyRecord | None) -> None:
        super().__init__("the key has changed")
        self.record = record


class DynamoDb(Protocol):
    """What is used of boto3's client."""

    def get_item(self, *, TableName: str, Key: Item, ConsistentRead: bool) -> dict[str, Any]:  # noqa: N803
        """https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_GetItem.html."""

    def update_item(
        self,
        *,
        TableName: str,  # noqa: N803
        Key: Item,  # noqa: N803
        UpdateExpression: str,  # noqa: N803
        ConditionExpression: str,  # noqa: N803
        ExpressionAttributeNames: Mapping[str, str],  # noqa: N803
        ExpressionAttributeValues: Item,  # noqa: N803
        ReturnValues: str,  # noqa: N803
        ReturnValuesOnConditionCheckFailure: str,  # noqa: N803
    ) -> dict[str, Any]:
        """https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_UpdateItem.html."""


class KeyTable:
    """One item a key, its limiter's state included, so that one condition covers both."""

    def __init__(self, dynamodb: DynamoDb, *, name: str) -> None:
        self._dynamodb = dynamodb
        self._name = name

    def read(self, key_id: str) -> KeyRecord | None:
        """The key as it is now, None if there is none. Raises KeyTableError."""
        try:
            answer = self._dynamodb.get_item(TableName=self._name, Key=_key(key_id), ConsistentRead=True)
        except (BotoCoreError, ClientError) as error:
            raise KeyTableError(self._name) from error
        return from_item(answer["Item"]) if "Item" in answer else None

    def charge(self, expected: KeyRecord, plan: Plan, *, matched_attribute: str, now_us: int, runs: int) -> KeyRecord:
        """Takes a request from the rate and `runs` from the quota, if the key still is as `seen`; how it is then.

        What must be unchanged: that it is active and not expired, its plan, the hash in the member `matched_attribute`,
        and which of two writes is right: whether the rate was used up to now and whether the month is a new
        one. The counts themselves may have moved on. A write whose answer was lost is tried twice by boto3 and takes
        once, by its nonce. Raises StaleRecordError or KeyTableError.
        """
        nonce = secrets.token_hex(8)
        try:
            answer = self._dynamodb.update_item(
                TableName=self._name,
                Key=_key(expected.key_id),
                ReturnValues="ALL_NEW",
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
                **_update_arguments(
                    expected, plan, matched_attribute=matched_attribute, now_us=now_us, runs=runs, nonce=nonce
                ),
            )
        except ClientError as error:
            if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
                raise KeyTableError(self._name) from error
            item = error.response.get("Item")
            held = from_item(item) if item else None
            if held is None or held.last_charge_id != nonce:
                raise StaleRecordError(held) from error
            return held
        except BotoCoreError as error:
            raise KeyTableError(self._name) from error
        return from_item(answer["Attributes"])


def _update_arguments(
    expected: KeyRecord, plan: Plan, *, matched_attribute: str, now_us: int, runs: int, nonce: str
) -> dict[str, Any]:
    """DynamoDB has no max(), hence a write for each side of `tat_us <= now` and of the turn of the month."""
    month, interval_us = rate_limits.current_month(expected, now_us), rate_limits.interval_us(plan)
    values: dict[str, str | int] = {
        ":active": KeyStatus.ACTIVE,
        ":plan": plan.name,
        ":sha256": getattr(expected, matched_attribute),
        ":now_s": now_us // rate_limits.SECOND_US,
        ":now_us": now_us,
        ":month": month,
        ":runs": runs,
        ":nonce": nonce,
    }
    conditions = [
        "#status = :active",
        "#plan = :plan",
        f"{matched_attribute} = :sha256",
        "(attribute_not_exists(expires_at) OR expires_at > :now_s)",
        "(attribute_not_exists(last_charge_id) OR last_charge_id <> :nonce)",
    ]
    if matched_attribute == "previous_secret_sha256":
        conditions.append("previous_secret_expires_at > :now_s")
    if expected.tat_us <= now_us:
        conditions.append("tat_us <= :now_us")
        updates = ["last_charge_id = :nonce", "tat_us = :next_us"]
        values[":next_us"] = now_us + interval_us
    else:
        conditions.append("tat_us > :now_us AND tat_us <= :latest_us")
        updates = ["last_charge_id = :nonce", "tat_us = tat_us + :interval_us"]
        values |= {":interval_us": interval_us, ":latest_us": rate_limits.max_tat_us(plan, now_us)}
    if expected.month == month:
        conditions.append("#month = :month")
        updates.append("runs = runs + :runs")
        if runs:
            conditions.append("runs <= :most")
            values[":most"] = plan.runs_per_month - runs
    else:
        conditions.append("#month < :month")
        updates.append("#month = :month, runs = :runs")
    return {
        "UpdateExpression": f"SET {', '.join(updates)}",
        "ConditionExpression": " AND ".join(conditions),
        "ExpressionAttributeNames": {"#status": "status", "#plan": "plan", "#month": "month"},  # reserved words
        "ExpressionAttributeValues": {name: _value(value) for name, value in values.items()},
    }


def from_item(item: Item) -> KeyRecord:
    """Raises KeyTableError for an item that is no key."""
    flat = {name: next(iter(value.values())) for name, value in item.items()}
    try:
        return msgspec.convert(flat, KeyRecord, strict=False)
    except msgspec.ValidationError as error:
        raise KeyTableError("an item of the table is no key") from error


def to_item(record: KeyRecord) -> Item:
    members = msgspec.structs.asdict(record)
    return {name: _value(value) for name, value in members.items() if value is not None}


def _key(key_id: str) -> Item:
    return {PARTITION_KEY: {"S": key_id}}


def _value(value: str | int) -> Mapping[str, str]:
    return {"N": str(value)} if isinstance(value, int) else {"S": str(value)}
