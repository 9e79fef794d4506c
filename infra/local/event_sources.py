"""Call the event handlers of app.py as Lambda does: with messages from their queues, or on their schedule.

Chalice's registry of the app lists the handlers; `chalice package` reads the same registry. The local stack runs this
module, and so does the container of the API, where nothing else calls them.
"""

import argparse
import logging
import re
import signal
import sys
import time
from collections.abc import Callable, Mapping
from threading import Thread
from typing import Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from chalice.local import LambdaContext

from chalicelib.telemetry import logs
from infra.paths import LAMBDA_APP

LONG_POLL_S: Final = 20  # SQS allows no more
RETRY_DELAY_S: Final = 0.5
CONCURRENCY_PER_HANDLER: Final = 4
CONFIG: Final = Config(
    connect_timeout=2, read_timeout=LONG_POLL_S + 5, retries={"total_max_attempts": 1, "mode": "standard"}
)
CONTEXT: Final = LambdaContext("event-sources", memory_size=512)
SCHEDULED_EVENT: Final = {
    **dict.fromkeys(("version", "account", "region", "time", "id"), ""),
    "source": "aws.events",
    "detail-type": "Scheduled Event",
    "detail": {},
    "resources": [],
}
UNIT_S: Final = {"minute": 60, "hour": 3600, "day": 86_400}

Handler = Callable[[dict[str, Any], object], Any]
logger = logging.getLogger("event_sources")


def poll(sqs: Any, queue: str, handler: Handler, *, batch_size: int) -> None:  # noqa: ANN401 - boto3's client
    """Pass messages from a queue to a handler forever, and delete those that the handler does not report as failed."""
    url = None
    while True:
        try:
            url = url or sqs.get_queue_url(QueueName=queue)["QueueUrl"]
            messages = sqs.receive_message(
                QueueUrl=url,
                MaxNumberOfMessages=batch_size,
                WaitTimeSeconds=LONG_POLL_S,
                MessageSystemAttributeNames=["All"],
            ).get("Messages", ())
            if messages:
                failed = _invoke(handler, queue, messages)
                for message in messages:
                    if message["MessageId"] not in failed:
                        sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        except (BotoCoreError, ClientError):
            logger.warning("queue_unavailable", extra={"queue": queue})
            time.sleep(RETRY_DELAY_S)


def _invoke(handler: Handler, queue: str, messages: list[Mapping[str, Any]]) -> set[str]:
    """Call the handler and return the ids of failed messages, which SQS will deliver again."""
    try:
        response = handler({"Records": [_record(message) for message in messages]}, CONTEXT)
        return {failure["itemIdentifier"] for failure in response["batchItemFailures"]}
    except Exception:  # Lambda, too, then returns the whole batch to the queue
        logger.exception("queue_handler_failed", extra={"queue": queue})
        return {message["MessageId"] for message in messages}


def _record(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return what handlers read of https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html."""
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": message["Attributes"],
    }


def run_schedule(handler: Handler, *, event: dict[str, Any], period_s: float) -> None:
    """Call a scheduled handler with an event forever."""
    while True:
        try:
            handler(event, CONTEXT)
        except Exception:
            logger.exception("scheduled_handler_failed")
        time.sleep(period_s)


def parse_rate_expression(expression: str) -> float:
    """Return the seconds of a schedule such as rate(5 minutes). Raises ValueError."""
    match = re.fullmatch(r"rate\(([0-9]+) (minute|hour|day)s?\)", expression)
    if not match:
        raise ValueError(expression)
    return int(match[1]) * UNIT_S[match[2]]


def start(app: Any, module: Any, sqs: Any) -> None:  # noqa: ANN401 - Chalice's app, its module, boto3's client
    """Start the pollers and schedules in threads that end with the process."""
    for source in app.event_sources:
        handler = getattr(module, source.name)
        if hasattr(source, "schedule_expression"):
            options = {"event": SCHEDULED_EVENT, "period_s": parse_rate_expression(source.schedule_expression)}
            Thread(target=run_schedule, args=(handler,), kwargs=options, daemon=True).start()
            continue
        for _ in range(CONCURRENCY_PER_HANDLER):
            batch = {"batch_size": source.batch_size}
            Thread(target=poll, args=(sqs, source.queue, handler), kwargs=batch, daemon=True).start()


def main(arguments: list[str]) -> None:
    """Run the event sources forever."""
    parser = argparse.ArgumentParser(prog="python -m infra.local.event_sources", description=__doc__)
    parser.add_argument("--reload", action="store_true", help="restart when a source file changes")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # the first process of a container would ignore the signal
    logs.configure(logger.name)
    sys.path.insert(0, str(LAMBDA_APP))
    import app as module  # noqa: PLC0415 - no other module of infra/ imports the app

    start(module.app, module, boto3.client("sqs", config=CONFIG))
    if options.reload:
        from infra.local.reload import restart_on_change  # noqa: PLC0415 - not in the container of the API

        restart_on_change()
    signal.pause()


if __name__ == "__main__":
    main(sys.argv[1:])
