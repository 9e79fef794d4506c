"""Operations on API keys in their DynamoDB table. Used by `python-exec keys` and the local stack."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
from msgspec import Struct

from chalicelib.access.api_keys import ApiKey, KeyRecord, KeyStatus, new_key, new_signing_secret
from chalicelib.access.key_table import PARTITION_KEY
from chalicelib.dynamodb import Item, from_item, to_item, to_value
from infra.errors import CommandError

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient


class KeyAdmin(Struct, frozen=True):
    """API keys in a DynamoDB table. Changes leave the key's rate and quota as they are. Methods raise CommandError."""

    dynamodb: "DynamoDBClient"
    table: str

    def create(
        self,
        key: ApiKey,
        *,
        plan: str,
        owner: str,
        now_s: int,
        expires_at: int | None = None,
        signing_secret: str | None = None,
    ) -> KeyRecord:
        """Store a new key, with a new signing secret by default."""
        record = KeyRecord(
            key_id=key.key_id,
            secret_sha256=key.secret_sha256,
            signing_secret=signing_secret or new_signing_secret(),
            status=KeyStatus.ACTIVE,
            plan=plan,
            owner=owner,
            created_at=now_s,
            expires_at=expires_at,
        )
        is_new = f"attribute_not_exists({PARTITION_KEY})"
        self._call(self.dynamodb.put_item, Item=to_item(record), ConditionExpression=is_new)
        return record

    def get(self, key_id: str) -> KeyRecord:
        """Return the key's record."""
        response = self._call(self.dynamodb.get_item, Key=_key(key_id), ConsistentRead=True)
        if "Item" not in response:
            raise CommandError(f"There is no key {key_id}.")
        return from_item(response["Item"], KeyRecord)

    def all(self) -> list[KeyRecord]:
        """Return the records of all keys."""
        scan = self.dynamodb.get_paginator("scan")
        pages = self._call(lambda **arguments: list(scan.paginate(**arguments)), ConsistentRead=True)
        return [from_item(item, KeyRecord) for page in pages for item in page["Items"]]

    def revoke(self, key_id: str) -> KeyRecord:
        """Revoke the key permanently."""
        return self._set(key_id, status=KeyStatus.REVOKED)

    def set_plan(self, key_id: str, plan: str) -> KeyRecord:
        """Move the key to another plan."""
        return self._set(key_id, plan=plan)

    def rotate(self, key_id: str, *, grace_s: int, now_s: int) -> tuple[ApiKey, KeyRecord]:
        """Create a new secret for an active key; the old secret works for `grace_s` more seconds."""
        key, current = new_key(key_id), self._get_active(key_id)
        record = self._set(
            key_id,
            expected={"status": KeyStatus.ACTIVE, "secret_sha256": current.secret_sha256},
            secret_sha256=key.secret_sha256,
            previous_secret_sha256=current.secret_sha256,
            previous_secret_expires_at=now_s + grace_s,
        )
        return key, record

    def rotate_signing_secret(self, key_id: str) -> KeyRecord:
        """Create a new signing secret for an active key, effective immediately."""
        self._get_active(key_id)
        return self._set(key_id, expected={"status": KeyStatus.ACTIVE}, signing_secret=new_signing_secret())

    def _get_active(self, key_id: str) -> KeyRecord:
        record = self.get(key_id)
        if record.status is not KeyStatus.ACTIVE:
            raise CommandError(f"The key {key_id} is revoked.")
        return record

    def _set(
        self, key_id: str, *, expected: Mapping[str, str] = MappingProxyType({}), **members: str | int
    ) -> KeyRecord:
        """Set members of the key's record if it exists and has the expected ones."""
        conditions = [f"attribute_exists({PARTITION_KEY})", *(f"#{name} = :expected_{name}" for name in expected)]
        values = {f":{name}": value for name, value in members.items()}
        values |= {f":expected_{name}": value for name, value in expected.items()}
        response = self._call(
            self.dynamodb.update_item,
            Key=_key(key_id),
            UpdateExpression=f"SET {', '.join(f'#{name} = :{name}' for name in members)}",
            ConditionExpression=" AND ".join(conditions),
            ExpressionAttributeNames={f"#{name}": name for name in {**members, **expected}},
            ExpressionAttributeValues={name: to_value(value) for name, value in values.items()},
            ReturnValues="ALL_NEW",
        )
        return from_item(response["Attributes"], KeyRecord)

    def _call(self, operation: Callable[..., Any], **arguments: Any) -> Any:  # noqa: ANN401 - any operation
        try:
            return operation(TableName=self.table, **arguments)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code == "ConditionalCheckFailedException":
                raise CommandError("There is no such key, or another operator just changed it.") from error
            if code == "ResourceNotFoundException":
                raise CommandError(f"There is no table {self.table}.") from error
            message = error.response["Error"].get("Message", "")
            raise CommandError(f"DynamoDB returned {code}: {message}") from error
        except NoCredentialsError as error:
            raise CommandError("No AWS credentials. Set AWS_PROFILE or AWS_ACCESS_KEY_ID.") from error
        except BotoCoreError as error:
            raise CommandError(f"Cannot reach DynamoDB: {error}") from error


def _key(key_id: str) -> Item:
    return {PARTITION_KEY: {"S": key_id}}
