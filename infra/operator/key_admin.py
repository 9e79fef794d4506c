"""Operations on API keys in their DynamoDB table. Used by `python-exec keys` and the local stack."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from chalicelib.access.api_keys import ApiKey, KeyRecord, KeyStatus, new_key, new_signing_secret
from chalicelib.access.key_table import PARTITION_KEY, Item, from_item, to_item
from infra.errors import CommandError

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

ACTIVE: Final = {":active": {"S": KeyStatus.ACTIVE.value}}
REVOKED: Final = {":revoked": {"S": KeyStatus.REVOKED.value}}


class KeyAdmin:
    """API keys in a DynamoDB table. A change does not touch the key's rate limit and quota.

    Each method raises CommandError if it fails.
    """

    def __init__(self, dynamodb: "DynamoDBClient", *, table: str) -> None:
        self._dynamodb = dynamodb
        self._table = table

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
        self._call(self._dynamodb.put_item, Item=to_item(record), ConditionExpression=is_new)
        return record

    def get(self, key_id: str) -> KeyRecord:
        """Return the key's record."""
        response = self._call(self._dynamodb.get_item, Key=_key(key_id), ConsistentRead=True)
        if "Item" not in response:
            raise CommandError(f"There is no key {key_id}.")
        return from_item(response["Item"])

    def all(self) -> Iterator[KeyRecord]:
        """Yield the records of all keys."""
        start: dict[str, Any] = {}
        while True:
            page = self._call(self._dynamodb.scan, ConsistentRead=True, **start)
            yield from map(from_item, page["Items"])
            if "LastEvaluatedKey" not in page:
                return
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}

    def revoke(self, key_id: str) -> KeyRecord:
        """Revoke the key permanently."""
        return self._update(key_id, "SET #status = :revoked", {"#status": "status"}, REVOKED)

    def set_plan(self, key_id: str, plan: str) -> KeyRecord:
        """Move the key to another plan."""
        return self._update(key_id, "SET #plan = :plan", {"#plan": "plan"}, {":plan": {"S": plan}})

    def rotate(self, key_id: str, *, grace_s: int, now_s: int) -> tuple[ApiKey, KeyRecord]:
        """Create a new secret for an active key; the old secret works for `grace_s` more seconds."""
        key, current = new_key(key_id), self._get_active(key_id)
        hashes = {":new": {"S": key.secret_sha256}, ":old": {"S": current.secret_sha256}}
        record = self._update(
            key_id,
            "SET secret_sha256 = :new, previous_secret_sha256 = :old, previous_secret_expires_at = :until",
            {"#status": "status"},
            {**hashes, **ACTIVE, ":until": {"N": str(now_s + grace_s)}},
            condition="#status = :active AND secret_sha256 = :old",
        )
        return key, record

    def rotate_signing_secret(self, key_id: str) -> KeyRecord:
        """Create a new signing secret for an active key, effective immediately."""
        self._get_active(key_id)
        return self._update(
            key_id,
            "SET signing_secret = :new",
            {"#status": "status"},
            {**ACTIVE, ":new": {"S": new_signing_secret()}},
            condition="#status = :active",
        )

    def _get_active(self, key_id: str) -> KeyRecord:
        record = self.get(key_id)
        if record.status is not KeyStatus.ACTIVE:
            raise CommandError(f"The key {key_id} is revoked.")
        return record

    def _update(
        self,
        key_id: str,
        expression: str,
        names: dict[str, str],
        values: Item,
        *,
        condition: str = f"attribute_exists({PARTITION_KEY})",
    ) -> KeyRecord:
        response = self._call(
            self._dynamodb.update_item,
            Key=_key(key_id),
            UpdateExpression=expression,
            ConditionExpression=condition,
            ExpressionAttributeNames=names,
            ExpressionAttributeValues=values,
            ReturnValues="ALL_NEW",
        )
        return from_item(response["Attributes"])

    def _call(self, operation: Callable[..., Any], **arguments: Any) -> Any:  # noqa: ANN401 - any operation
        try:
            return operation(TableName=self._table, **arguments)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code == "ConditionalCheckFailedException":
                raise CommandError("There is no such key, or another operator just changed it.") from error
            if code == "ResourceNotFoundException":
                raise CommandError(f"There is no table {self._table}.") from error
            message = error.response["Error"].get("Message", "")
            raise CommandError(f"DynamoDB returned {code}: {message}") from error
        except NoCredentialsError as error:
            raise CommandError("No AWS credentials. Set AWS_PROFILE or AWS_ACCESS_KEY_ID.") from error
        except BotoCoreError as error:
            raise CommandError(f"Cannot reach DynamoDB: {error}") from error


def _key(key_id: str) -> Item:
    return {PARTITION_KEY: {"S": key_id}}
