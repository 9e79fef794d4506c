"""Provide a Docker Engine: the running one, or, as root on Debian or Ubuntu, a dockerd that this process starts.

`python -m infra.local.docker_daemon -- COMMAND…` runs COMMAND with it.
"""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Final

import docker
from docker.context import ContextAPI
from docker.errors import DockerException

from infra import progress
from infra.errors import CommandError, exit_on_error
from infra.images.debian_base import apt_install
from infra.local.processes import DIE_WITH_PARENT, child_process
from infra.paths import LOCAL

START_TIMEOUT_S: Final = 60.0
CGROUP_TIMEOUT_S: Final = 5.0
STOP_GRACE_S: Final = 20.0  # dockerd gives containers 15 s
PING_TIMEOUT_S: Final = 5
# Sandboxes have no network, so dockerd needs no interface and no firewall rule.
NETWORK_OPTIONS: Final = (
    "--bridge=none",
    "--iptables=false",
    "--ip6tables=false",
    "--ip-forward=false",
    "--ip-masq=false",
)
# The kernel then weighs each container against dockerd and not only against the other containers. With the driver of
# systemd, which is the default where systemd runs, the parent must be a slice.
CGROUP_OPTIONS: Final = ("--exec-opt=native.cgroupdriver=cgroupfs", "--cgroup-parent=/")


class DockerDaemon:
    """The directories, files and command of a dockerd; the default directories are dockerd's own."""

    def __init__(self, run: Path = Path("/var/run"), data: Path = Path("/var/lib/docker")) -> None:
        self.run = run
        self.data = data
        self.state = run / "docker"  # of its containerd and running containers
        self.pidfile = run / "docker.pid"
        self.lock = run / "docker.lock"  # which commands hold: shared to use the daemon, exclusive to start or stop it
        self.address = f"unix://{run}/docker.sock"  # the DOCKER_HOST of its clients
        paths = [f"--host={self.address}", f"--pidfile={self.pidfile}", f"--exec-root={self.state}"]
        self.command = ["dockerd", *NETWORK_OPTIONS, *CGROUP_OPTIONS, *paths, f"--data-root={data}"]


@contextlib.contextmanager
def docker_engine() -> Iterator[str]:
    """Yield the DOCKER_HOST of an engine that responds. Raises CommandError."""
    daemon = DockerDaemon()
    can_start = sys.platform == "linux" and os.geteuid() == 0
    if configured := os.environ.get("DOCKER_HOST"):
        if not is_responding(configured):
            raise CommandError(f"No Docker Engine responds at DOCKER_HOST={configured}.")
        yield configured
    elif (address := _context_address(daemon)) != daemon.address and is_responding(address):
        yield address
    elif can_start:
        if shutil.which("dockerd") is None and not is_responding(daemon.address):
            progress.report("Installing Docker with apt-get (about 65 MB)...")
            apt_install("docker.io")
        with running_daemon(daemon):
            yield daemon.address
    elif is_responding(daemon.address):
        yield daemon.address
    else:
        raise CommandError(
            "No Docker Engine responds. Start one (Docker Desktop, colima, `sudo systemctl start docker`),\n"
            "check that `docker ps` works for this user, and try again. As root on Debian or Ubuntu, this\n"
            "command installs and starts Docker itself."
        )


@contextlib.contextmanager
def running_daemon(daemon: DockerDaemon, *, logs: Path = LOCAL) -> Iterator[str]:
    """Yield the address of a daemon. Start it if needed, and stop it once no command uses it. Raises CommandError."""
    daemon.run.mkdir(exist_ok=True)
    with daemon.lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        if not is_responding(daemon.address):
            _lock_exclusively(lock)
        if is_responding(daemon.address) or _responds_before_exit(daemon):
            fcntl.flock(lock, fcntl.LOCK_SH)
            yield daemon.address
            return
        progress.report("Starting dockerd...")
        daemon.pidfile.unlink(missing_ok=True)  # a killed dockerd left it; another program may have its process id
        try:
            with child_process("dockerd", daemon.command, grace_s=STOP_GRACE_S, logs=logs) as process:
                process.wait_until(lambda: is_responding(daemon.address), timeout_s=START_TIMEOUT_S)
                fcntl.flock(lock, fcntl.LOCK_SH)
                try:
                    yield daemon.address
                finally:
                    _lock_exclusively(lock)
        finally:
            _remove_leftovers(daemon)


def is_responding(address: str) -> bool:
    """Return whether an engine responds at the address, with the TLS settings of the environment."""
    environment = {**os.environ, "DOCKER_HOST": address}
    try:
        with contextlib.closing(docker.from_env(timeout=PING_TIMEOUT_S, environment=environment)) as client:
            return bool(client.ping())
    except (DockerException, OSError):
        return False


def _context_address(daemon: DockerDaemon) -> str:
    """Return the address in the context of the docker command, or else the daemon's."""
    return str(ContextAPI.kwargs_from_context().get("base_url", daemon.address))


def _lock_exclusively(lock: IO[str]) -> None:
    """Wait until no other command uses the daemon."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        progress.report("Waiting for other commands that use this dockerd...")
        fcntl.flock(lock, fcntl.LOCK_EX)


def _is_running(daemon: DockerDaemon) -> bool:
    try:
        pid = int(daemon.pidfile.read_text())
        command = Path(f"/proc/{pid}/cmdline").read_text()  # empty for a zombie
        return Path(command.partition("\0")[0]).name == "dockerd"
    except (OSError, ValueError):
        return False


def _responds_before_exit(daemon: DockerDaemon) -> bool:
    """Return whether a dockerd of another program responds; wait if it is starting or stopping.

    The installation of its package starts one. Raises CommandError if it does neither within a minute.
    """
    deadline = time.monotonic() + START_TIMEOUT_S
    while _is_running(daemon):
        if is_responding(daemon.address):
            return True
        if time.monotonic() > deadline:
            raise CommandError(f"dockerd is running ({daemon.pidfile}) but does not respond at {daemon.address}.")
        time.sleep(0.1)
    return False


def _remove_leftovers(daemon: DockerDaemon) -> None:
    """Remove what a killed dockerd leaves: containerd, the containers with their shims and cgroups, and a pid file."""
    if _is_running(daemon):
        return
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            program, *arguments = (process / "cmdline").read_text(errors="replace").split("\0")
            if Path(program).name.startswith("containerd") and any(str(daemon.state) in a for a in arguments):
                containers = (process / "task" / process.name / "children").read_text().split()
                for pid in (process.name, *containers):
                    os.kill(int(pid), signal.SIGKILL)
    _remove_cgroups(daemon)
    daemon.pidfile.unlink(missing_ok=True)
    # With this file, the next dockerd would wait for the killed containerd and give up.
    (daemon.state / "containerd/containerd.pid").unlink(missing_ok=True)


def _remove_cgroups(daemon: DockerDaemon) -> None:
    """Remove the cgroups of containers, which runc keeps in a file for each, as soon as their processes have ended."""
    states = [json.loads(path.read_text()) for path in daemon.state.glob("runtime-runc/moby/*/state.json")]
    cgroups = {Path(path) for state in states for path in state["cgroup_paths"].values()}
    deadline = time.monotonic() + CGROUP_TIMEOUT_S
    while (cgroups := {path for path in cgroups if path.is_dir()}) and time.monotonic() < deadline:
        for cgroup in cgroups:
            with contextlib.suppress(OSError):  # a process has not ended yet
                cgroup.rmdir()
        time.sleep(0.01)


def run(command: Sequence[str]) -> int:
    """Run a command with an engine and return its exit code. Ctrl-C reaches only the command."""
    with docker_engine() as address:
        child = subprocess.Popen([*DIE_WITH_PARENT, *command], env={**os.environ, "DOCKER_HOST": address})
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: child.terminate())
        return child.wait()


if __name__ == "__main__":
    if sys.argv[1:2] != ["--"] or not sys.argv[2:]:
        sys.exit("usage: python -m infra.local.docker_daemon -- COMMAND…")
    with exit_on_error():
        sys.exit(run(sys.argv[2:]))
