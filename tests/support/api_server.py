"""Run an API of its own, with other settings than those of the stack, or without a stack."""

import contextlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from infra.local.processes import LOOPBACK, START_TIMEOUT_S, child_process, free_port, is_listening

GRACE_S = 2.0


@contextlib.contextmanager
def api_server(settings: Mapping[str, str], *, logs: Path) -> Iterator[str]:
    """Yield the URL of a running API."""
    port = free_port()
    command = [sys.executable, "-m", "infra.local.chalice_server", f"--host={LOOPBACK}", f"--port={port}"]
    with child_process("api", command, settings=settings, grace_s=GRACE_S, logs=logs) as process:
        process.wait_until(lambda: is_listening(LOOPBACK, port), timeout_s=START_TIMEOUT_S)
        yield f"http://{LOOPBACK}:{port}"
