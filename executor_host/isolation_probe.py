"""Print what a program sees of its sandbox, as JSON, and leave a process behind that the supervisor must kill.

isolation_check.py runs this file as the program of a sandbox, with the names and numbers to try as its input.
"""

import contextlib
import ctypes
import errno
import json
import mmap
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CLONE_NEWUSER = 0x10000000  # unshare(2)
# io_uring_setup and keyctl, which glibc does not wrap, by machine
SYSCALL_NUMBERS = {"x86_64": (425, 250), "aarch64": (425, 219)}
AF_NETLINK, AF_VSOCK = 16, 40
DENIALS = (errno.EPERM, errno.ENOSYS, errno.EAFNOSUPPORT)
TMPFS_LIMITS = ("size=", "nr_inodes=")
CHUNK_BYTES = 1024 * 1024
FLUSH_S = 0.3  # after which the agent has the output even if the whole sandbox dies
CPU_MEASUREMENT_S = 0.25  # at most 1.2 times the limit if the measurement begins and ends within periods of 0.1 s
CGROUP_FILES = (
    "memory.max", "memory.swap.max", "pids.max", "cpu.max",  # version 2
    "memory/memory.limit_in_bytes", "memory/memory.memsw.limit_in_bytes", "pids/pids.max", "cpu/cpu.cfs_quota_us",
    "cpu/cpu.cfs_period_us",
)  # fmt: skip
OOM_COUNTERS = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")
ENGINE_SOCKETS = tuple(
    f"{directory}/{name}"
    for directory in ("/run", "/var/run")
    for name in ("docker.sock", "containerd/containerd.sock")
)


def main() -> None:
    """Print the report."""
    tasks = json.loads(sys.stdin.read())
    interfaces = [line.partition(":")[0].strip() for line in read("/proc/net/dev").splitlines()[2:]]
    oom_kills_before = oom_kills()
    report = {
        "uids": os.getresuid(),
        "gids": os.getresgid(),
        "groups": os.getgroups(),
        "status": process_status(),
        "allowed_calls": allowed_calls(),
        "mounts": mounts(),
        "sockets": [path for path in ENGINE_SOCKETS if os.path.lexists(path)],
        "unmasked": [path for path in tasks["masked_paths"] if has_content(path)],
        "interfaces": interfaces,
        # With another interface, the answer would take time and change nothing.
        "resolved": interfaces == ["lo"] and resolves("amazonaws.com"),
        "sysctls": {name: read("/proc/sys/" + name.replace(".", "/")).split() for name in tasks["sysctls"]},
        "ulimits": {name: resource.getrlimit(getattr(resource, f"RLIMIT_{name.upper()}")) for name in tasks["ulimits"]},
        "cgroup": {name: text for name in CGROUP_FILES if (text := read(f"/sys/fs/cgroup/{name}").strip())},
        "swap": swap_bytes(),
        "signal": signal_child(),
        "cpus": measure_cpus(tasks["spinners"]),
        "processes": count_processes(tasks["processes"]),
        "allocation": "" if tasks["allocate_last"] else allocate(tasks["memory_bytes"]),
        "oom_kills": oom_kills() - oom_kills_before,
    }
    sys.stdout.write(json.dumps(report))
    sys.stdout.flush()
    if tasks["allocate_last"]:
        time.sleep(FLUSH_S)
        allocate(tasks["memory_bytes"])
    fork(signal.pause)  # the supervisor reports only once it has killed this process, as it does after a timeout


def read(path: str) -> str:
    """Return the text of a file, or nothing if it cannot be read."""
    with contextlib.suppress(OSError, ValueError):
        return Path(path).read_text()
    return ""


def process_status() -> dict[str, str]:
    """Return the lines of /proc/self/status about privileges."""
    lines = (line.partition(":") for line in read("/proc/self/status").splitlines())
    return {name: text.strip() for name, _, text in lines if name.startswith(("Cap", "NoNewPrivs", "Seccomp"))}


def allowed_calls() -> list[str]:
    """Return which of some calls that no program needs are not denied. They have no effect."""
    libc = ctypes.CDLL(None, use_errno=True)
    io_uring_setup, keyctl = SYSCALL_NUMBERS[os.uname().machine]
    calls: dict[str, Callable[[], Any]] = {
        "io_uring_setup": lambda: libc.syscall(io_uring_setup, 0, None),
        "keyctl": lambda: libc.syscall(keyctl, 0, -3, 0),
        "netlink": lambda: socket.socket(AF_NETLINK, socket.SOCK_RAW),
        "vsock": lambda: socket.socket(AF_VSOCK, socket.SOCK_STREAM),
        "unshare": lambda: libc.unshare(CLONE_NEWUSER),
    }
    return [name for name, call in calls.items() if not is_denied(call)]


def is_denied(call: Callable[[], Any]) -> bool:
    """Return whether a system call fails as the seccomp profile makes it fail."""
    ctypes.set_errno(0)
    try:
        failed = call() == -1
    except OSError as error:
        return error.errno in DENIALS
    return failed and ctypes.get_errno() in DENIALS


def mounts() -> list[dict[str, Any]]:
    """Return every mount: where, its type, its options with those of the file system, and if it can be written to."""
    # https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html
    lines = [line.partition(" - ") for line in read("/proc/self/mountinfo").splitlines()]
    return [
        {
            "path": mount.split()[4],
            "type": file_system.split()[0],
            "options": mount.split()[5].split(","),
            "limits": [limit for limit in file_system.split()[-1].split(",") if limit.startswith(TMPFS_LIMITS)],
            "is_writable": os.access(mount.split()[4], os.W_OK),
        }
        for mount, _, file_system in lines
    ]


def has_content(path: str) -> bool:
    """Return whether a masked path exists and shows anything."""
    with contextlib.suppress(OSError):
        if Path(path).is_dir():
            return any(Path(path).iterdir())
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            return bool(os.read(fd, 1))
        finally:
            os.close(fd)
    return False


def resolves(name: str) -> bool:
    """Return whether a host name has an address."""
    try:
        return bool(socket.getaddrinfo(name, 80))
    except OSError:
        return False


def swap_bytes() -> int:
    """Return how much swap the host has."""
    (line,) = [line for line in read("/proc/meminfo").splitlines() if line.startswith("SwapTotal:")]
    return int(line.split()[1]) * 1024


def oom_kills() -> int:
    """Return how many processes the kernel has killed for lack of memory."""
    lines = [line.split() for path in OOM_COUNTERS for line in read(path).splitlines()]
    return sum(int(value) for key, value in lines if key == "oom_kill")


def fork(child: Callable[[], None]) -> int:
    """Run a function in a child, which then exits. Return the process ID."""
    pid = os.fork()
    if pid == 0:
        try:
            child()
        finally:
            os._exit(0)
    return pid


def signal_child() -> str:
    """Return how sending a signal to a child ends."""
    pid = fork(signal.pause)
    try:
        os.kill(pid, signal.SIGTERM)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, "unknown error")
    return "killed" if os.WIFSIGNALED(os.waitpid(pid, 0)[1]) else "ignored"


def measure_cpus(spinners: int) -> float:
    """Return how many CPUs some processes together use if each could use one."""
    started_at = time.monotonic()

    def spin() -> None:
        while time.monotonic() < started_at + CPU_MEASUREMENT_S:
            pass

    pids = [fork(spin) for _ in range(spinners)]
    cpu_s = sum(sum(os.wait4(pid, 0)[2][:2]) for pid in pids)
    return cpu_s / (time.monotonic() - started_at)


def count_processes(attempts: int) -> int:
    """Return how many processes can exist at once, if that is less than `attempts`.

    The kernel counts threads as processes, and they take far less time and memory than forks of a large process.
    """
    may_end = threading.Event()
    threads: list[threading.Thread] = []
    with contextlib.suppress(RuntimeError):
        while len(threads) < attempts:
            thread = threading.Thread(target=may_end.wait)
            thread.start()
            threads.append(thread)
    may_end.set()
    for thread in threads:
        thread.join()
    return len(threads)


def allocate(size: int) -> str:
    """Return how a child ends that uses memory of this size."""

    def write_to_every_page() -> None:
        with mmap.mmap(-1, size) as memory:
            for _ in range(size // CHUNK_BYTES):
                memory.write(bytes(CHUNK_BYTES))

    wait_status = os.waitpid(fork(write_to_every_page), 0)[1]
    return "killed" if os.WIFSIGNALED(wait_status) else "allocated"


if __name__ == "__main__":
    main()
