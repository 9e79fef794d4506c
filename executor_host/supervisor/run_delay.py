"""Measure how long the threads of the program have been ready to run while all cores were busy.

On a busy host a program that computes gets less CPU time than it would use. The agent adds both times, so that it does
not take that program for one that sleeps.
"""

import os
from collections.abc import Iterator

MAX_THREADS = 64  # to read: PID 1 shares the program's CPU time


class RunDelay:
    """Sum up the delays of the threads that are alive, from one call to the next."""

    def __init__(self, proc: str = "/proc") -> None:
        """Take the directory of the processes."""
        self._proc = proc
        self.start()

    def start(self) -> None:
        """Begin to measure another run."""
        self._total_ns = self._live_ns = 0

    def total_ms(self) -> int:
        """Return the delay so far, without that of threads that have ended since the last call."""
        live_ns = sum(map(_delay_ns, self._threads()))
        self._total_ns += max(0, live_ns - self._live_ns)
        self._live_ns = live_ns
        return self._total_ns // 1_000_000

    def _threads(self) -> Iterator[str]:
        left = MAX_THREADS
        for process in _list(self._proc):
            if process.isdigit() and process != "1":
                for thread in _list(f"{self._proc}/{process}/task")[:left]:
                    yield f"{self._proc}/{process}/task/{thread}"
                    left -= 1


def _list(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:  # the process has ended
        return []


def _delay_ns(thread: str) -> int:
    # https://docs.kernel.org/scheduler/sched-stats.html#proc-pid-schedstat
    try:
        with open(f"{thread}/schedstat", "rb", buffering=0) as file:
            return int(file.read(128).split()[1])
    except OSError:  # the thread has ended, or gVisor runs it
        return 0
