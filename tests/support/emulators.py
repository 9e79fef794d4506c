"""Emulate SQS with fauxqs and DynamoDB with dynalite, as a second opinion beside moto."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from infra.local.processes import LOOPBACK, START_TIMEOUT_S, child_process, free_port, is_listening
from infra.paths import LOCAL
from tests.support.node import NODE

INSTALLED: Final = LOCAL / "emulators"  # by tests.emulators.run
GRACE_S: Final = 2.0


@contextmanager
def other_emulators(*, logs: Path) -> Iterator[dict[str, str]]:
    """Run both emulators, empty, and yield the settings with which boto3 uses them."""
    sqs, dynamodb = free_port(), free_port()
    fauxqs = ["node", str(INSTALLED / "fauxqs.mjs"), str(sqs)]
    dynalite = ["node", str(INSTALLED / "node_modules/dynalite/cli.js"), "--host", LOOPBACK, "--port", str(dynamodb)]
    with (
        child_process("fauxqs", [*NODE, *fauxqs], grace_s=GRACE_S, logs=logs) as sqs_process,
        child_process("dynalite", [*NODE, *dynalite], grace_s=GRACE_S, logs=logs) as dynamodb_process,
    ):
        sqs_process.wait_until(lambda: is_listening(LOOPBACK, sqs), timeout_s=START_TIMEOUT_S)
        dynamodb_process.wait_until(lambda: is_listening(LOOPBACK, dynamodb), timeout_s=START_TIMEOUT_S)
        yield {
            "AWS_ENDPOINT_URL_SQS": f"http://{LOOPBACK}:{sqs}",
            "AWS_ENDPOINT_URL_DYNAMODB": f"http://{LOOPBACK}:{dynamodb}",
        }
