"""Read the resource counters of the container's own cgroup, and bound the memory that cgroup v1 does not count."""

import math
import os
import resource
import time

from .protocol import USAGE, USAGE_RECORD, frame
from .run_delay import RunDelay

FIRST_USAGE_S = 0.025  # soon, because the agent takes a program for CPU-bound until it knows better
USAGE_INTERVAL_S = 0.1
MAX_UNCOUNTED_SOCKETS = 256
SOCKET_CHECK_INTERVAL_S = 0.02


class Cgroup:
    """Read cgroup v1 or v2. Without a cgroup (gVisor), fall back to the counters of processes that have ended."""

    def __init__(self, directory: str = "/sys/fs/cgroup", proc: str = "/proc") -> None:
        """Open the files now, because the program may use up all descriptors."""
        self._run_delay = RunDelay(proc)
        self._cpu_ns = _open_first(f"{directory}/cpuacct/cpuacct.usage")
        self._cpu_stat = _open_first(f"{directory}/cpu.stat")
        self._peak = _open_first(f"{directory}/memory/memory.max_usage_in_bytes", f"{directory}/memory.peak")
        self._usage = _open_first(f"{directory}/memory/memory.usage_in_bytes", f"{directory}/memory.current")
        self.frame_at, self._started_at, self._is_reused = math.inf, 0.0, False
        self._events = _open_first(f"{directory}/memory/memory.oom_control", f"{directory}/memory.events")

    def start(self) -> None:
        """Begin to measure what a program uses. PID 1 itself is not counted."""
        self._cpu_s_before, self._oom_kills_before = self._cpu_s() - time.process_time(), self._oom_kills()
        self._peak_before = self._read_memory(self._peak) if self._is_reused else 0
        self._sampled_bytes = self._largest_process_bytes = 0
        self._is_reused = True

    def process_ended(self, usage: resource.struct_rusage) -> None:
        """Consider a process of the program that has ended."""
        self._largest_process_bytes = max(self._largest_process_bytes, usage.ru_maxrss * 1024)

    def report_from(self, now: float) -> None:
        """Begin to return frames, when the program starts."""
        self.frame_at, self._started_at = now + FIRST_USAGE_S, now
        self._run_delay.start()

    def take_due_frame(self, now: float) -> bytes:
        """Return a frame of USAGE if one is due, so that the agent knows it even if PID 1 is killed."""
        if now < self.frame_at:
            return b""
        self.frame_at = now + USAGE_INTERVAL_S
        self._sampled_bytes = max(self._sampled_bytes, self._read_memory(self._usage))
        duration_ms = round((now - self._started_at) * 1000)
        return frame(USAGE, USAGE_RECORD.pack(duration_ms, self.program_cpu_ms(), self._run_delay.total_ms()))

    def program_cpu_ms(self) -> int:
        """Return the CPU time of all processes of the program."""
        return max(0, round((self._cpu_s() - time.process_time() - self._cpu_s_before) * 1000))

    def memory_peak_bytes(self) -> int:
        """Return the largest amount of memory used at once, when all processes of the program have ended.

        The kernel's counter covers all runs of the sandbox, and only root can reset it. A run that does not raise it
        used at most as much; then the estimate is the largest process and the files that the program has left, or what
        was seen while it ran.
        """
        peak_bytes = self._read_memory(self._peak)
        if peak_bytes > self._peak_before:
            return peak_bytes
        estimate = max(self._sampled_bytes, self._read_memory(self._usage) + self._largest_process_bytes)
        return min(estimate, peak_bytes) if peak_bytes else estimate

    def has_killed(self) -> bool:
        """Return whether the kernel has killed a process for lack of memory."""
        return self._oom_kills() > self._oom_kills_before

    def _cpu_s(self) -> float:
        if self._cpu_ns is not None:
            return int(_read_counter(self._cpu_ns)) / 1e9
        if self._cpu_stat is not None:
            return _field(self._cpu_stat, b"usage_usec") / 1e6
        return sum(os.times()[:4])  # of PID 1 and the children it has waited for

    def _read_memory(self, fd: int | None) -> int:
        return 0 if fd is None else int(_read_counter(fd))

    def _oom_kills(self) -> int:
        return _field(self._events, b"oom_kill")


class UncountedSockets:
    """Count the internet sockets of the sandbox if their buffers belong to no cgroup, which is so with version 1."""

    def __init__(self) -> None:
        """Open the files now, because the program may use up all descriptors."""
        files = ("/proc/net/sockstat", "/proc/net/sockstat6") if os.path.isdir("/sys/fs/cgroup/memory") else ()
        self._counters = [fd for path in files if (fd := _open_first(path)) is not None]
        self.check_at = math.inf
        self.were_too_many = False

    def watch_from(self, now: float) -> None:
        """Begin to check. A program that has just started has no sockets yet."""
        self.check_at = now + SOCKET_CHECK_INTERVAL_S if self._counters else math.inf
        self.were_too_many = False

    def are_too_many(self, now: float) -> bool:
        """Return whether there are more than allowed, closed ones with unsent data included."""
        if now >= self.check_at:
            fields = [line.split() for fd in self._counters for line in _read_counter(fd).splitlines()]
            in_use = sum(int(values[2]) for values in fields if values[1] == b"inuse")
            self.were_too_many = in_use > MAX_UNCOUNTED_SOCKETS
            self.check_at = now + SOCKET_CHECK_INTERVAL_S
        return self.were_too_many


def _open_first(*paths: str) -> int | None:
    for path in paths:
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
    return None


def _read_counter(fd: int) -> bytes:
    return os.pread(fd, 4096, 0)


def _field(fd: int | None, name: bytes) -> int:
    lines = () if fd is None else _read_counter(fd).splitlines()
    return next((int(value) for key, value in map(bytes.split, lines) if key == name), 0)
