"""What an operator does to customer keys in their table. For the command line (keys_cli.py) and the local stack."""

from collections.abc import Callable, Iterator
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.access.api_keys import ApiKey, KeyRecord, KeyStatus, new_key, new_signing_secret
from chalicelib.access.key_table import PARTITION_KEY, Item, from_item, to_item

ACTIVE: Final = {":active": {"S": KeyStatus.ACTIVE.value}}
REVOKED: Final = {":revoked": {"S": KeyStatus.REVOKED.value}}


class KeyAdminError(Exception):
    """The table did not do what was asked; the message says why, for the operator."""


class KeyNotFoundError(KeyAdminError):
    """There is no key of that id."""


class KeyAdmin:
    """Keys in a DynamoDB table. Each change leaves the limiter's counts as they are at that moment."""

    def __init__(self, dynamodb: Any, *, table: str) -> None:  # noqa: ANN401 - boto3's client has no type
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
        """Stores a new key, with a new signing secret unless one is given. Raises KeyAdminError."""
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
        self._call(
            self._dynamodb.put_item, Item=to_item(record), ConditionExpression=f"attribute_not_exists({PARTITION_KEY})"
        )
        return record

    def get(self, key_id: str) -> KeyRecord:
        """Raises KeyAdminError."""
        answer = self._call(self._dynamodb.get_item, Key=_key(key_id), ConsistentRead=True)
        if "Item" not in answer:
            raise KeyNotFoundError(f"There is no key {key_id}.")
        return from_item(answer["Item"])

    def all(self) -> Iterator[KeyRecord]:
        """Every key. Raises KeyAdminError."""
        start: dict[str, Any] = {}
        while True:
            page = self._call(self._dynamodb.scan, ConsistentRead=True, **start)
            yield from map(from_item, page["Items"])
            if "LastEvaluatedKey" not in page:
                return
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}

    def revoke(self, key_id: str) -> KeyRecord:
        """For good. Raises KeyAdminError."""
        return self._update(key_id, "SET #status = :revoked", {"#status": "status"}, REVOKED)

    def set_plan(self, key_id: str, plan: str) -> KeyRecord:
        """Raises KeyAdminError."""
        return self._update(key_id, "SET #plan = :plan", {"#plan": "plan"}, {":plan": {"S": plan}})

    def rotate(self, key_id: str, *, grace_s: int, now_s: int) -> tuple[ApiKey, KeyRecord]:
        """Gives the key another secret; the one before opens it for `grace_s` more. Raises KeyAdminError."""
        key, held = new_key(key_id), self.get(key_id)
        if held.status is not KeyStatus.ACTIVE:
            raise KeyAdminError(f"The key {key_id} is revoked.")
        hashes = {":new": {"S": key.secret_sha256}, ":old": {"S": held.secret_sha256}}
        record = self._update(
            key_id,
            "SET secret_sha256 = :new, previous_secret_sha256 = :old, previous_secret_expires_at = :until",
            {"#status": "status"},
            {**hashes, **ACTIVE, ":until": {"N": str(now_s + grace_s)}},
            condition="#status = :active AND secret_sha256 = :old",
        )
        return key, record

    def rotate_signing_secret(self, key_id: str) -> KeyRecord:
        """Gives an active key another signing secret, at once. Raises KeyAdminError."""
        if self.get(key_id).status is not KeyStatus.ACTIVE:
            raise KeyAdminError(f"The key {key_id} is revoked.")
        return self._update(
            key_id,
            "SET signing_secret = :new",
            {"#status": "status"},
            {**ACTIVE, ":new": {"S": new_signing_secret()}},
            condition="#status = :active",
        )

    def _update(
        self,
        key_id: str,
        expression: str,
        names: dict[str, str],
        values: Item,
        *,
        condition: str = f"attribute_exists({PARTITION_KEY})",
    ) -> KeyRecord:
        answer = self._call(
            self._dynamodb.update_item,
            Key=_key(key_id),
            UpdateExpression=expression,
            ConditionExpression=condition,
            ExpressionAttributeNames=names,
            ExpressionAttributeValues=values,
            ReturnValues="ALL_NEW",
        )
        return from_item(answer["Attributes"])

    def _call(self, operation: Callable[..., Any], **arguments: Any) -> Any:  # noqa: ANN401 - untyped
        try:
            return operation(TableName=self._table, **arguments)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code == "ConditionalCheckFailedException":
                raise KeyNotFoundError("There is no such key, or somebody else just changed it.") from error
            if code == "ResourceNotFoundException":
                raise KeyAdminError(f"There is no table {self._table}.") from error
            raise KeyAdminError(f"DynamoDB answered {code}: {error.response['Error'].get('Message', '')}") from error
        except BotoCoreError as error:
            raise KeyAdminError(f"DynamoDB cannot be reached: {error}") from error


def _key(key_id: str) -> Item:
    return {PARTITION_KEY: {"S": key_id}}
