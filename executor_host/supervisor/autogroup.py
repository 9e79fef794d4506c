"""Undo what a program has done to the priority of its session, which is that of PID 1 and of later runs.

https://man7.org/linux/man-pages/man7/sched.7.html, "The autogroup feature"
"""

import contextlib
import os
import time

RESET_TIMEOUT_S = 5.0
RETRY_DELAY_S = 0.02  # the kernel accepts ten changes a second


class Autogroup:
    """The group of processes that the scheduler makes of a session."""

    def __init__(self) -> None:
        """Open the file now: once PID 1 is protected from the program, it belongs to root."""
        self._file: int | None = None
        with contextlib.suppress(OSError):  # a kernel without autogroups
            self._file = os.open("/proc/self/autogroup", os.O_RDWR | os.O_CLOEXEC)

    def reset(self) -> None:
        """Give the session its first priority again. Exit if the kernel refuses it for too long."""
        deadline = time.monotonic() + RESET_TIMEOUT_S
        while self._file is not None and not os.pread(self._file, 64, 0).endswith(b" nice 0\n"):
            try:
                os.lseek(self._file, 0, os.SEEK_SET)
                os.write(self._file, b"0")
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    os._exit(1)
                time.sleep(RETRY_DELAY_S)
