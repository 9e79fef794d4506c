"""Child processes that end with this process, each with its own session and log. Only infra/ and tests use them."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from infra.errors import CommandError
from infra.paths import LAMBDA_APP, LOCAL, ROOT

# With util-linux installed, the kernel ends the child even if this process is killed.
DIE_WITH_PARENT: Final = ("setpriv", "--pdeathsig", "TERM") if shutil.which("setpriv") else ()
PYTHON_SETTINGS: Final = {"PYTHONPATH": f"{LAMBDA_APP}:{ROOT}", "PYTHONUNBUFFERED": "1"}
LOOPBACK: Final = "127.0.0.1"
START_TIMEOUT_S: Final = 30.0
MAX_LOG_BYTES: Final = 16 * 1024 * 1024  # then a log is moved to NAME.log.1, which replaces the previous one
LOG_CHECK_INTERVAL_S: Final = 0.5
_TAIL_LINES: Final = 15


@dataclass(frozen=True)
class Process:
    """A started child process and its log."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path

    def check(self) -> None:
        """Raise CommandError if the process has ended."""
        if self.popen.poll() is not None:
            raise self._error(f"ended with exit code {self.popen.returncode}")

    def wait_until(self, is_ready: Callable[[], bool], *, timeout_s: float) -> None:
        """Wait until `is_ready()`. Raise CommandError if the process ends first or the time is up."""
        deadline = time.monotonic() + timeout_s
        while not is_ready():
            self.check()
            if time.monotonic() > deadline:
                raise self._error(f"was not ready within {timeout_s:.0f} s")
            time.sleep(0.05)

    def _error(self, event: str) -> CommandError:
        lines = self.log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
        return CommandError("\n    ".join([f"{self.name} {event}. The end of {self.log}:", *lines]))


@contextlib.contextmanager
def child_process(
    name: str,
    command: Sequence[str],
    *,
    grace_s: float,
    settings: Mapping[str, str] = MappingProxyType({}),
    logs: Path = LOCAL,
) -> Iterator[Process]:
    """Run a command that Ctrl-C in the terminal does not reach; send SIGTERM at the end, and SIGKILL after `grace_s`.

    The command inherits the environment, except for the developer's own AWS settings, and gets `settings`.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    logs.mkdir(exist_ok=True)
    log = logs / f"{name}.log"
    log.unlink(missing_ok=True)
    with log.open("ab") as output:  # appending, so that truncating it makes room
        popen = subprocess.Popen(
            [*DIE_WITH_PARENT, *command],
            env={**inherited, **PYTHON_SETTINGS, **settings},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    ended = threading.Event()
    threading.Thread(target=_limit_size, args=(log, ended), daemon=True).start()
    try:
        yield Process(name, popen, log)
    finally:
        ended.set()
        popen.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            popen.wait(grace_s)
        with contextlib.suppress(ProcessLookupError, PermissionError):  # no process, or on macOS a zombie, is left
            os.killpg(popen.pid, signal.SIGKILL)
        popen.wait()


def _limit_size(log: Path, ended: threading.Event) -> None:
    """Move a log that is too large out of the way, until its process has ended. Lines written meanwhile are lost."""
    while not ended.wait(LOG_CHECK_INTERVAL_S):
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile, for example by `make clean`
            if log.stat().st_size > MAX_LOG_BYTES:
                with log.open("rb") as written:
                    written.seek(-MAX_LOG_BYTES, os.SEEK_END)
                    log.with_suffix(".log.1").write_bytes(written.read(MAX_LOG_BYTES))
                os.truncate(log, 0)


def free_port(host: str = LOOPBACK) -> int:
    """Return a port of the host that is free now."""
    with socket.create_server((host, 0)) as server:
        port: int = server.getsockname()[1]
        return port


def is_listening(host: str, port: int) -> bool:
    """Return whether a server accepts connections at this address."""
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False
