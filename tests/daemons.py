"""Docker Engines of tests' own."""

import contextlib
import subprocess

from infra.engine import Daemon


@contextlib.contextmanager
def daemon_in(directory):
    """Where one may live that a test kills: its data stays mounted on itself, once for each time."""
    daemon = Daemon(run=directory / "run", data=directory / "data")
    yield daemon
    unmount = ["umount", "--recursive", "--lazy", daemon.data]
    while subprocess.run(unmount, stderr=subprocess.DEVNULL, check=False).returncode == 0:
        pass
