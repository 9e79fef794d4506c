"""Run tests in sandboxes under gVisor: `python -m tests.support.gvisor -- COMMAND…` starts a dockerd with runsc.

docs/gvisor.md lists the tests that fail there because gVisor's kernel differs from Linux. Its tables are read here.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import docker
import pytest

from executor_host.hardening import GVISOR_RUNTIME
from infra.errors import CommandError
from infra.images.sandbox_image import ensure_image
from infra.local.docker_daemon import docker_engine, running_daemon
from tests.support.docker_daemons import client_with_image, isolated_daemon
from tests.support.markdown import read, table

DOCUMENT: Final = "docs/gvisor.md"
RUNTIME_WITHOUT_SECCOMP: Final = "runsc-without-oci-seccomp"
_REQUIREMENTS: Final = {
    "runsc": "Install it with `apt-get install runsc`, or as https://gvisor.dev/docs/user_guide/install/ describes.",
    "dockerd": "Install Docker Engine: these tests start a dockerd of their own.",
}


def is_gvisor() -> bool:
    """Return whether tests run in sandboxes under gVisor."""
    return os.environ.get("OCI_RUNTIME") == GVISOR_RUNTIME


def known_differences() -> dict[str, str]:
    """Return the documented reason of each test that fails under gVisor, by the start of its ID."""
    rows = table(read(DOCUMENT), "What differs under gVisor", "Tests that fail for this reason")
    return {test: reason for reason, tests in rows for test in re.findall(r"[^\s`]+::[^\s`]+", tests)}


def mark_known_differences(items: Sequence[pytest.Item]) -> None:
    """Expect the listed tests to fail. A test may pass anyway with another release of gVisor."""
    differences = known_differences()
    for item in items:
        test = item.nodeid.removeprefix("tests/")
        reasons = [
            reason
            for start, reason in differences.items()
            if test.startswith(start) and ("[" in start or test[len(start) :][:1] in {"", "["})
        ]
        if reasons:
            item.add_marker(pytest.mark.xfail(reason=reasons[0], strict=False))


def docker_settings(runsc: str) -> dict[str, object]:
    """Return the content of a daemon.json with gVisor as infra/user-data.sh sets it up, and once without seccomp."""
    runtimes = {GVISOR_RUNTIME: ["--network=none", "--oci-seccomp"], RUNTIME_WITHOUT_SECCOMP: ["--network=none"]}
    return {"runtimes": {name: {"path": runsc, "runtimeArgs": arguments} for name, arguments in runtimes.items()}}


def run(command: Sequence[str]) -> int:
    """Run a command with a new dockerd and return its exit code. Raises CommandError if something is not installed."""
    for program, remedy in _REQUIREMENTS.items():
        if shutil.which(program) is None:
            raise CommandError(f"{program} is not installed. {remedy}")
    if os.geteuid() != 0:
        raise CommandError("Only root can start a dockerd.")
    with docker_engine():
        image = ensure_image(docker.from_env())
        with tempfile.TemporaryDirectory() as directory, isolated_daemon(Path(directory)) as daemon:
            settings = Path(directory, "daemon.json")
            settings.write_text(json.dumps(docker_settings(shutil.which("runsc") or "")))
            daemon.command.append(f"--config-file={settings}")
            with running_daemon(daemon, logs=Path(directory)) as address:
                client_with_image(daemon, image=image).close()
                environment = {**os.environ, "DOCKER_HOST": address, "OCI_RUNTIME": GVISOR_RUNTIME}
                return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    if sys.argv[1:2] != ["--"] or not sys.argv[2:]:
        sys.exit("usage: python -m tests.support.gvisor -- COMMAND…")
    try:
        sys.exit(run(sys.argv[2:]))
    except CommandError as error:
        sys.exit(str(error))
