"""The jobs in DynamoDB: what was promised to whom, and the one reply that each ends in. For submit.py and delivery.py.

A job has an item from the moment that its customer may ask for it later, until the table's TTL removes it.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, Protocol

import msgspec
from botocore.exceptions import BotoCoreError, ClientError
from msgspec import Struct

PARTITION_KEY: Final = "job_id"
TTL_ATTRIBUTE: Final = "ttl"
TOMBSTONE_S: Final = 86_400  # an item outlives its reply by this, to say that it is gone

_IS_OPEN: Final = "attribute_exists(job_id) AND attribute_not_exists(reply) AND attribute_not_exists(forgotten)"
Item = Mapping[str, Any]


class JobTableError(Exception):
    """The table did not answer, or not as expected."""


class WebhookState(StrEnum):
    """How far the delivery of a webhook has come."""

    PENDING = "pending"  # the job has no result yet
    RETRYING = "retrying"  # the first or another attempt is due
    DELIVERED = "delivered"
    FAILED = "failed"  # no further attempt follows


class JobRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the table holds of a job. Times are whole seconds since the epoch.

    `reply` is written once, as contract.encode writes it: large ones are compressed and fit into an item.
    `fingerprint` is the SHA-256 of the body of a request that had an Idempotency-Key. `nonce` is new with each
    writer, who so knows its own item again when a write whose answer was lost is tried twice.
    """

    job_id: str
    key_id: str
    fingerprint: str = ""
    nonce: str = ""
    counted: int = 0  # among the waiting jobs of its key, until it has its reply
    promised: int = 0  # its customer is told to ask for it, and it is not sent again
    retry_at: int  # unless it is promised: from then on the same request sends it again
    expires_at: int  # from then on no host begins it
    kept_until: int  # its customer may ask until then
    reply: str | None = None
    forgotten: int | None = None  # its customer has deleted it
    webhook_url: str | None = None
    webhook_state: WebhookState = WebhookState.PENDING
    webhook_attempts: int = 0
    webhook_error: str | None = None  # of the last attempt

    @property
    def is_asked_for(self) -> bool:
        """Whether its customer knows of it. A result for nobody has an item too, for who is about to be promised it."""
        return bool(self.promised or self.fingerprint)


class DynamoDb(Protocol):
    """What is used of boto3's client."""

    def get_item(self, **arguments: Any) -> dict[str, Any]:  # noqa: ANN401 - boto3 has no types
        """https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_GetItem.html."""

    def put_item(self, **arguments: Any) -> dict[str, Any]:  # noqa: ANN401
        """https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_PutItem.html."""

    def update_item(self, **arguments: Any) -> dict[str, Any]:  # noqa: ANN401
        """https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_UpdateItem.html."""

    def delete_item(self, **arguments: Any) -> dict[str, Any]:  # noqa: ANN401
        """https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_DeleteItem.html."""


class JobTable:
    """One item a job. Every write has a condition, so that who comes second sees what the first one wrote.

    All methods raise JobTableError when the table does not answer.
    """

    def __init__(self, dynamodb: DynamoDb, *, name: str) -> None:
        self._dynamodb = dynamodb
        self._name = name

    def read(self, job_id: str) -> JobRecord | None:
        """The job as it is now, None if there is none."""
        answer = self._call("get_item", Key=_key(job_id), ConsistentRead=True)
        return from_item(answer["Item"]) if "Item" in answer else None

    def claim(self, record: JobRecord, *, now_s: int) -> JobRecord:
        """Stores a job unless there is one of this id that is still kept; the one that is there then."""
        condition = "attribute_not_exists(job_id) OR kept_until <= :now"
        return self._put(record, condition, {":now": now_s})

    def replace(self, seen: JobRecord, record: JobRecord) -> JobRecord:
        """Stores `record` if the job is of the same writer as `seen` and neither promised nor done; what is there."""
        condition = f"nonce = :nonce AND promised = :no AND {_IS_OPEN}"
        return self._put(record, condition, {":nonce": seen.nonce, ":no": 0})

    def unclaim(self, record: JobRecord) -> None:
        """Removes what `claim` stored, as if it had never been, unless it went on meanwhile."""
        self._change("delete_item", record.job_id, f"nonce = :nonce AND {_IS_OPEN}", {":nonce": record.nonce})

    def settle(self, job_id: str, reply: str) -> JobRecord | None:
        """Gives a job its reply, unless it has one or is forgotten; how it is then, None if there is no such job."""
        return self._change("update_item", job_id, _IS_OPEN, {":reply": reply}, UpdateExpression="SET reply = :reply")

    def forget(self, job_id: str, *, key_id: str) -> JobRecord | None:
        """Removes all that a customer sent and got; how it is then, None if there is no such job."""
        return self._change(
            "update_item",
            job_id,
            "key_id = :key_id AND (promised = :one OR fingerprint <> :none)",
            {":key_id": key_id, ":one": 1, ":none": ""},
            UpdateExpression="SET forgotten = :one REMOVE reply, webhook_url, webhook_error",
        )

    def note_webhook(
        self, seen: JobRecord, state: WebhookState, *, attempts: int, error: str | None = None
    ) -> JobRecord | None:
        """Writes down how far the webhook is unless it went on since `seen`; how it is then, None if it is gone."""
        return self._change(
            "update_item",
            seen.job_id,
            "webhook_state = :seen AND webhook_attempts = :before",
            {
                ":seen": seen.webhook_state,
                ":before": seen.webhook_attempts,
                ":state": state,
                ":attempts": attempts,
                ":error": error or "",
            },
            UpdateExpression="SET webhook_state = :state, webhook_attempts = :attempts, webhook_error = :error",
        )

    def _put(self, record: JobRecord, condition: str, values: Mapping[str, str | int]) -> JobRecord:
        try:
            self._call(
                "put_item",
                Item=to_item(record),
                ConditionExpression=condition,
                ExpressionAttributeValues=_values(values),
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )
        except _RefusedError as refused:
            if refused.record is None:  # it was removed since
                raise JobTableError(self._name) from refused
            return refused.record
        return record

    def _change(
        self, operation: str, job_id: str, condition: str, values: Mapping[str, str | int], **arguments: str
    ) -> JobRecord | None:
        try:
            answer = self._call(
                operation,
                Key=_key(job_id),
                ConditionExpression=condition,
                ExpressionAttributeValues=_values(values),
                ReturnValues="ALL_NEW" if operation == "update_item" else "NONE",
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
                **arguments,
            )
        except _RefusedError as refused:
            return refused.record
        return from_item(answer["Attributes"]) if "Attributes" in answer else None

    def _call(self, operation: str, **arguments: Any) -> dict[str, Any]:  # noqa: ANN401 - as boto3 has them
        try:
            answer: dict[str, Any] = getattr(self._dynamodb, operation)(TableName=self._name, **arguments)
        except ClientError as error:
            if error.response["Error"]["Code"] == "ConditionalCheckFailedException":
                item = error.response.get("Item")
                raise _RefusedError(from_item(item) if item else None) from error
            raise JobTableError(self._name) from error
        except BotoCoreError as error:
            raise JobTableError(self._name) from error
        return answer


class _RefusedError(Exception):
    """The condition did not hold; `record` is what is there."""

    def __init__(self, record: JobRecord | None) -> None:
        super().__init__("the condition did not hold")
        self.record = record


def from_item(item: Item) -> JobRecord:
    """Raises JobTableError for an item that is no job."""
    flat = {name: next(iter(value.values())) for name, value in item.items() if name != TTL_ATTRIBUTE}
    try:
        return msgspec.convert(flat, JobRecord, strict=False)
    except msgspec.ValidationError as error:
        raise JobTableError("an item of the table is no job") from error


def to_item(record: JobRecord) -> Item:
    """With all that conditions compare, and the time of its end."""
    members = {name: value for name, value in msgspec.structs.asdict(record).items() if value is not None}
    return _values({**members, TTL_ATTRIBUTE: record.kept_until + TOMBSTONE_S})


def _key(job_id: str) -> Item:
    return {PARTITION_KEY: {"S": job_id}}


def _values(members: Mapping[str, str | int]) -> Item:
    return {name: {"N": str(value)} if isinstance(value, int) else {"S": str(value)} for name, value in members.items()}
