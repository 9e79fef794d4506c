"""The AWS side of the local stack: the emulator as a process of its own, and what infra/template.yaml has there."""

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import boto3

from infra import template
from infra.local.processes import LOOPBACK, START_TIMEOUT_S, Process, child_process, free_port, is_listening

REGION: Final = "us-east-1"
GRACE_S: Final = 2.0

STACK: Final = "python-exec"  # the names of queues and tables begin with it
QUEUES: Final = {"JOB_QUEUE_URL": "JobQueue", "RESULTS_QUEUE_URL": "ResultsQueue", "WEBHOOK_QUEUE_URL": "WebhookQueue"}
TABLES: Final = {"KEYS_TABLE": "KeysTable", "JOBS_TABLE": "JobsTable"}


@dataclass(frozen=True)
class EmulatedAws:
    """An emulator that runs, and the settings with which boto3 talks to it."""

    process: Process
    environment: Mapping[str, str]


@contextlib.contextmanager
def emulated_aws(*, logs: Path) -> Iterator[EmulatedAws]:
    """SQS and DynamoDB on a free port, empty. Raises ProcessError."""
    port = free_port()
    command = [sys.executable, "-m", "infra.local.aws_emulator", "--port", str(port)]
    with child_process("emulator", command, grace_s=GRACE_S, logs=logs) as process:
        process.wait_until(lambda: is_listening(LOOPBACK, port), timeout_s=START_TIMEOUT_S)
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


def create_queues_and_tables(environment: Mapping[str, str], *, stack: str = STACK) -> dict[str, str]:
    """Creates the queues and tables of infra/template.yaml; the settings that tell of them."""
    cloudformation, sqs = client("cloudformation", environment), client("sqs", environment)
    cloudformation.create_stack(StackName=stack, TemplateBody=json.dumps(template.queues_and_tables()))
    resources = cloudformation.describe_stack_resources(StackName=stack)["StackResources"]
    made = {each["LogicalResourceId"]: each["PhysicalResourceId"] for each in resources}

    def url(logical_id: str) -> str:
        # moto's physical id is a URL on AWS itself, not on the emulator
        return str(sqs.get_queue_url(QueueName=made[logical_id].rsplit("/")[-1])["QueueUrl"])

    return {
        **{setting: url(logical_id) for setting, logical_id in QUEUES.items()},
        **{setting: made[logical_id] for setting, logical_id in TABLES.items()},
    }
