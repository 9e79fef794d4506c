"""Job records in DynamoDB, and the states that they go through.

A job has a record from the moment when its customer may ask for it later, until the table's TTL removes it.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from chalicelib import dynamodb
from chalicelib.dynamodb import (
    ConditionFailedError,
    Item,
    TableError,
    from_item,
    stored_item,
    to_value,
    translate_errors,
)

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

PARTITION_KEY: Final = "job_id"
TTL_ATTRIBUTE: Final = "ttl"
TOMBSTONE_TTL_S: Final = 86_400  # a record outlives its result by this, so that the API can answer 410

Value = str | int | bytes


class JobState(StrEnum):
    """Where a job is on its way to its one result."""

    CLAIMED = "claimed"  # a request owns it until claim_expires_at and has not answered yet
    ACCEPTED = "accepted"  # its customer received a 202
    HIDDEN = "hidden"  # its result came before anyone accepted it; no customer sees it
    FINISHED = "finished"  # its reply is stored
    DELETED = "deleted"  # by its customer; an empty record remains


# None is the absence of a record; one past retained_until counts as absent.
TRANSITIONS: Final[Mapping[JobState | None, set[JobState | None]]] = {
    None: {JobState.CLAIMED, JobState.ACCEPTED, JobState.HIDDEN},
    # To None if it was not charged.
    JobState.CLAIMED: {JobState.CLAIMED, JobState.ACCEPTED, JobState.FINISHED, JobState.DELETED, None},
    JobState.ACCEPTED: {JobState.FINISHED, JobState.DELETED, None},  # None: could not be sent
    JobState.HIDDEN: set(),
    JobState.FINISHED: {JobState.DELETED},
    JobState.DELETED: set(),
}


class WebhookState(StrEnum):
    """How far the delivery of a result to its customer is."""

    PENDING = "pending"  # there is no result yet
    RETRYING = "retrying"  # an attempt is due
    DELIVERED = "delivered"  # the endpoint confirmed it
    FAILED = "failed"  # the last attempt failed


class JobRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One item of the table. Times are whole seconds since the epoch.

    `claim_token` is unique per writer: it lets a writer recognize its own record when boto3 retries a write whose
    response was lost. `reply` is written once, as contract.pack writes it. Its size is that of a message, far below the
    400 KB of an item: of a larger reply, it is the reference.
    """

    job_id: str
    key_id: str
    state: JobState
    body_sha256: str = ""  # of a request with an Idempotency-Key
    claim_token: str = ""
    claim_expires_at: int = 0  # from then on, the same request may take over a claimed job
    holds_slot: bool = False  # counts as a pending job of its key until it has a reply
    start_deadline: int  # from then on, no host starts it
    retained_until: int
    reply: bytes | None = None
    expectations: bytes = b""  # of a batch, as expectations.dump returns them
    webhook_url: str | None = None
    webhook_state: WebhookState = WebhookState.PENDING
    webhook_attempts: int = 0
    webhook_error: str | None = None  # of the last attempt


class JobTable(Struct, frozen=True):
    """Conditional reads and writes of job records. Each write returns the stored record. All raise TableError."""

    dynamodb: "DynamoDBClient"
    name: str

    def read(self, job_id: str) -> JobRecord | None:
        """Return the current record."""
        with translate_errors(self.name):
            response = self.dynamodb.get_item(TableName=self.name, Key=_key(job_id), ConsistentRead=True)
        return from_item(response["Item"], JobRecord) if "Item" in response else None

    def claim(self, record: JobRecord, *, now_s: int) -> JobRecord:
        """Store a record unless the job has one that is still retained."""
        return self._put(record, "attribute_not_exists(#state) OR retained_until <= :now", {":now": now_s})

    def replace_if_unchanged(self, expected: JobRecord, record: JobRecord) -> JobRecord:
        """Store a record if the claim of `expected` still stands."""
        condition, values = _state_allows(record.state)
        return self._put(record, f"claim_token = :token AND {condition}", {":token": expected.claim_token, **values})

    def release_claim(self, record: JobRecord) -> None:
        """Remove a record, as if the job had never been claimed, unless it has changed."""
        condition, values = _state_allows(None)
        with suppress(ConditionFailedError):
            self._write(
                self.dynamodb.delete_item,
                f"claim_token = :token AND {condition}",
                {":token": record.claim_token, **values},
                Key=_key(record.job_id),
            )

    def set_reply(self, job_id: str, reply: bytes) -> JobRecord | None:
        """Finish a job unless it is finished or deleted. Return None if it has no record."""
        return self._change_state(job_id, JobState.FINISHED, "SET #state = :state, reply = :reply", {":reply": reply})

    def mark_deleted(self, job_id: str, *, key_id: str) -> JobRecord | None:
        """Remove everything that the customer sent and received. Return None if the job has no record."""
        return self._change_state(
            job_id,
            JobState.DELETED,
            "SET #state = :state REMOVE reply, expectations, webhook_url, webhook_error",
            {":key_id": key_id},
            condition="key_id = :key_id AND ",
        )

    def update_webhook(
        self, expected: JobRecord, state: WebhookState, *, attempts: int, error: str | None = None
    ) -> JobRecord | None:
        """Record the progress of a webhook unless it has changed since `expected`. Return None without a record."""
        return self._update(
            expected.job_id,
            "SET webhook_state = :webhook_state, webhook_attempts = :attempts, webhook_error = :error",
            "#state = :finished AND webhook_state = :expected_state AND webhook_attempts = :expected_attempts",
            {
                ":finished": JobState.FINISHED,
                ":expected_state": expected.webhook_state,
                ":expected_attempts": expected.webhook_attempts,
                ":webhook_state": state,
                ":attempts": attempts,
                ":error": error or "",
            },
        )

    def _put(self, record: JobRecord, condition: str, values: Mapping[str, Value]) -> JobRecord:
        try:
            self._write(self.dynamodb.put_item, condition, values, Item=to_item(record))
        except ConditionFailedError as failed:
            item = stored_item(failed, self.dynamodb, table=self.name, key=_key(record.job_id))
            if item is None:  # it was removed since
                raise TableError(self.name) from failed
            return from_item(item, JobRecord)
        return record

    def _change_state(
        self, job_id: str, state: JobState, expression: str, values: Mapping[str, Value], *, condition: str = ""
    ) -> JobRecord | None:
        allowed, states = _state_allows(state)
        arguments = job_id, expression, condition + allowed, {":state": state, **states, **values}
        record = self._update(*arguments)
        if record is not None and record.state in states_before(state):  # it was created after the write had failed
            record = self._update(*arguments)
        return record

    def _update(self, job_id: str, expression: str, condition: str, values: Mapping[str, Value]) -> JobRecord | None:
        changes = {"Key": _key(job_id), "UpdateExpression": expression, "ReturnValues": "ALL_NEW"}
        try:
            response = self._write(self.dynamodb.update_item, condition, values, **changes)
        except ConditionFailedError as failed:
            item = stored_item(failed, self.dynamodb, table=self.name, key=_key(job_id))
            return from_item(item, JobRecord) if item else None
        return from_item(response["Attributes"], JobRecord)

    def _write(
        self, operation: Callable[..., Any], condition: str, values: Mapping[str, Value], **arguments: object
    ) -> Any:  # noqa: ANN401 - boto3's response
        """Call an operation that is conditional. Raise ConditionFailedError or TableError."""
        with translate_errors(self.name):
            return operation(
                TableName=self.name,
                ConditionExpression=condition,
                ExpressionAttributeNames={"#state": "state"},  # a reserved word
                ExpressionAttributeValues={name: to_value(value) for name, value in values.items()},
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
                **arguments,
            )


def states_before(state: JobState | None) -> list[JobState]:
    """Return the states of a stored record from which `state` can be reached; None means removal."""
    return [before for before, after in TRANSITIONS.items() if before is not None and state in after]


def to_item(record: JobRecord) -> Item:
    """Return the item of a record, with the time at which DynamoDB removes it."""
    ttl = record.retained_until + TOMBSTONE_TTL_S
    return {**dynamodb.to_item(record), TTL_ATTRIBUTE: to_value(ttl)}


def _state_allows(state: JobState | None) -> tuple[str, dict[str, Value]]:
    """Return the condition, with its values, that the current state may become `state`."""
    values: dict[str, Value] = {f":{before}": before for before in states_before(state)}
    return f"#state IN ({', '.join(values)})", values


def _key(job_id: str) -> Item:
    return {PARTITION_KEY: {"S": job_id}}
