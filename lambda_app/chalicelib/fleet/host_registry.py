"""Keep the hosts' reports of the last minute in the jobs table.

Reports of the same minute share items that the table's TTL deletes, so a host that is gone leaves nothing behind.
"""

import time
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Struct

from chalicelib.contract import HostReport
from chalicelib.dynamodb import TableError, translate_errors
from chalicelib.jobs.job_table import PARTITION_KEY, TTL_ATTRIBUTE

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

REPORT_WINDOW_S: Final = 60
REPORT_TTL_S: Final = 600
SHARDS: Final = 16  # DynamoDB bills a write by the size of its item, per KB: about ten reports
MAX_READ_ATTEMPTS: Final = 3  # DynamoDB may return part of a batch
_PREFIX: Final = "host:"  # keeps a host's name from colliding with other attributes


class HostRegistry(Struct, frozen=True):
    """The reports of all hosts. Thread-safe."""

    dynamodb: "DynamoDBClient"
    table: str
    clock: Callable[[], float] = time.time

    def store(self, report: HostReport) -> None:
        """Store a report. It replaces the host's earlier one of the same minute. Raise TableError."""
        with translate_errors(self.table):
            self.dynamodb.update_item(
                TableName=self.table,
                Key=_key(int(report.sent_at) // REPORT_WINDOW_S, zlib.crc32(report.host.encode()) % SHARDS),
                UpdateExpression="SET #host = :report, #ttl = :ttl",
                ExpressionAttributeNames={"#host": _PREFIX + report.host, "#ttl": TTL_ATTRIBUTE},
                ExpressionAttributeValues={
                    ":report": {"S": msgspec.json.encode(report).decode()},
                    ":ttl": {"N": str(int(report.sent_at) + REPORT_TTL_S)},
                },
            )

    def recent_reports(self) -> list[HostReport]:
        """Return the latest report of each host within REPORT_WINDOW_S, by name. Raise TableError."""
        now = self.clock()
        this_minute = int(now) // REPORT_WINDOW_S
        keys = [_key(minute, shard) for minute in (this_minute - 1, this_minute) for shard in range(SHARDS)]
        texts = [value["S"] for item in self._read(keys) for name, value in item.items() if name.startswith(_PREFIX)]
        reports = [msgspec.json.decode(text, type=HostReport) for text in texts]
        latest = {
            report.host: report
            for report in sorted(reports, key=lambda report: report.sent_at)
            if report.sent_at > now - REPORT_WINDOW_S
        }
        return [latest[host] for host in sorted(latest)]

    def _read(self, keys: list[dict[str, Any]]) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = []
        request_items: Any = {self.table: {"Keys": keys}}
        for _ in range(MAX_READ_ATTEMPTS):
            with translate_errors(self.table):
                response = self.dynamodb.batch_get_item(RequestItems=request_items)
            items += response["Responses"][self.table]
            request_items = response["UnprocessedKeys"]
            if not request_items:
                return items
        raise TableError(self.table)


def _key(minute: int, shard: int) -> dict[str, Any]:
    return {PARTITION_KEY: {"S": f"hosts:{minute}:{shard}"}}  # job ids contain no colon
