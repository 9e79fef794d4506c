"""What the queues bring to Lambda besides requests: results, dead letters. Called by the handlers in app.py."""

import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from chalicelib.contract import Failure, FailureReason, HostReport, Reply, decode_from_host, decode_job
from chalicelib.telemetry import logs

log = logging.getLogger(__name__)

Record = Mapping[str, Any]  # of an SQS event


class Results(Protocol):
    """What is used of results.Results."""

    def settle(self, reply: Reply, *, key_id: str | None = None) -> object:
        """Stores a reply."""


class HostRegistry(Protocol):
    """What is used of hosts.HostRegistry."""

    def store(self, report: HostReport) -> object:
        """Stores a report."""


def each(event: Mapping[str, Any], handle: Callable[[Record], object]) -> dict[str, Any]:
    """Handles the messages of an SQS event one by one; the answer tells Lambda which of them are to come again.

    https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html#services-sqs-batchfailurereporting
    """
    failed = []
    for record in event["Records"]:
        logs.begin(message_id=record["messageId"])
        try:
            handle(record)
        except Exception:  # one bad message must not bring back the others
            log.exception(
                "message_processing_failed", extra={"receives": record["attributes"].get("ApproximateReceiveCount")}
            )
            failed.append({"itemIdentifier": record["messageId"]})
    return {"batchItemFailures": failed}


def store_result(record: Record, results: Results, hosts: HostRegistry) -> None:
    """Stores what a host sent when nobody waited. Raises ContractError, or what Results and HostRegistry raise."""
    sent = decode_from_host(record["body"])
    if isinstance(sent, HostReport):
        hosts.store(sent)
        return
    logs.add(job_id=sent.id)
    results.settle(sent, key_id=_key_id(record))
    log.info("result_stored")


def answer_dead_letter(record: Record, results: Results) -> None:
    """Tells a customer that the hosts lost a job. Raises ContractError for what is no job, which so stays there."""
    job = decode_job(record["body"])
    logs.add(job_id=job.id)
    results.settle(Failure(id=job.id, reason=FailureReason.HOST_LOST), key_id=_key_id(record))
    log.error("dead_lettered_job_failed")


def _key_id(record: Record) -> str | None:
    """The group of each job and result is the key that it belongs to."""
    key_id: str | None = record["attributes"].get("MessageGroupId")
    return key_id
