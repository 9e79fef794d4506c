"""Run a command with a dockerd that has another OCI runtime than runc, as root.

`python -m tests.support.oci_runtime runsc -- COMMAND…` lets the tests in COMMAND use gVisor, `crun` crun.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import docker

from executor_host.hardening import GVISOR_RUNTIME
from infra.errors import CommandError, exit_on_error
from infra.images.sandbox_image import ensure_image
from infra.local.docker_daemon import DockerDaemon, docker_engine, running_daemon
from tests.support.docker_daemons import client_with_image, isolated_daemon
from tests.support.gvisor import docker_settings

CRUN: Final = "crun"
HYBRID_CGROUPS: Final = "/sys/fs/cgroup/unified"  # version 2 beside version 1, which crun refuses
_REMEDIES: Final = {
    GVISOR_RUNTIME: "Install it with `apt-get install runsc`, or see https://gvisor.dev/docs/user_guide/install/.",
    CRUN: "Install it with `apt-get install crun`.",
    "dockerd": "Install Docker Engine: this command starts a dockerd of its own.",
}


def run(oci_runtime: str, command: Sequence[str]) -> int:
    """Run a command with a new dockerd and return its exit code. Raises CommandError if something is not installed."""
    if os.geteuid() != 0:
        raise CommandError("Only root can start a dockerd.")
    installed_path("dockerd")
    with docker_engine():
        image = ensure_image(docker.from_env())
        with tempfile.TemporaryDirectory() as directory, isolated_daemon(Path(directory)) as daemon:
            add_oci_runtime(daemon, oci_runtime, settings=Path(directory, "daemon.json"))
            with running_daemon(daemon, logs=Path(directory)) as address:
                client_with_image(daemon, image=image).close()
                environment = {**os.environ, "DOCKER_HOST": address, "OCI_RUNTIME": oci_runtime}
                return subprocess.run(command, env=environment, check=False).returncode


def add_oci_runtime(daemon: DockerDaemon, oci_runtime: str, *, settings: Path) -> None:
    """Let a daemon know an OCI runtime, which `settings` will describe. Raises CommandError if it is not installed."""
    path = installed_path(oci_runtime)
    content = docker_settings(path) if oci_runtime == GVISOR_RUNTIME else {"runtimes": {oci_runtime: {"path": path}}}
    settings.write_text(json.dumps(content))
    daemon.command.append(f"--config-file={settings}")
    if oci_runtime == CRUN and Path(HYBRID_CGROUPS).is_dir():
        script = f'umount {HYBRID_CGROUPS}; exec "$@"'
        daemon.command = ["unshare", "--mount", "sh", "-ec", script, "sh", *daemon.command]


def installed_path(program: str) -> str:
    """Return where a program is installed. Raises CommandError."""
    path = shutil.which(program)
    if path is None:
        raise CommandError(f"{program} is not installed. {_REMEDIES[program]}")
    return path


if __name__ == "__main__":
    if sys.argv[1:2] not in ([GVISOR_RUNTIME], [CRUN]) or sys.argv[2:3] != ["--"] or not sys.argv[3:]:
        sys.exit(f"usage: python -m tests.support.oci_runtime {{{GVISOR_RUNTIME},{CRUN}}} -- COMMAND…")
    with exit_on_error():
        sys.exit(run(sys.argv[1], sys.argv[3:]))
