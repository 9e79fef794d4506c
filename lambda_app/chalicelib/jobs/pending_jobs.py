"""The slots of a key's pending jobs: an exact limit that recovers by itself after any failure.

Each key has one item in the jobs table with a set of entries. Removing an entry twice is harmless, which decrementing
a counter is not, and each entry carries the time when it expires, in case its job is lost.

DynamoDB writes 1,000 KiB of one item a second, and rounds each write up. An entry is 8 bytes, so the full item is below
1 KiB and a key can start and end 500 jobs a second: the time in seconds modulo half a year, and a hash of the job's id.
"""

import hashlib
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from chalicelib.dynamodb import ConditionFailedError, stored_item, translate_errors
from chalicelib.jobs.job_table import PARTITION_KEY, JobRecord

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

# After its start deadline, a job still has to run, to be redelivered by hosts that died, and to be dead-lettered.
ABANDON_AFTER_S: Final = 600
MAX_ATTEMPTS: Final = 3  # to reserve a slot, each after the first once expired entries were removed
TIME_BYTES: Final = 3
HASH_BYTES: Final = 5
_TIME_MODULUS: Final = 1 << 8 * TIME_BYTES


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
                    "ADD slots :entries",
                    {":entries": {"BS": [entry]}, ":entry": {"B": entry}, ":max": {"N": str(limit)}},
                    ConditionExpression="attribute_not_exists(slots) OR size(slots) < :max OR contains(slots, :entry)",
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                )
            except ConditionFailedError as failed:
                item = stored_item(failed, self.dynamodb, table=self.name, key=item_key(record.key_id)) or {}
                expired = [entry for entry in item.get("slots", {}).get("BS", []) if _has_expired(entry, now_s)]
                if not expired:
                    break
                self._remove(record.key_id, expired)
        raise NoSlotError

    def release(self, record: JobRecord) -> None:
        """Release the slot of a job."""
        self._remove(record.key_id, [_entry(record)])

    def _remove(self, key_id: str, entries: list[bytes]) -> None:
        self._update(key_id, "DELETE slots :entries", {":entries": {"BS": entries}})

    def _update(self, key_id: str, expression: str, values: dict[str, Any], **arguments: Any) -> None:  # noqa: ANN401
        with translate_errors(self.name):
            self.dynamodb.update_item(
                TableName=self.name,
                Key=item_key(key_id),
                UpdateExpression=expression,
                ExpressionAttributeValues=values,
                **arguments,
            )


def item_key(key_id: str) -> dict[str, Any]:
    """Return the key of the item with the slots of an API key. A job id has no colon."""
    return {PARTITION_KEY: {"S": f"slots:{key_id}"}}


def slot_expires_at(record: JobRecord) -> int:
    """Return when the slot of a job is free even if no result ever arrives, in seconds since the epoch."""
    return record.start_deadline + ABANDON_AFTER_S


def hash_of(job_id: str) -> bytes:
    """Return the end of the entry of a job."""
    return hashlib.sha256(job_id.encode()).digest()[:HASH_BYTES]


def _entry(record: JobRecord) -> bytes:
    return (slot_expires_at(record) % _TIME_MODULUS).to_bytes(TIME_BYTES) + hash_of(record.job_id)


def _has_expired(entry: bytes, now_s: int) -> bool:
    return (now_s - int.from_bytes(entry[:TIME_BYTES])) % _TIME_MODULUS < _TIME_MODULUS // 2
