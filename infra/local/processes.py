"""Child processes that end with us: in a session of their own, their output in a log. For infra/ only."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from infra.paths import LAMBDA_APP, LOCAL, ROOT

# Where util-linux is there: the kernel ends the child if we are killed and cannot.
DIE_WITH_PARENT: Final = ("setpriv", "--pdeathsig", "TERM") if shutil.which("setpriv") else ()
PYTHON_SETTINGS: Final = {"PYTHONPATH": f"{LAMBDA_APP}:{ROOT}", "PYTHONUNBUFFERED": "1"}
LOOPBACK: Final = "127.0.0.1"
START_TIMEOUT_S: Final = 30.0
_TAIL_LINES: Final = 15


class ProcessError(Exception):
    """A child process ended by itself or was not ready in time; the message shows the end of its log."""


@dataclass(frozen=True)
class Process:
    """A started child and the file that its output goes to."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path

    def check(self) -> None:
        """Raises ProcessError if it has ended."""
        if self.popen.poll() is not None:
            raise self._failure(f"ended with {self.popen.returncode}")

    def wait_until(self, ready: Callable[[], bool], *, timeout_s: float) -> None:
        """Returns once `ready`. Raises ProcessError when it ends before or takes longer than `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                raise self._failure(f"was not ready within {timeout_s:.0f} s")
            time.sleep(0.05)

    def _failure(self, what: str) -> ProcessError:
        lines = self.log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
        return ProcessError("\n    ".join([f"{self.name} {what}. The end of {self.log}:", *lines]))


@contextlib.contextmanager
def child_process(
    name: str,
    command: Sequence[str],
    *,
    grace_s: float,
    settings: Mapping[str, str] = MappingProxyType({}),
    logs: Path = LOCAL,
) -> Iterator[Process]:
    """`command` beyond the reach of the terminal's Ctrl-C; SIGTERM at the end, after `grace_s` SIGKILL.

    It sees our environment and `settings`, but not whatever AWS account the developer uses otherwise.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    logs.mkdir(exist_ok=True)
    log = logs / f"{name}.log"
    with log.open("wb") as output:
        popen = subprocess.Popen(
            [*DIE_WITH_PARENT, *command],
            env={**inherited, **PYTHON_SETTINGS, **settings},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield Process(name, popen, log)
    finally:
        popen.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            popen.wait(grace_s)
        with contextlib.suppress(ProcessLookupError, PermissionError):  # nothing, or on macOS a zombie, is left
            os.killpg(popen.pid, signal.SIGKILL)
        popen.wait()


def free_port(host: str = LOOPBACK) -> int:
    """A port of `host` on which nothing listens now."""
    with socket.create_server((host, 0)) as server:
        port: int = server.getsockname()[1]
        return port


def is_listening(host: str, port: int) -> bool:
    """Whether something accepts connections there."""
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False
