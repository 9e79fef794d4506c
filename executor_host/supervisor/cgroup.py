"""Read the resource counters of the container's own cgroup."""

import os
import resource


class Cgroup:
    """Read cgroup v1 or v2. Without a cgroup (gVisor), fall back to the counters of processes that have ended."""

    def __init__(self) -> None:
        """Open the files now, because the program may use up all descriptors."""
        self._cpu_ns = _open_first("/sys/fs/cgroup/cpuacct/cpuacct.usage")
        self._cpu_stat = _open_first("/sys/fs/cgroup/cpu.stat")
        self._peak = _open_first("/sys/fs/cgroup/memory/memory.max_usage_in_bytes", "/sys/fs/cgroup/memory.peak")
        self._events = _open_first("/sys/fs/cgroup/memory/memory.oom_control", "/sys/fs/cgroup/memory.events")

    def cpu_s(self) -> float:
        """Return the CPU time that all processes have used."""
        if self._cpu_ns is not None:
            return int(_read_counter(self._cpu_ns)) / 1e9
        if self._cpu_stat is not None:
            return _field(self._cpu_stat, b"usage_usec") / 1e6
        return sum(os.times()[:4])  # of PID 1 and the children it has waited for

    def memory_peak_bytes(self) -> int:
        """Return the largest amount of memory used at once."""
        if self._peak is not None:
            return int(_read_counter(self._peak))
        return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024

    def oom_kills(self) -> int:
        """Return how many processes the kernel has killed for lack of memory."""
        return _field(self._events, b"oom_kill")


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
