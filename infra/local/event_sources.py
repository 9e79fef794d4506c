"""Lambda's side of the queues and the schedule on this machine: hands their messages to the handlers in app.py.

What is to be polled and run is read from Chalice's own registry of the app, as `chalice package` reads it.
"""

import argparse
import logging
import os
import re
import signal
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from threading import Thread
from typing import Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from chalice.cli.filewatch.stat import StatFileWatcher

from infra.local.chalice_server import SourceTree
from infra.paths import LAMBDA_APP

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
POLL_S: Final = 20  # the longest that SQS waits
PAUSE_S: Final = 0.5  # after a failed call
INVOCATIONS: Final = 4  # of a handler at once
CONFIG: Final = Config(
    connect_timeout=2, read_timeout=POLL_S + 5, retries={"total_max_attempts": 1, "mode": "standard"}
)
UNIT_S: Final = {"minute": 60, "hour": 3600, "day": 86_400}

Handler = Callable[[dict[str, Any], object], Any]
logger = logging.getLogger(__name__)


class Context:
    """What Chalice looks at of Lambda's context."""

    def __init__(self) -> None:
        self.aws_request_id = str(uuid.uuid4())


def poll(sqs: Any, queue: str, handler: Handler, *, batch_size: int) -> None:  # noqa: ANN401 - boto3's client
    """Hands the messages of a queue to a handler, for ever; deletes those that it does not report as failed."""
    url = None
    while True:
        try:
            url = url or sqs.get_queue_url(QueueName=queue)["QueueUrl"]
            found = sqs.receive_message(
                QueueUrl=url,
                MaxNumberOfMessages=batch_size,
                WaitTimeSeconds=POLL_S,
                MessageSystemAttributeNames=["All"],
            ).get("Messages", ())
            if found:
                failed = _invoke(handler, queue, found)
                for message in found:
                    if message["MessageId"] not in failed:
                        sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        except (BotoCoreError, ClientError):
            logger.warning("%s cannot be reached", queue)
            time.sleep(PAUSE_S)


def _invoke(handler: Handler, queue: str, messages: list[Mapping[str, Any]]) -> set[str]:
    """The ids of the messages that are to come again."""
    try:
        answer = handler({"Records": [_record(queue, message) for message in messages]}, Context())
        return {failure["itemIdentifier"] for failure in answer["batchItemFailures"]}
    except Exception:  # as on Lambda, all of them
        logger.exception("handler of %s failed", queue)
        return {message["MessageId"] for message in messages}


def _record(queue: str, message: Mapping[str, Any]) -> dict[str, Any]:
    """As https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html shows it."""
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": message["Attributes"],
        "messageAttributes": {},
        "md5OfBody": message["MD5OfBody"],
        "eventSource": "aws:sqs",
        "eventSourceARN": f"arn:aws:sqs:local:000000000000:{queue}",
        "awsRegion": "local",
    }


def repeat(handler: Handler, *, every_s: float) -> None:
    """Runs a scheduled handler, for ever."""
    while True:
        try:
            handler(_scheduled_event(), Context())
        except Exception:
            logger.exception("scheduled handler failed")
        time.sleep(every_s)


def _scheduled_event() -> dict[str, Any]:
    """As https://docs.aws.amazon.com/lambda/latest/dg/with-eventbridge-scheduler.html shows it."""
    return {
        "version": "0",
        "id": str(uuid.uuid4()),
        "account": "000000000000",
        "region": "local",
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "source": "aws.events",
        "detail-type": "Scheduled Event",
        "detail": {},
        "resources": [],
    }


def every_s(expression: str) -> float:
    """The seconds of a schedule such as rate(5 minutes). Raises ValueError."""
    found = re.fullmatch(r"rate\(([0-9]+) (minute|hour|day)s?\)", expression)
    if not found:
        raise ValueError(expression)
    return int(found[1]) * UNIT_S[found[2]]


def start(app: Any, module: Any, sqs: Any) -> None:  # noqa: ANN401 - Chalice's app, its module, boto3's client
    """Begins to poll and to repeat, in threads that end with the process."""
    for source in app.event_sources:
        handler = getattr(module, source.name)
        if hasattr(source, "schedule_expression"):
            period = {"every_s": every_s(source.schedule_expression)}
            Thread(target=repeat, args=(handler,), kwargs=period, daemon=True).start()
            continue
        for _ in range(INVOCATIONS):
            batch = {"batch_size": source.batch_size}
            Thread(target=poll, args=(sqs, source.queue, handler), kwargs=batch, daemon=True).start()


def _start_again() -> None:
    os.execv(sys.executable, [sys.executable, "-m", "infra.local.event_sources", *sys.argv[1:]])  # noqa: S606 - no shell wanted


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m infra.local.event_sources", description=__doc__)
    parser.add_argument("--reload", action="store_true", help="begin anew when a source changes")
    options = parser.parse_args(arguments)
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    sys.path.insert(0, str(LAMBDA_APP))
    import app as module  # noqa: PLC0415 - only this process serves it

    start(module.app, module, boto3.client("sqs", config=CONFIG))
    if options.reload:
        StatFileWatcher(SourceTree()).watch_for_file_changes(str(LAMBDA_APP), _start_again)
    signal.sigwait(STOP_SIGNALS)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
