"""Provide what the probe of the isolation check reports from hardened sandboxes."""

import json
from typing import Any, Final

_NO_EXECUTION: Final = ["nosuid", "nodev", "noexec"]
_CGROUP_V1_CONTROLLERS: Final = ("cpu", "cpuacct", "memory", "pids")
CGROUP_V1_FILES: Final = {
    "memory/memory.limit_in_bytes": "268435456",
    "memory/memory.memsw.limit_in_bytes": "268435456",
    "pids/pids.max": "258",
    "cpu/cpu.cfs_quota_us": "100000",
    "cpu/cpu.cfs_period_us": "100000",
}
CGROUP_V2_FILES: Final = {
    "memory.max": "268435456",
    "memory.swap.max": "0",
    "pids.max": "258",
    "cpu.max": "100000 100000",
}


def _mount(path: str, file_system: str, *options: str, limits: tuple[str, ...] = ()) -> dict[str, Any]:
    is_writable = path in {"/tmp", "/dev/shm", "/dev/mqueue"}
    members = {"path": path, "type": file_system, "options": list(options), "limits": list(limits)}
    return members | {"is_writable": is_writable}


_MOUNTS: Final = [
    _mount("/", "overlay", "ro", "relatime"),
    _mount("/proc", "proc", "rw", *_NO_EXECUTION),
    _mount("/dev", "tmpfs", "rw", "nosuid", limits=("size=65536k",)),
    _mount("/dev/pts", "devpts", "rw", "nosuid", "noexec"),
    _mount("/sys", "sysfs", "ro", *_NO_EXECUTION),
    _mount("/dev/mqueue", "mqueue", "rw", *_NO_EXECUTION),
    _mount("/dev/shm", "tmpfs", "rw", *_NO_EXECUTION, limits=("size=16384k",)),
    _mount("/tmp", "tmpfs", "rw", *_NO_EXECUTION, limits=("size=65536k", "nr_inodes=16384")),
    _mount("/etc/hostname", "ext4", "ro"),
    _mount("/proc/bus", "proc", "ro", *_NO_EXECUTION),
    _mount("/proc/sys", "proc", "ro", *_NO_EXECUTION),
    _mount("/proc/acpi", "tmpfs", "ro"),
    _mount("/proc/keys", "tmpfs", "rw", "nosuid"),
]
_CGROUP_V1_MOUNTS: Final = [
    _mount("/sys/fs/cgroup", "tmpfs", "rw", *_NO_EXECUTION),
    *(_mount(f"/sys/fs/cgroup/{name}", "cgroup", "ro", *_NO_EXECUTION) for name in _CGROUP_V1_CONTROLLERS),
]
_CGROUP_V2_MOUNTS: Final = [_mount("/sys/fs/cgroup", "cgroup2", "ro", *_NO_EXECUTION)]


def probe_report(*, cgroup_version: int = 2) -> dict[str, Any]:
    """Return a report without differences, which the caller may change."""
    is_v1 = cgroup_version == 1
    report = {
        "uids": [(1 << 30) + 5] * 3,
        "gids": [65534] * 3,
        "groups": [65534],
        "status": {
            **dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), "0000000000000000"),
            "NoNewPrivs": "1",
            "Seccomp": "2",
        },
        "allowed_calls": [],
        "mounts": _MOUNTS + (_CGROUP_V1_MOUNTS if is_v1 else _CGROUP_V2_MOUNTS),
        "sockets": [],
        "unmasked": [],
        "interfaces": ["lo"],
        "resolved": False,
        "sysctls": {
            "net.ipv4.tcp_max_tw_buckets": ["0"],
            "net.ipv4.tcp_orphan_retries": ["1"],
            "net.ipv4.tcp_rmem": ["4096", "131072", "262144"],
            "net.ipv4.tcp_wmem": ["4096", "16384", "262144"],
        },
        "ulimits": {"core": [1, 1], "nofile": [1024, 1024], "memlock": [65536, 65536], "msgqueue": [0, 0]},
        "cgroup": CGROUP_V1_FILES if is_v1 else CGROUP_V2_FILES,
        "swap": 0,
        "signal": "killed",
        "cpus": 0.98,
        "processes": 256,
        "oom_kills": 1,
        "allocation": "killed",
    }
    copy: dict[str, Any] = json.loads(json.dumps(report))
    return copy


def gvisor_probe_report() -> dict[str, Any]:
    """Return a report from a hardened sandbox under gVisor."""
    report = probe_report() | {
        "cgroup": {},
        "processes": 0,
        "oom_kills": 0,
        "allocation": "",
        "unmasked": ["/proc/cmdline"],
    }
    for name in ("CapAmb", "NoNewPrivs"):
        del report["status"][name]
    report["sysctls"]["net.ipv4.tcp_orphan_retries"] = []
    report["mounts"] = [
        _mount("/", "9p", "ro"),
        _mount("/dev", "tmpfs", "rw"),
        _mount("/sys", "sysfs", "ro", "noexec"),
        _mount("/tmp", "tmpfs", "rw", "noexec", limits=("size=67108864",)),
        _mount("/proc", "proc", "rw", "noexec"),
        _mount("/dev/pts", "devpts", "rw", "noexec"),
        _mount("/dev/shm", "tmpfs", "rw", "noexec", limits=("size=16777216",)),
        _mount("/etc/hostname", "9p", "ro"),
    ]
    return report
