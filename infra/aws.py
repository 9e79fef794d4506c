"""The AWS side of the local stack: the emulator as a process of its own, and the queues in it."""

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import boto3

from chalicelib.key_table import PARTITION_KEY
from infra.processes import LOOPBACK, START_TIMEOUT_S, Process, accepts, free_port, running

REGION: Final = "us-east-1"
GRACE_S: Final = 2.0

JOB_QUEUE: Final = "python-exec-jobs"
DEAD_LETTER_QUEUE: Final = "python-exec-jobs-dead"
VISIBILITY_TIMEOUT_S: Final = 30  # above the longest job; the agent prolongs what takes longer
RETENTION_S: Final = 300  # nobody waits for a job that long
MAX_RECEIVES: Final = 3  # then it is the job that breaks hosts

KEYS_TABLE: Final = "python-exec-keys"


@dataclass(frozen=True)
class EmulatedAws:
    """An emulator that runs, and the settings with which boto3 talks to it."""

    process: Process
    environment: Mapping[str, str]


@contextlib.contextmanager
def emulated_aws(*, logs: Path) -> Iterator[EmulatedAws]:
    """SQS and DynamoDB on a free port, empty. Raises ProcessError."""
    port = free_port()
    command = [sys.executable, "-m", "infra.emulator", "--port", str(port)]
    with running("emulator", command, grace_s=GRACE_S, logs=logs) as process:
        process.wait_until(lambda: accepts(LOOPBACK, port), timeout_s=START_TIMEOUT_S)
        environment = {
            "AWS_ENDPOINT_URL": f"http://{LOOPBACK}:{port}",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
        }
        yield EmulatedAws(process, environment)


def client(service: str, environment: Mapping[str, str], **options: Any) -> Any:  # noqa: ANN401 - untyped
    """A boto3 client with these settings, whatever our own environment says."""
    return boto3.client(
        service,
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        region_name=environment["AWS_DEFAULT_REGION"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        **options,
    )


def create_job_queue(environment: Mapping[str, str]) -> str:
    """Creates the job queue and its dead-letter queue; the URL of the former."""
    sqs = client("sqs", environment)
    dead = sqs.create_queue(QueueName=DEAD_LETTER_QUEUE)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    jobs = sqs.create_queue(
        QueueName=JOB_QUEUE,
        Attributes={
            "VisibilityTimeout": str(VISIBILITY_TIMEOUT_S),
            "MessageRetentionPeriod": str(RETENTION_S),
            "RedrivePolicy": json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": MAX_RECEIVES}),
        },
    )
    return str(jobs["QueueUrl"])


def create_keys_table(environment: Mapping[str, str], *, name: str = KEYS_TABLE) -> str:
    """Creates the table of customer keys; its name."""
    client("dynamodb", environment).create_table(
        TableName=name,
        KeySchema=[{"AttributeName": PARTITION_KEY, "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": PARTITION_KEY, "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    return name
