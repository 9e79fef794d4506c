"""Compare what a probe saw in its sandbox with what hardening.py asks for. The probe's report is hostile text."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated, Any, Final

from msgspec import Meta, Struct

from chalicelib.runtimes import Runtime
from executor_host import hardening

MAX_VALUE_CHARS: Final = 200  # of a difference in the log
SPINNERS: Final = 2 * math.ceil(hardening.CPUS)  # processes that each would use one CPU
MEASURED_CPUS_TOLERANCE: Final = 1.5  # a limit applies to periods of 0.1 s, and the measurement is short
EXCESS_MEMORY_BYTES: Final = 32 * 1024 * 1024
_TASKS: Final = {
    "masked_paths": hardening.MASKED_PATHS,
    "sysctls": list(hardening.SYSCTLS),
    "ulimits": list(hardening.ULIMITS),
    "spinners": SPINNERS,
    "processes": hardening.PROCESSES + 64,
    "allocate_last": False,
}
# gVisor kills the whole sandbox for its memory, and dozens of Python processes are enough for that.
_TASKS_UNDER_GVISOR: Final = _TASKS | {"processes": 0, "allocate_last": True}

_NO_EXECUTION: Final = frozenset(("nosuid", "nodev", "noexec"))
# The writable mounts: their type and the options that each must have.
_WRITABLE_MOUNTS: Final = {
    "/proc": ("proc", _NO_EXECUTION),
    "/dev": ("tmpfs", frozenset(("nosuid",))),
    "/dev/pts": ("devpts", frozenset(("nosuid", "noexec"))),
    "/dev/mqueue": ("mqueue", _NO_EXECUTION),
    "/dev/shm": ("tmpfs", _NO_EXECUTION),  # noqa: S108 - in the container
    "/tmp": ("tmpfs", _NO_EXECUTION),  # noqa: S108 - in the container
}
_TMPFS_LIMITS: Final = {
    "/dev/shm": {"size": hardening.SHARED_MEMORY_BYTES},  # noqa: S108 - in the container
    "/tmp": {"size": hardening.SCRATCH_BYTES, "nr_inodes": hardening.SCRATCH_INODES},  # noqa: S108 - in the container
}
_CGROUP: Final = "/sys/fs/cgroup"  # version 1 has a tmpfs there that only root may write
_READ_ONLY_MOUNTS: Final = frozenset(
    ("/", "/sys", _CGROUP, "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
)
_REQUIRED_MOUNTS: Final = frozenset(("/", "/proc", "/proc/sys", "/sys", "/dev", *_TMPFS_LIMITS))
_FILES_OF_DOCKER: Final = frozenset(("/etc/hostname", "/etc/hosts", "/etc/resolv.conf"))  # empty without a network
_UNITS: Final = {"k": 1024, "m": 1024**2, "g": 1024**3}

_Text = Annotated[str, Meta(max_length=4096)]
_Texts = Annotated[list[_Text], Meta(max_length=1000)]
_Ids = Annotated[list[int], Meta(max_length=100)]


_Check = Iterator[tuple[str, Any, Any]]  # name, expected value, actual value


class Mount(Struct, frozen=True):
    """One line of /proc/self/mountinfo."""

    path: _Text
    type: _Text
    options: _Texts
    limits: _Texts  # of a tmpfs
    is_writable: bool  # by the program


class ProbeReport(Struct, frozen=True):
    """What isolation_probe.py prints."""

    uids: _Ids
    gids: _Ids
    groups: _Ids
    status: dict[_Text, _Text]  # lines of /proc/self/status
    allowed_calls: _Texts
    mounts: Annotated[list[Mount], Meta(max_length=1000)]
    sockets: _Texts
    unmasked: _Texts
    interfaces: _Texts
    resolved: bool
    sysctls: dict[_Text, _Texts]
    ulimits: dict[_Text, _Ids]  # soft and hard
    cgroup: dict[_Text, _Text]  # text of each file that exists
    swap: int  # of the host, in bytes
    signal: _Text
    cpus: float
    processes: int
    oom_kills: int
    allocation: _Text


class Difference(Struct, frozen=True):
    """One property of a sandbox or of the engine that is not as required."""

    name: str
    expected: str
    actual: str


def probe_tasks(runtime: Runtime, *, is_gvisor: bool = False) -> dict[str, Any]:
    """Return what isolation_probe.py tries in a sandbox of the runtime."""
    tasks = _TASKS_UNDER_GVISOR if is_gvisor else _TASKS
    return tasks | {"memory_bytes": runtime.memory_bytes + EXCESS_MEMORY_BYTES}


def find_differences(report: ProbeReport, runtime: Runtime, *, is_gvisor: bool = False) -> list[Difference]:
    """Return every difference between the sandbox of a probe and what hardening.py asks for.

    gVisor's own kernel shows no cgroup, lacks the system settings, names few mount options, and counts CPU time while a
    process waits for a CPU, so less can be compared.
    """
    checks: list[Callable[[ProbeReport], _Check]] = [_identity, _capabilities, _calls, _network, _ulimits]
    if is_gvisor:
        checks += [_gvisor_mounts]
    else:
        checks += [_no_new_privileges, _kernel, _mounts, partial(_cgroup_limits, runtime=runtime), _usage]
    return [
        difference(name, expected, actual)
        for check in checks
        for name, expected, actual in check(report)
        if actual != expected
    ]


def difference(name: str, expected: object, actual: object) -> Difference:
    """Return a difference whose texts are ASCII and short enough for the log."""
    texts = (f"{value}".encode("ascii", "backslashreplace").decode() for value in (name, expected, actual))
    return Difference(*(text[:MAX_VALUE_CHARS] for text in texts))


def _identity(report: ProbeReport) -> _Check:
    first, last = hardening.FIRST_UID, hardening.FIRST_UID + hardening.UID_RANGE_SIZE - 1
    is_own_uid = len(set(report.uids)) == 1 and first <= report.uids[0] <= last
    yield "uid", f"{first} to {last}", f"{first} to {last}" if is_own_uid else report.uids
    yield "gid", [hardening.GID] * 3, report.gids
    yield "groups", [hardening.GID], sorted({hardening.GID, *report.groups})


def _ulimits(report: ProbeReport) -> _Check:
    for name, limit in hardening.ULIMITS.items():
        yield f"ulimit {name}", [limit] * 2, report.ulimits.get(name)


def _capabilities(report: ProbeReport) -> _Check:
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd"):
        yield name, "0", _capability_set(report, name)


def _no_new_privileges(report: ProbeReport) -> _Check:
    yield "CapAmb", "0", _capability_set(report, "CapAmb")
    yield "NoNewPrivs", "1", report.status.get("NoNewPrivs")


def _capability_set(report: ProbeReport, name: str) -> str:
    return report.status.get(name, "missing").lstrip("0") or "0"


def _calls(report: ProbeReport) -> _Check:
    yield "Seccomp", "2", report.status.get("Seccomp")
    yield "allowed_calls", [], report.allowed_calls
    yield "signal", "killed", report.signal


def _kernel(report: ProbeReport) -> _Check:
    yield "unmasked", [], report.unmasked
    for name, value in hardening.SYSCTLS.items():
        yield name, value.split(), report.sysctls.get(name)


def _network(report: ProbeReport) -> _Check:
    yield "interfaces", ["lo"], report.interfaces
    yield "resolved", False, report.resolved
    yield "sockets", [], report.sockets


def _mounts(report: ProbeReport) -> _Check:
    yield "missing mounts", [], sorted(_REQUIRED_MOUNTS - {mount.path for mount in report.mounts})
    for mount in report.mounts:
        options = set(mount.options)
        is_masked = mount.path in hardening.MASKED_PATHS
        is_known_file = mount.path in _FILES_OF_DOCKER or mount.path.startswith(f"{_CGROUP}/")
        if mount.path in _WRITABLE_MOUNTS:
            file_system, required = _WRITABLE_MOUNTS[mount.path]
            yield f"type of {mount.path}", file_system, mount.type
            yield f"options of {mount.path}", sorted(required), sorted(required & options)
        elif mount.path == _CGROUP and mount.type == "tmpfs":
            yield f"options of {mount.path}", sorted(_NO_EXECUTION), sorted(_NO_EXECUTION & options)
            yield f"is_writable of {mount.path}", False, mount.is_writable  # crun lets every user write there
        elif not is_masked:  # a masked file is /dev/null
            is_known = mount.path in _READ_ONLY_MOUNTS or is_known_file
            yield f"mount {mount.path}", "ro" if is_known else "none", "ro" if "ro" in options else "rw"
        for name, limit in _TMPFS_LIMITS.get(mount.path, {}).items():
            yield f"{name} of {mount.path}", limit, _limit(mount, name)


def _gvisor_mounts(report: ProbeReport) -> _Check:
    for mount in report.mounts:
        is_known = mount.path in {*_WRITABLE_MOUNTS, *_READ_ONLY_MOUNTS, *_FILES_OF_DOCKER}
        expected = "rw" if mount.path in _WRITABLE_MOUNTS else "ro" if is_known else "none"
        yield f"mount {mount.path}", expected, "ro" if "ro" in mount.options else "rw"
        for name, limit in _TMPFS_LIMITS.get(mount.path, {}).items():
            yield f"options of {mount.path}", True, "noexec" in mount.options
            if name == "size":
                yield f"size of {mount.path}", limit, _limit(mount, name)


def _limit(mount: Mount, name: str) -> int | None:
    """Return a limit of a tmpfs, which the kernel prints with or without a unit."""
    for limit in mount.limits:
        key, _, value = limit.partition("=")
        number, unit = value.rstrip("kmg"), value[-1:]
        if key == name and number.isdecimal():
            return int(number) * _UNITS.get(unit, 1)
    return None


def _cgroup_limits(report: ProbeReport, *, runtime: Runtime) -> _Check:
    cgroup, memory = report.cgroup, f"{runtime.memory_bytes}"
    if "memory/memory.limit_in_bytes" in cgroup:  # version 1
        memory_file, swap_file = "memory/memory.limit_in_bytes", "memory/memory.memsw.limit_in_bytes"
        pids_file = "pids/pids.max"
        swap_limit = memory  # of memory and swap together
        quota = f"{cgroup.get('cpu/cpu.cfs_quota_us')} {cgroup.get('cpu/cpu.cfs_period_us')}"
    else:
        memory_file, swap_file, pids_file = "memory.max", "memory.swap.max", "pids.max"
        swap_limit, quota = "0", cgroup.get("cpu.max", "missing")
    yield memory_file, memory, cgroup.get(memory_file)
    if swap_file in cgroup or report.swap:  # a kernel that does not count swap needs a host without any
        yield swap_file, swap_limit, cgroup.get(swap_file)
    yield pids_file, f"{hardening.PIDS}", cgroup.get(pids_file)
    yield "cpu.max", hardening.CPUS, _cpus(quota)


def _cpus(quota: str) -> float | str:
    """Return the CPUs that a quota allows, or the quota itself if it does not limit them."""
    quota_us, _, period_us = quota.partition(" ")
    if quota_us.isdecimal() and period_us.isdecimal() and int(period_us):
        return int(quota_us) / int(period_us)
    return quota


def _usage(report: ProbeReport) -> _Check:
    limit = hardening.CPUS * MEASURED_CPUS_TOLERANCE
    yield "measured_cpus", f"at most {limit}", f"at most {limit}" if report.cpus <= limit else round(report.cpus, 2)
    yield "allocation", "killed", report.allocation
    yield "oom_kills", 1, report.oom_kills
    yield "processes", hardening.PROCESSES, report.processes
