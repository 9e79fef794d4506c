"""Which hosts were there in the last minute: their reports, beside the jobs in the jobs table.

A report goes into an item of its minute, which the table's TTL removes, so hosts that are gone leave nothing.
"""

import time
import zlib
from collections.abc import Callable
from typing import Any, Final, Protocol

import msgspec
from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.contract import HostReport
from chalicelib.jobs.job_table import PARTITION_KEY, TTL_ATTRIBUTE

REPORT_WINDOW_S: Final = 60
REPORT_TTL_S: Final = 600
SHARDS: Final = 16  # a write is billed by the size of its item, 1 KB at a time: some ten reports
MAX_READ_ATTEMPTS: Final = 3  # of a read that DynamoDB answers in part
_PREFIX: Final = "host:"  # of attributes, so that no host is called as one of ours


class HostRegistryError(Exception):
    """The table did not answer."""


class DynamoDb(Protocol):
    """What is used of boto3's client."""

    def update_item(self, **arguments: Any) -> dict[str, Any]:  # noqa: ANN401 - boto3 has no types
        """https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_UpdateItem.html."""

    def batch_get_item(self, **arguments: Any) -> dict[str, Any]:  # noqa: ANN401
        """https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchGetItem.html."""


class HostRegistry:
    """The reports of hosts."""

    def __init__(self, dynamodb: DynamoDb, *, table: str, clock: Callable[[], float] = time.time) -> None:
        """`table` is the name of the jobs table."""
        self._dynamodb = dynamodb
        self._table = table
        self._clock = clock

    def store(self, report: HostReport) -> None:
        """In the place of an earlier one of the same minute. Raises HostRegistryError."""
        try:
            self._dynamodb.update_item(
                TableName=self._table,
                Key=_key(int(report.sent_at) // REPORT_WINDOW_S, zlib.crc32(report.host.encode()) % SHARDS),
                UpdateExpression="SET #host = :report, #ttl = :ttl",
                ExpressionAttributeNames={"#host": _PREFIX + report.host, "#ttl": TTL_ATTRIBUTE},
                ExpressionAttributeValues={
                    ":report": {"S": msgspec.json.encode(report).decode()},
                    ":ttl": {"N": str(int(report.sent_at) + REPORT_TTL_S)},
                },
            )
        except (BotoCoreError, ClientError) as error:
            raise HostRegistryError(self._table) from error

    def recent_reports(self) -> list[HostReport]:
        """The last report of each host that sent one within the last minute, by name. Raises HostRegistryError."""
        now = self._clock()
        minute = int(now) // REPORT_WINDOW_S
        items = self._read([_key(each, shard) for each in (minute - 1, minute) for shard in range(SHARDS)])
        texts = [value["S"] for item in items for name, value in item.items() if name.startswith(_PREFIX)]
        reports = sorted((msgspec.json.decode(text, type=HostReport) for text in texts), key=lambda each: each.sent_at)
        last = {report.host: report for report in reports if report.sent_at > now - REPORT_WINDOW_S}
        return [last[host] for host in sorted(last)]

    def _read(self, keys: list[dict[str, Any]]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        wanted = {self._table: {"Keys": keys}}
        try:
            for _ in range(MAX_READ_ATTEMPTS):
                answer = self._dynamodb.batch_get_item(RequestItems=wanted)
                found += answer["Responses"][self._table]
                wanted = answer["UnprocessedKeys"]
                if not wanted:
                    return found
        except (BotoCoreError, ClientError) as error:
            raise HostRegistryError(self._table) from error
        raise HostRegistryError(self._table)


def _key(minute: int, shard: int) -> dict[str, Any]:
    return {PARTITION_KEY: {"S": f"hosts:{minute}:{shard}"}}  # no job's id has a colon
