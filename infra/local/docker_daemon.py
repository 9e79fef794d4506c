"""A Docker Engine for as long as something needs one: the one that answers, or, on Debian as root, our own.

`python -m infra.local.docker_daemon -- COMMAND…` runs COMMAND with it.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import docker
from docker.errors import DockerException

from infra.images.debian_base import PackagesError, apt_install
from infra.local.processes import DIE_WITH_PARENT, ProcessError, child_process
from infra.paths import LOCAL

START_TIMEOUT_S: Final = 60.0
STOP_GRACE_S: Final = 20.0  # dockerd gives containers 15 s
PING_TIMEOUT_S: Final = 5
# Sandboxes have no network, so the engine leaves no interface and no firewall rule on the machine.
NETWORK_OPTIONS: Final = (
    "--bridge=none",
    "--iptables=false",
    "--ip6tables=false",
    "--ip-forward=false",
    "--ip-masq=false",
)


class DockerDaemonError(Exception):
    """No Docker Engine answers and none can be started; the message says what to do."""


@dataclass(frozen=True)
class DockerDaemon:
    """Where a dockerd of ours lives; the defaults are dockerd's own."""

    run: Path = Path("/var/run")
    data: Path = Path("/var/lib/docker")

    @property
    def address(self) -> str:
        return f"unix://{self.run}/docker.sock"

    @property
    def pidfile(self) -> Path:
        return self.run / "docker.pid"

    @property
    def state(self) -> Path:
        return self.run / "docker"

    @property
    def command(self) -> list[str]:
        places = [f"--host={self.address}", f"--pidfile={self.pidfile}", f"--exec-root={self.state}"]
        return ["dockerd", *NETWORK_OPTIONS, *places, f"--data-root={self.data}"]


@contextlib.contextmanager
def docker_engine() -> Iterator[str]:
    """The address (a DOCKER_HOST) of an engine that answers. Raises DockerDaemonError or ProcessError."""
    for address in _configured_addresses():
        if is_responding(address):
            yield address
            return
    if os.environ.get("DOCKER_HOST"):
        raise DockerDaemonError(f"No Docker Engine answers at DOCKER_HOST={os.environ['DOCKER_HOST']}.")
    if sys.platform != "linux" or os.geteuid() != 0:
        raise DockerDaemonError(
            "No Docker Engine answers. Start one (Docker Desktop, colima, `sudo systemctl start docker`),\n"
            "make sure that `docker ps` works for this user, and try again. When root runs this on Debian\n"
            "or Ubuntu, it installs and starts one itself."
        )
    if shutil.which("dockerd") is None:
        _say("installing Docker Engine (docker.io) …")
        try:
            apt_install("docker.io")
        except PackagesError as error:
            raise DockerDaemonError(str(error)) from error
    with running_daemon(DockerDaemon()) as address:
        yield address


@contextlib.contextmanager
def running_daemon(daemon: DockerDaemon, *, logs: Path = LOCAL) -> Iterator[str]:
    """A dockerd of our own, gone at the end. Raises DockerDaemonError or ProcessError."""
    if _is_running(daemon):
        _wait_for_running_daemon(daemon)
        yield daemon.address
        return
    daemon.pidfile.unlink(missing_ok=True)  # of a killed dockerd; its number may be another program's by now
    _say("starting dockerd …")
    try:
        with child_process("dockerd", daemon.command, grace_s=STOP_GRACE_S, logs=logs) as process:
            process.wait_until(lambda: is_responding(daemon.address), timeout_s=START_TIMEOUT_S)
            yield daemon.address
    finally:
        _remove_leftovers(daemon)


def is_responding(address: str) -> bool:
    """Whether an engine answers there, with the TLS settings of the environment."""
    environment = {**os.environ, "DOCKER_HOST": address}
    try:
        with contextlib.closing(docker.from_env(timeout=PING_TIMEOUT_S, environment=environment)) as client:
            return bool(client.ping())
    except (DockerException, OSError):
        return False


def _configured_addresses() -> list[str]:
    """DOCKER_HOST, else where the docker command's current context points to, else the usual socket."""
    if configured := os.environ.get("DOCKER_HOST"):
        return [configured]
    addresses = [DockerDaemon().address]
    if cli := shutil.which("docker"):
        inspect = [cli, "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"]
        context = subprocess.run(inspect, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
        addresses.insert(0, context.stdout.strip())
    return [address for address in dict.fromkeys(addresses) if address]


def _is_running(daemon: DockerDaemon) -> bool:
    try:
        pid = int(daemon.pidfile.read_text())
        return Path(f"/proc/{pid}/comm").read_text().strip() == "dockerd"
    except (OSError, ValueError):
        return False


def _wait_for_running_daemon(daemon: DockerDaemon) -> None:
    """For a dockerd that somebody else, perhaps its package's installation, is just starting."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while not is_responding(daemon.address):
        if time.monotonic() > deadline:
            raise DockerDaemonError(f"dockerd runs ({daemon.pidfile}) but does not answer at {daemon.address}.")
        time.sleep(0.1)


def _remove_leftovers(daemon: DockerDaemon) -> None:
    """What a killed dockerd leaves: its containerd, the containers and their shims, its pid file."""
    if _is_running(daemon):
        return
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            program, *arguments = (process / "cmdline").read_text(errors="replace").split("\0")
            if Path(program).name.startswith("containerd") and any(str(daemon.state) in a for a in arguments):
                containers = (process / "task" / process.name / "children").read_text().split()
                for pid in (process.name, *containers):
                    os.kill(int(pid), signal.SIGKILL)
    daemon.pidfile.unlink(missing_ok=True)
    # While the killed one is still there, the next dockerd would take it for its own, wait for it and give up.
    (daemon.state / "containerd/containerd.pid").unlink(missing_ok=True)


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def run(command: Sequence[str]) -> int:
    """Runs `command` with an engine there; its exit code. A Ctrl-C is the command's to answer."""
    with docker_engine() as address:
        child = subprocess.Popen([*DIE_WITH_PARENT, *command], env={**os.environ, "DOCKER_HOST": address})
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: child.terminate())
        return child.wait()


if __name__ == "__main__":
    if sys.argv[1:2] != ["--"] or not sys.argv[2:]:
        sys.exit("usage: python -m infra.local.docker_daemon -- COMMAND…")
    try:
        sys.exit(run(sys.argv[2:]))
    except (DockerDaemonError, ProcessError) as error:
        sys.exit(str(error))
