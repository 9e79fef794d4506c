"""Define every barrier around a sandbox and the attack it stops. docs/threat-model.md names the test of each."""

import json
import math
import secrets
from typing import Any, Final

from chalicelib.runtimes import Runtime
from executor_host import seccomp

SCRATCH_BYTES: Final = 64 * 1024 * 1024  # part of the memory, in /tmp
SHARED_MEMORY_BYTES: Final = 16 * 1024 * 1024  # part of the memory, in /dev/shm; multiprocessing keeps its locks there
SCRATCH_INODES: Final = 16 * 1024
PROCESSES: Final = 256  # processes and threads that a program can start
PIDS: Final = PROCESSES + 2  # and the supervisor and the program itself
# runsc also counts the dozens of threads of its own kernel: https://gvisor.dev/docs/user_guide/faq/
PIDS_UNDER_GVISOR: Final = 2048
CPUS: Final = 1.0
CPU_SHARES: Final = 6144  # six times the default, which dockerd has, too; it starts the sandboxes of others meanwhile
OPEN_FILES: Final = 1024
AGENT_LABEL: Final = "python-exec.agent"
RUNTIME_LABEL: Final = "python-exec.runtime"
GVISOR_RUNTIME: Final = "runsc"

ENVIRONMENT: Final = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/tmp",  # noqa: S108 - in the container, where only its program writes
    "NSS_UNKNOWN_HOME": "/tmp",  # noqa: S108 - the home directory in the entry that libnss-unknown makes for the user
    # C.UTF-8 in a spelling that glibc accepts and that CPython does not treat as the C locale, for which it would let
    # stdout write unpaired surrogates instead of failing as it does in the locales that people use.
    "LANG": "C.utf-8",
    "PYTHON_CPU_COUNT": f"{math.ceil(CPUS)}",  # Python sees the host's cores otherwise
    "PYTHONPATH": "/sandbox",  # the supervisor, which removes this variable before the program starts
}

# Of the sandbox's own network namespace. The buffers of sockets belong to no cgroup v1, so they are kept small and the
# supervisor counts sockets. By default, the kernel keeps what a closed connection could not send for minutes, and the
# port of a connection for one minute, in which the next run of a batch could not listen there.
SYSCTLS: Final = {
    "net.ipv4.tcp_max_tw_buckets": "0",
    "net.ipv4.tcp_orphan_retries": "1",
    "net.ipv4.tcp_rmem": f"4096 131072 {256 * 1024}",  # least, initial and largest buffer
    "net.ipv4.tcp_wmem": f"4096 16384 {256 * 1024}",
}

# Docker's default list; /proc/pressure, where any user may install triggers on the host's load; what identifies the
# host or shows its activity and is of no use to Python; and the door to terminals, of which all containers share 3072.
MASKED_PATHS: Final = (
    *(f"/proc/{name}" for name in ("acpi", "asound", "interrupts", "kcore", "keys", "latency_stats", "pressure")),
    *(f"/proc/{name}" for name in ("sched_debug", "scsi", "timer_list", "timer_stats")),
    *(f"/proc/{name}" for name in ("cmdline", "diskstats", "kallsyms", "locks", "modules", "partitions", "schedstat")),
    *(f"/proc/{name}" for name in ("slabinfo", "softirqs", "swaps", "vmstat", "zoneinfo")),
    *("/proc/sys/kernel/random/boot_id", "/sys/firmware", "/sys/devices/virtual/powercap", "/dev/pts/ptmx"),
)

ULIMITS: Final = {
    "core": 1,  # memory images of crashed programs; with 0, the kernel still writes them to a pipe of the host
    "nofile": OPEN_FILES,  # the host's file table
    "memlock": 64 * 1024,  # memory that cannot be reclaimed
    "msgqueue": 0,  # kernel memory through /dev/mqueue
}

# Each sandbox gets its own uid. Jobs then share no per-user kernel limits (pipe buffers, pending signals, inotify),
# and a program that breaks out of its container cannot signal or trace processes of another one.
FIRST_UID: Final = 1 << 30
UID_RANGE_SIZE: Final = 1 << 30
GID: Final = 65534

_SECCOMP, _SECCOMP_UNDER_GVISOR = (
    json.dumps(seccomp.profile(is_gvisor=is_gvisor), separators=(",", ":")) for is_gvisor in (False, True)
)


def container_config(image: str, *, runtime: Runtime, agent: str, oci_runtime: str | None = None) -> dict[str, Any]:
    """Return the body of Docker's `POST /containers/create` for one sandbox.

    `agent` is the name of the agent that owns the sandbox. `oci_runtime` None selects Docker's default.
    https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Container/operation/ContainerCreate
    """
    uid = FIRST_UID + secrets.randbelow(UID_RANGE_SIZE)
    user = f"uid-{uid}"  # as libnss-unknown in the sandbox image names it
    return {
        "Image": image,
        "Cmd": ["python3", "main.py"],
        "Env": [f"{name}={value}" for name, value in (ENVIRONMENT | {"USER": user, "LOGNAME": user}).items()],
        "WorkingDir": "/tmp",  # noqa: S108 - in the container, where only its program writes
        "User": f"{uid}:{GID}",  # root in a container is root for the kernel
        "Hostname": "sandbox",
        "Labels": {AGENT_LABEL: agent, RUNTIME_LABEL: runtime.name},
        "NetworkDisabled": True,  # with NetworkMode none: an empty network namespace, and a faster start without hooks
        "OpenStdin": True,
        "StdinOnce": True,  # the supervisor notices when the agent exits or crashes
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "HostConfig": _host_config(runtime, oci_runtime),
    }


def _host_config(runtime: Runtime, oci_runtime: str | None) -> dict[str, Any]:
    is_gvisor = oci_runtime == GVISOR_RUNTIME
    return {
        "AutoRemove": True,  # an agent that crashes leaves no containers
        "Runtime": oci_runtime or "",
        "CgroupnsMode": "private",  # ids of containers in /proc/self/cgroup
        "NetworkMode": "none",  # exfiltration, scanning, the cloud's metadata service
        "ReadonlyRootfs": True,  # changes to Python itself, data on the host's disk
        "CapDrop": ["ALL"],  # privileged operations without root
        "SecurityOpt": [
            "no-new-privileges",  # setuid programs
            f"seccomp={_SECCOMP_UNDER_GVISOR if is_gvisor else _SECCOMP}",  # kernel bugs in rare system calls
        ],
        "MaskedPaths": list(MASKED_PATHS),  # the host's activity, keys and power use
        "Memory": runtime.memory_bytes,  # starving the host of memory
        "MemorySwap": runtime.memory_bytes,  # equal to Memory: no swap, which would be slow and write to disk
        "Sysctls": SYSCTLS,
        "PidsLimit": PIDS_UNDER_GVISOR if is_gvisor else PIDS,  # fork bombs
        "NanoCpus": int(CPUS * 1e9),  # starving the host, the agent and other sandboxes of CPU
        "CpuShares": CPU_SHARES,  # slowing running programs by having the host start many sandboxes
        "OomScoreAdj": 500,  # if the host runs out of memory anyway, the kernel kills sandboxes first
        "Ulimits": [
            *(_ulimit(name, limit) for name, limit in ULIMITS.items()),
            *([_ulimit("nproc", PIDS)] if is_gvisor else []),
        ],
        "IpcMode": "private",  # segments and semaphores of the host or of other sandboxes
        "ShmSize": SHARED_MEMORY_BYTES,
        "Tmpfs": {
            "/tmp": f"size={SCRATCH_BYTES},nr_inodes={SCRATCH_INODES},mode=1777,noexec,nosuid,nodev",  # noqa: S108
        },
        "LogConfig": {"Type": "none"},  # filling the host's disk; customers' output on disk
        "Init": False,  # the supervisor is PID 1
    }


def _ulimit(name: str, limit: int) -> dict[str, str | int]:
    return {"Name": name, "Soft": limit, "Hard": limit}
