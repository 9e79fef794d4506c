"""Run Docker daemons that tests may break."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import docker

from infra.local.docker_daemon import DockerDaemon


@contextlib.contextmanager
def isolated_daemon(directory: Path) -> Iterator[DockerDaemon]:
    """Yield a daemon that keeps everything in `directory`, and unmount what it left there.

    A killed daemon leaves its data directory mounted on itself, once for each time that it was started, and a network
    namespace.
    """
    daemon = DockerDaemon(run=directory / "run", data=directory / "data")
    yield daemon
    for path in (daemon.data, daemon.state / "netns/default"):
        unmount = ["umount", "--recursive", "--lazy", str(path)]
        while subprocess.run(unmount, stderr=subprocess.DEVNULL, check=False).returncode == 0:
            pass


def client_with_image(daemon: DockerDaemon, *, image: str) -> docker.DockerClient:
    """Return a client of a running daemon, after copying an image of the default daemon to it."""
    client = docker.DockerClient(daemon.address)
    client.images.load(b"".join(docker.from_env().images.get(image).save(named=image)))
    return client
