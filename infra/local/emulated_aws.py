"""The emulated AWS account of the local stack: the emulator's process, and the resources of the template."""

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from infra import template
from infra.env_file import client
from infra.local.processes import LOOPBACK, START_TIMEOUT_S, Process, child_process, free_port, is_listening

REGION: Final = "us-east-1"
GRACE_S: Final = 2.0

STACK: Final = "python-exec"  # prefix of the names of resources
QUEUES: Final = {
    "JOB_QUEUE_URL": "JobQueue",
    "DATA_JOB_QUEUE_URL": "DataJobQueue",
    "RESULTS_QUEUE_URL": "ResultsQueue",
    "WEBHOOK_QUEUE_URL": "WebhookQueue",
}
TABLES: Final = {"KEYS_TABLE": "KeysTable", "JOBS_TABLE": "JobsTable"}
BUCKET: Final = "PayloadBucket"


@dataclass(frozen=True)
class EmulatedAws:
    """A running emulator and the settings with which boto3 uses it."""

    process: Process
    environment: Mapping[str, str]


@contextlib.contextmanager
def emulated_aws(*, logs: Path) -> Iterator[EmulatedAws]:
    """Run an empty emulator on a free port. Raises CommandError."""
    port = free_port()
    command = [sys.executable, "-m", "infra.local.aws_emulator", str(port)]
    with child_process("emulator", command, grace_s=GRACE_S, logs=logs) as process:
        process.wait_until(lambda: is_listening(LOOPBACK, port), timeout_s=START_TIMEOUT_S)
        environment = {
            "AWS_ENDPOINT_URL": f"http://{LOOPBACK}:{port}",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
        }
        yield EmulatedAws(process, environment)


def create_resources(environment: Mapping[str, str], *, stack: str = STACK) -> dict[str, str]:
    """Create the queues, tables and the bucket of infra/template.yaml and return the settings that name them."""
    cloudformation, sqs = client("cloudformation", environment), client("sqs", environment)
    cloudformation.create_stack(StackName=stack, TemplateBody=json.dumps(template.local_resources()))
    resources = cloudformation.describe_stack_resources(StackName=stack)["StackResources"]
    physical_ids = {resource["LogicalResourceId"]: resource["PhysicalResourceId"] for resource in resources}

    def queue_url(logical_id: str) -> str:
        # moto's physical id is a URL on AWS, not on the emulator.
        return str(sqs.get_queue_url(QueueName=physical_ids[logical_id].rsplit("/")[-1])["QueueUrl"])

    return {
        **{setting: queue_url(logical_id) for setting, logical_id in QUEUES.items()},
        **{setting: physical_ids[logical_id] for setting, logical_id in TABLES.items()},
        "PAYLOAD_STORE_URL": f"{environment['AWS_ENDPOINT_URL']}/{physical_ids[BUCKET]}",
    }
