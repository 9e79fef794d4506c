"""Processes the messages that SQS passes to Lambda: results, host reports and dead letters."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from chalicelib.contract import Failure, FailureReason, HostReport, decode_from_host, decode_job
from chalicelib.fleet.host_registry import HostRegistry
from chalicelib.jobs.job_results import JobResults
from chalicelib.telemetry import request_context

logger = logging.getLogger(__name__)

Message = Mapping[str, Any]  # a record of an SQS event


def process_batch(event: Mapping[str, Any], process: Callable[[Message], object]) -> dict[str, Any]:
    """Process the messages of an SQS event one by one. Return those that failed, for Lambda to redeliver.

    https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html#services-sqs-batchfailurereporting
    """
    failures = []
    for message in event["Records"]:
        request_context.start(message_id=message["messageId"])
        try:
            process(message)
        except Exception:  # one bad message must not redeliver the others
            receives = message["attributes"].get("ApproximateReceiveCount")
            logger.exception("message_processing_failed", extra={"receives": receives})
            failures.append({"itemIdentifier": message["messageId"]})
    return {"batchItemFailures": failures}


def store_result(message: Message, results: JobResults, hosts: HostRegistry) -> None:
    """Store a result or a host report. Raise ContractError if it is neither, or what storing it raises."""
    body = decode_from_host(message["body"])
    if isinstance(body, HostReport):
        hosts.store(body)
        return
    request_context.bind(job_id=body.id)
    results.record_reply(body, key_id=message["attributes"].get("MessageGroupId"))
    logger.info("result_stored")


def fail_dead_lettered_job(message: Message, results: JobResults) -> None:
    """Fail a job whose host was lost on every attempt. Raise ContractError for a malformed message."""
    job = decode_job(message["body"])
    request_context.bind(job_id=job.id)
    failure = Failure(id=job.id, reason=FailureReason.HOST_LOST)
    results.record_reply(failure, key_id=message["attributes"].get("MessageGroupId"))
    logger.error("dead_lettered_job_failed")
