"""What all users of DynamoDB share: records as items of a table, and our errors."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
from boto3.dynamodb.types import TypeSerializer
from botocore.exceptions import BotoCoreError, ClientError
from msgspec import Struct

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

Item = Mapping[str, Any]  # {"plan": {"S": "free"}, "runs": {"N": "1"}}
_Record = TypeVar("_Record", bound=Struct)

to_value: Final = TypeSerializer().serialize


class TableError(Exception):
    """Raised when DynamoDB does not respond, or an item of a table is malformed."""


class ConditionFailedError(Exception):
    """Raised when the condition of a write does not hold. `item` is the stored one if the error had it."""

    def __init__(self, item: Item | None) -> None:
        super().__init__("the condition did not hold")
        self.item = item


@contextmanager
def translate_errors(table: str) -> Iterator[None]:
    """Raise TableError or ConditionFailedError instead of boto3's errors."""
    try:
        yield
    except ClientError as error:
        if error.response["Error"]["Code"] == "ConditionalCheckFailedException":
            raise ConditionFailedError(error.response.get("Item")) from error
        raise TableError(table) from error
    except BotoCoreError as error:
        raise TableError(table) from error


def stored_item(
    failed: ConditionFailedError, dynamodb: "DynamoDBClient", *, table: str, key: Mapping[str, Any]
) -> Item | None:
    """Return the item on which a condition failed, None if there is none. Raise TableError.

    DynamoDB returns it with the error, but not every compatible database does, so a missing one is read.
    """
    if failed.item is not None:
        return failed.item
    with translate_errors(table):
        return dynamodb.get_item(TableName=table, Key=key, ConsistentRead=True).get("Item")


def from_item(item: Item, record_type: type[_Record]) -> _Record:
    """Return the record in an item. Raise TableError if it is malformed."""
    members = {name: next(iter(value.values())) for name, value in item.items()}
    try:
        return msgspec.convert(members, record_type, strict=False)
    except msgspec.ValidationError as error:
        raise TableError(f"an item is not a {record_type.__name__}") from error


def to_item(record: Struct) -> dict[str, Any]:
    """Return the item of a record, without the members that are None."""
    return {name: to_value(value) for name, value in msgspec.structs.asdict(record).items() if value is not None}
