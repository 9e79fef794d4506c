"""The emulated AWS account of the local stack: the emulator's process, and the resources of the template."""

import contextlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from infra import resources
from infra.env_file import client
from infra.local.processes import LOOPBACK, START_TIMEOUT_S, Process, child_process, free_port, is_listening

REGION: Final = "us-east-1"
GRACE_S: Final = 2.0


@dataclass(frozen=True)
class EmulatedAws:
    """A running emulator and the settings with which boto3 uses it."""

    process: Process
    environment: Mapping[str, str]


@contextlib.contextmanager
def emulated_aws(*, logs: Path, endpoints: Mapping[str, str] = MappingProxyType({})) -> Iterator[EmulatedAws]:
    """Run an empty emulator on a free port. Raises CommandError.

    `endpoints` are those of services to use instead of the emulator's, such as AWS_ENDPOINT_URL_SQS.
    """
    port = free_port()
    command = [sys.executable, "-m", "infra.local.aws_emulator", str(port)]
    with child_process("emulator", command, grace_s=GRACE_S, logs=logs) as process:
        process.wait_until(lambda: is_listening(LOOPBACK, port), timeout_s=START_TIMEOUT_S)
        environment = {
            "AWS_ENDPOINT_URL": f"http://{LOOPBACK}:{port}",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            **endpoints,
        }
        yield EmulatedAws(process, environment)


def create_resources(environment: Mapping[str, str], *, stack: str = resources.STACK) -> dict[str, str]:
    """Create the queues, tables and the bucket of infra/template.yaml and return the settings that name them."""
    return resources.create_resources(lambda service: client(service, environment), stack=stack)
