"""Docker Engines of tests' own."""

import contextlib
import subprocess

import docker

from infra.local.docker_daemon import DockerDaemon


@contextlib.contextmanager
def daemon_in(directory):
    """Where one may live that a test kills: its data stays mounted on itself, once for each time."""
    daemon = DockerDaemon(run=directory / "run", data=directory / "data")
    yield daemon
    unmount = ["umount", "--recursive", "--lazy", daemon.data]
    while subprocess.run(unmount, stderr=subprocess.DEVNULL, check=False).returncode == 0:
        pass


def client_of(daemon, *, image):
    """A client of one that runs, which then has an image of the usual engine."""
    client = docker.DockerClient(daemon.address)
    client.images.load(b"".join(docker.from_env().images.get(image).save(named=image)))
    return client
