"""Read the kernel's counters of what all containers share, to see that programs leave nothing behind."""

import contextlib
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

MIB: Final = 1 << 20
_PAGE_BYTES: Final = 4096
_SAMPLE_INTERVAL_S: Final = 0.005


def socket_memory_bytes() -> int:
    """Return the memory in the buffers of all TCP and UDP sockets of the host."""
    pages = re.findall(r"^(?:TCP|UDP): .*mem (\d+)", Path("/proc/net/sockstat").read_text(), re.MULTILINE)
    return _PAGE_BYTES * sum(map(int, pages))


@contextlib.contextmanager
def highest(read: Callable[[], int]) -> Iterator[list[int]]:
    """Read a counter every 5 ms, and yield a list whose last value is the highest one so far."""
    values, is_over = [read()], threading.Event()

    def sample() -> None:
        while not is_over.wait(_SAMPLE_INTERVAL_S):
            values.append(max(values[-1], read()))

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        yield values
    finally:
        is_over.set()
        sampler.join()


def _first_number(path: str) -> Callable[[], int]:
    return lambda: int(Path(path).read_text().split()[0])


def _line_count(path: str) -> Callable[[], int]:
    return lambda: len(Path(path).read_text().splitlines())


def _kernel_memory_bytes() -> int:
    """Return the kernel's memory that it cannot reclaim from caches."""
    (kib,) = re.findall(r"^SUnreclaim: +(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return int(kib) * 1024


def _slab_objects(name: str) -> Callable[[], int]:
    return lambda: sum(int(line.split()[1]) for line in _lines("/proc/slabinfo") if line.startswith(f"{name} "))


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


# Of each counter, how much more other programs, such as tests that run at the same time, may need.
_COUNTERS: Final = {
    "memory of sockets": (socket_memory_bytes, 16 * MIB),
    "memory of the kernel": (_kernel_memory_bytes, 64 * MIB),
    "open files": (_first_number("/proc/sys/fs/file-nr"), 8000),
    "terminals": (_first_number("/proc/sys/kernel/pty/nr"), 10),
    "asynchronous I/O": (_first_number("/proc/sys/fs/aio-nr"), 1000),
    "BPF programs": (lambda: Path("/proc/vmallocinfo").read_text().count("bpf_"), 200),
    "file locks": (_line_count("/proc/locks"), 500),
    "users with keys": (_line_count("/proc/key-users"), 50),
    "network namespaces": (_slab_objects("net_namespace"), 50),
}


def read_host_counters() -> dict[str, int]:
    """Return each counter that this user may read, by name."""
    values = {}
    for name, (read, _) in _COUNTERS.items():
        with contextlib.suppress(PermissionError, FileNotFoundError):
            values[name] = read()
    return values


def raised_counters(baseline: dict[str, int]) -> dict[str, tuple[int, int]]:
    """Return the counters that are above their baseline by more than noise, with their values before and now."""
    return {
        name: (before, now)
        for (name, before), now in zip(baseline.items(), read_host_counters().values(), strict=True)
        if now > before + _COUNTERS[name][1]
    }
