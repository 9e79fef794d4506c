"""The slots of a key's pending jobs: an exact limit that recovers by itself after any failure.

Each key has one item in the jobs table with a set of entries. Removing an entry twice is harmless, which decrementing
a counter is not, and each entry carries the time when it expires, in case its job is lost.
"""

from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from chalicelib.dynamodb import ConditionFailedError, translate_errors
from chalicelib.jobs.job_table import PARTITION_KEY, JobRecord

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

# After its start deadline, a job still has to run, to be redelivered by hosts that died, and to be dead-lettered.
ABANDON_AFTER_S: Final = 600
MAX_ATTEMPTS: Final = 3  # to reserve a slot, each after the first once expired entries were removed


class NoSlotError(Exception):
    """The key has as many pending jobs as it may."""


class PendingJobs(Struct, frozen=True):
    """The slots of all keys. Methods raise TableError if DynamoDB does not respond."""

    dynamodb: "DynamoDBClient"
    name: str

    def reserve(self, record: JobRecord, *, limit: int, now_s: int) -> None:
        """Reserve a slot for a job. Raise NoSlotError if its key has `limit` other pending jobs."""
        entry = _entry(record)
        for _ in range(MAX_ATTEMPTS):
            try:
                return self._update(
                    record.key_id,
                    "ADD pending :entries",
                    {":entries": {"SS": [entry]}, ":entry": {"S": entry}, ":max": {"N": str(limit)}},
                    ConditionExpression="attribute_not_exists(pending) OR size(pending) < :max "
                    "OR contains(pending, :entry)",
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                )
            except ConditionFailedError as failed:
                pending = (failed.item or {}).get("pending", {}).get("SS", [])
                expired = [entry for entry in pending if _expires_at(entry) <= now_s]
                if not expired:
                    break
                self._remove(record.key_id, expired)
        raise NoSlotError

    def release(self, record: JobRecord) -> None:
        """Release the slot of a job."""
        self._remove(record.key_id, [_entry(record)])

    def _remove(self, key_id: str, entries: list[str]) -> None:
        self._update(key_id, "DELETE pending :entries", {":entries": {"SS": entries}})

    def _update(self, key_id: str, expression: str, values: dict[str, Any], **arguments: Any) -> None:  # noqa: ANN401
        with translate_errors(self.name):
            self.dynamodb.update_item(
                TableName=self.name,
                Key={PARTITION_KEY: {"S": f"pending:{key_id}"}},  # a job id has no colon
                UpdateExpression=expression,
                ExpressionAttributeValues=values,
                **arguments,
            )


def slot_expires_at(record: JobRecord) -> int:
    """Return when the slot of a job is free even if no result ever arrives, in seconds since the epoch."""
    return record.start_deadline + ABANDON_AFTER_S


def _entry(record: JobRecord) -> str:
    return f"{slot_expires_at(record)}:{record.job_id}"


def _expires_at(entry: str) -> int:
    return int(entry.partition(":")[0])
