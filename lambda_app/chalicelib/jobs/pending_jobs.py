"""How many asynchronous jobs of a key wait for their results: exact, and free again whatever happens. For submit.py.

A set of entries in the jobs table, one item a key. To remove an entry twice is harmless, which a counter is not;
each carries the time when it ends by itself, should its job vanish.
"""

from typing import Any, Final, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from chalicelib import problems
from chalicelib.access.plans import Plan
from chalicelib.jobs.job_table import PARTITION_KEY, JobTableError
from chalicelib.problems import ProblemError

ATTEMPTS: Final = 3  # each but the first after others ended by themselves


class DynamoDb(Protocol):
    """What is used of boto3's client."""

    def update_item(self, **arguments: Any) -> dict[str, Any]:  # noqa: ANN401 - boto3 has no types
        """https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_UpdateItem.html."""


class WaitingJobs:
    """The entries of all keys. Methods raise JobTableError when the table does not answer."""

    def __init__(self, dynamodb: DynamoDb, *, name: str) -> None:
        """`name` of the jobs table."""
        self._dynamodb = dynamodb
        self._name = name

    def add(self, job_id: str, *, key_id: str, plan: Plan, until: int, now_s: int) -> None:
        """Counts a job until it is removed or `until`, seconds since the epoch. Raises TooManyWaitingError."""
        entry = _entry(job_id, until)
        for _ in range(ATTEMPTS):
            try:
                return self._update(
                    key_id,
                    "ADD waiting :entries",
                    {":entries": {"SS": [entry]}, ":entry": {"S": entry}, ":most": {"N": str(plan.max_pending_jobs)}},
                    ConditionExpression="attribute_not_exists(waiting) OR size(waiting) < :most "
                    "OR contains(waiting, :entry)",
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                )
            except ClientError as error:
                waiting = error.response.get("Item", {}).get("waiting", {}).get("SS", [])
                over = [entry for entry in waiting if _until(entry) <= now_s]
                if not over:
                    raise _too_many(plan) from error
                self._remove(key_id, over)
        raise _too_many(plan)

    def remove(self, job_id: str, *, key_id: str, until: int) -> None:
        """Counts a job no more; `until` as it was added."""
        self._remove(key_id, [_entry(job_id, until)])

    def _remove(self, key_id: str, entries: list[str]) -> None:
        self._update(key_id, "DELETE waiting :entries", {":entries": {"SS": entries}})

    def _update(self, key_id: str, expression: str, values: dict[str, dict[str, Any]], **arguments: str) -> None:
        try:
            self._dynamodb.update_item(
                TableName=self._name,
                Key={PARTITION_KEY: {"S": f"waiting:{key_id}"}},  # no job has such an id
                UpdateExpression=expression,
                ExpressionAttributeValues=values,
                **arguments,
            )
        except ClientError as error:
            if error.response["Error"]["Code"] == "ConditionalCheckFailedException":
                raise
            raise JobTableError(self._name) from error
        except BotoCoreError as error:
            raise JobTableError(self._name) from error


def _entry(job_id: str, until: int) -> str:
    return f"{until}:{job_id}"


def _until(entry: str) -> int:
    return int(entry.partition(":")[0])


def _too_many(plan: Plan) -> ProblemError:
    detail = f"You have {plan.max_pending_jobs} pending jobs, the maximum for plan {plan.name}."
    return ProblemError(problems.TOO_MANY_PENDING_JOBS, detail=detail, plan=plan.name)
