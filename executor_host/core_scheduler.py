"""Share the cores of this host among its jobs, of all runtimes.

A run starts only when a core is free for it, so CPU-bound programs do not take time from each other. A program that
sleeps leaves its core to others: what counts is the CPU time that programs use or wait for, which supervisors report
ten times a second. So a host runs more jobs than it has cores, and a key whose jobs only sleep cannot keep others
waiting. Neither can a key with several batches: they leave a core to the other keys that use this host.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

from msgspec import Struct

TOLERANCE: Final = 0.5  # of a core; two CPU-bound programs and the noise of sleeping ones fit on two cores
RESERVE_S: Final = 10.0  # how long after a key's last run the batches of others leave a core to it
SETTLE_S: Final = 0.1  # after a run; the next one of its batch may be about to start
RECHECK_S: Final = 0.02  # while a run waits, because a running one may have begun to sleep
MEMINFO: Final = Path("/proc/meminfo")


class CpuUser(Protocol):
    """Describe the member of a sandbox that the scheduler reads."""

    cpu_demand: float  # cores that its program uses or waits for, 0 to 1; 1 until it is known


class _Run(Struct, frozen=True, eq=False):
    key: str | None
    user: CpuUser
    yields: bool


class CoreScheduler:
    """Admits one run after another to the cores of this host. Thread-safe."""

    def __init__(
        self, cores: float, *, measures_cpu: bool = True, free_memory: Callable[[], float] = lambda: float("inf")
    ) -> None:
        """Count each run as a whole core unless `measures_cpu`; `free_memory` returns bytes."""
        self._cores = cores
        self._measures_cpu = measures_cpu
        self._free_memory = free_memory
        self._changed = threading.Condition()
        self._waiting: list[_Run] = []  # in the order in which they came
        self._running: list[_Run] = []
        self._ended_at: dict[str | None, float] = {}  # by key, of its last run

    def wait_for_room(self, memory_bytes: int, timeout_s: float) -> bool:
        """Wait until a job that is received now can start soon: at once, or after the current run of a batch.

        Return False after `timeout_s`; then the job is better left to other hosts. Also require free memory.
        """
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while not self._has_room():
                if time.monotonic() >= deadline:
                    return False
                self._changed.wait(RECHECK_S)
        if self._free_memory() >= memory_bytes:
            return True
        time.sleep(timeout_s)
        return False

    def has_spare_cores(self) -> bool:
        """Return whether a core is free for work that can wait, and another one for a job that arrives meanwhile."""
        with self._changed:
            return self._has_core(2) and max(self._ended_at.values(), default=0.0) < time.monotonic() - SETTLE_S

    @contextmanager
    def core(self, user: CpuUser, *, key: str | None, yields: bool = False) -> Iterator[None]:
        """Wait for a core and keep it during the block. The key with the fewest runs is the next.

        `yields` says that the block is one of many short ones, between which others have their turn.
        """
        run = _Run(key, user, yields)
        with self._changed:
            self._waiting.append(run)
            try:
                while self._next() is not run:
                    self._changed.wait(RECHECK_S)
            finally:
                self._waiting.remove(run)
            self._running.append(run)
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._running.remove(run)
                self._record_end(key)
                self._changed.notify_all()

    def _next(self) -> _Run | None:
        """Return the run that may start: of those whose keys have the fewest runs, the one that has waited longest."""
        ready = filter(self._may_start, self._waiting)
        return min(ready, key=lambda run: self._runs_of(run.key), default=None)

    def _runs_of(self, key: str | None) -> int:
        return sum(run.key == key for run in self._running)

    def _has_room(self) -> bool:
        if self._has_core():
            return self._next() is None
        return not self._waiting and any(run.yields for run in self._running)

    def _may_start(self, run: _Run) -> bool:
        leaves_core = run.yields and self._runs_of(run.key) > 0 and self._is_used_by_others(run.key)
        return self._has_core(2 if leaves_core else 1)

    def _is_used_by_others(self, key: str | None) -> bool:
        recently = time.monotonic() - RESERVE_S
        keys = {other for other, ended_at in self._ended_at.items() if ended_at > recently}
        keys |= {run.key for run in (*self._running, *self._waiting)}
        return bool(keys - {key})

    def _record_end(self, key: str | None) -> None:
        now = time.monotonic()
        self._ended_at = {other: at for other, at in self._ended_at.items() if at > now - RESERVE_S}
        self._ended_at[key] = now

    def _has_core(self, cores: int = 1) -> bool:
        used = sum(run.user.cpu_demand if self._measures_cpu else 1.0 for run in self._running)
        return not self._running or used + cores <= self._cores + TOLERANCE


def available_memory(reserve_bytes: int) -> Callable[[], float]:
    """Return a function that returns the memory of the host, in bytes, that programs may use beside a reserve."""

    def read() -> float:
        fields = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
        return int(fields["MemAvailable"].split()[0]) * 1024 - reserve_bytes

    return read
