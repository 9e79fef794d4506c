"""Every barrier around a sandbox, each with the attack that it stops. docs/threat-model.md names the test of each."""

import json
import secrets
from collections.abc import Sequence
from typing import Any, Final

MEMORY_BYTES: Final = 256 * 1024 * 1024
SCRATCH_BYTES: Final = 64 * 1024 * 1024  # of the memory, in /tmp
SHARED_MEMORY_BYTES: Final = 16 * 1024 * 1024  # of the memory, in /dev/shm, where multiprocessing keeps its locks
SCRATCH_INODES: Final = 16 * 1024
PIDS: Final = 64
# runsc counts the threads of its own kernel too, some dozens of them: https://gvisor.dev/docs/user_guide/faq/
PIDS_UNDER_GVISOR: Final = 1024
CPUS: Final = 1.0
OPEN_FILES: Final = 1024
AGENT_LABEL: Final = "python-exec.agent"
GVISOR_RUNTIME: Final = "runsc"

ENVIRONMENT: Final = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/tmp",  # noqa: S108 - a path in the container: its own scratch
    "LANG": "C.UTF-8",
    "PYTHONUNBUFFERED": "1",  # what was printed before a timeout is kept
    "PYTHONPATH": "/sandbox",  # where the supervisor lies; it takes this away before the program starts
}

# What Docker's own list holds, and /proc/pressure: triggers on the load of the host, open to any user.
MASKED_PATHS: Final = (
    *(f"/proc/{name}" for name in ("acpi", "asound", "interrupts", "kcore", "keys", "latency_stats", "pressure")),
    *(f"/proc/{name}" for name in ("sched_debug", "scsi", "timer_list", "timer_stats")),
    *("/sys/firmware", "/sys/devices/virtual/powercap"),
)

# A uid of its own for each sandbox: the kernel's per-user accounts (pipe buffers, pending signals, inotify) are
# shared with no other job, and who breaks out of a container can signal or trace no process of another one.
FIRST_UID: Final = 1 << 30
UID_RANGE_SIZE: Final = 1 << 30
GID: Final = 65534

_ALLOWED_SYSCALLS: Final = """
    access alarm arch_prctl brk capget chdir chmod chown clock_getres clock_gettime clock_nanosleep close close_range
    copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait
    eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64 fallocate fchdir fchmod fchmodat
    fchmodat2 fchown fchownat fcntl fdatasync fgetxattr flistxattr flock fork fstat fstatfs fsync ftruncate futex
    futex_wait futex_waitv futex_wake futimesat getcpu getcwd getdents getdents64 getegid geteuid getgid getgroups
    getitimer getpgid getpgrp getpid getppid getpriority getrandom getresgid getresuid getrlimit getrusage getsid
    gettid gettimeofday getuid getxattr ioctl kill lchown lgetxattr link linkat listxattr llistxattr lseek lstat
    madvise membarrier memfd_create mincore mkdir mkdirat mknod mknodat mlock mlock2 mmap mprotect mremap msync
    munlock munmap nanosleep newfstatat open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 poll ppoll
    prctl pread64 preadv preadv2 pselect6 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv rename
    renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigreturn
    rt_sigsuspend rt_sigtimedwait sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getparam
    sched_getscheduler sched_yield select sendfile set_robust_list set_tid_address setitimer setpgid setrlimit setsid
    sigaltstack signalfd signalfd4 splice stat statfs statx symlink symlinkat sync sync_file_range sysinfo tee tgkill
    time timerfd_create timerfd_gettime timerfd_settime times tkill truncate umask uname unlink unlinkat utime
    utimensat utimes vfork wait4 waitid write writev
    accept accept4 bind connect getpeername getsockname getsockopt listen recvfrom recvmmsg recvmsg sendmmsg sendmsg
    sendto setsockopt shutdown
""".split()  # noqa: SIM905 - two hundred quotation marks would hide the words
_NEW_NAMESPACE_FLAGS: Final = 0x7E020000  # CLONE_NEW* of clone(2)
_AF_UNIX, _AF_INET, _AF_INET6 = 1, 2, 10
_ENOSYS: Final = 38
_SUPERVISOR_PID_SAFE: Final = ("prlimit64", "sched_setaffinity")  # first argument: whose


def _arg_filter(index: int, value: int, op: str = "SCMP_CMP_EQ", value_two: int = 0) -> dict[str, int | str]:
    return {"index": index, "value": value, "valueTwo": value_two, "op": op}


def _allow(*names: str, args: Sequence[dict[str, int | str]] = ()) -> dict[str, Any]:
    return {"names": list(names), "action": "SCMP_ACT_ALLOW", "args": list(args)}


def seccomp_profile() -> dict[str, Any]:
    """The system calls that a Python program needs, in Docker's format; all others answer EPERM.

    Docker's own profile also allows ptrace, io_uring, SysV IPC, message queues and every socket family; some of
    these (AF_VSOCK) leave the container without any network interface. Sockets here are local or internet ones,
    of which the container's empty network namespace leaves only its own loopback.
    """
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        # No foreign instruction set: a 32-bit system call would pass by numbers that mean something else.
        "archMap": [
            {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": []},
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": []},
        ],
        "syscalls": [
            _allow(*_ALLOWED_SYSCALLS),
            _allow("clone", args=[_arg_filter(0, _NEW_NAMESPACE_FLAGS, "SCMP_CMP_MASKED_EQ")]),
            # So that libc falls back to clone, whose flags are in a register.
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS},
            *(_allow("socket", args=[_arg_filter(0, family)]) for family in (_AF_UNIX, _AF_INET, _AF_INET6)),
            _allow("socketpair", args=[_arg_filter(0, _AF_UNIX)]),
            # The supervisor is the same user as the program, which could else set its CPU limit to nothing or
            # make it the last to run. "0" is the caller itself.
            *(_allow(name, args=[_arg_filter(0, 0)]) for name in _SUPERVISOR_PID_SAFE),
            _allow("setpriority", args=[_arg_filter(0, 0), _arg_filter(1, 0)]),
        ],
    }


_SECCOMP: Final = json.dumps(seccomp_profile(), separators=(",", ":"))


def container_config(image: str, *, agent: str, oci_runtime: str | None = None) -> dict[str, Any]:
    """The body of Docker's `POST /containers/create` for one sandbox of `agent`.

    `oci_runtime` is an OCI runtime that the engine knows, None for its default.
    https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Container/operation/ContainerCreate
    """
    uid = FIRST_UID + secrets.randbelow(UID_RANGE_SIZE)
    return {
        "Image": image,
        "Cmd": ["python3", "main.py"],
        "Env": [f"{name}={value}" for name, value in ENVIRONMENT.items()],
        "WorkingDir": "/tmp",  # noqa: S108 - a path in the container: its own scratch
        "User": f"{uid}:{GID}",  # root in a container is root to the kernel
        "Hostname": "sandbox",
        "Labels": {AGENT_LABEL: agent},
        "NetworkDisabled": True,  # with NetworkMode none: an empty network namespace, and a start without hooks
        "OpenStdin": True,
        "StdinOnce": True,  # the supervisor sees the agent's end, however it ends
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "HostConfig": {
            "AutoRemove": True,  # no orphan stays behind an agent that died
            "Runtime": oci_runtime or "",
            "NetworkMode": "none",  # exfiltration, scanning, the metadata service of the cloud
            "ReadonlyRootfs": True,  # changes to Python itself, bytes on the host's disk
            "CapDrop": ["ALL"],  # everything that root's powers without root would allow
            "SecurityOpt": ["no-new-privileges", f"seccomp={_SECCOMP}"],  # setuid programs; rare system calls
            "MaskedPaths": list(MASKED_PATHS),  # what the host is doing, its keys and its power
            "Memory": MEMORY_BYTES,  # starving the host of memory
            "MemorySwap": MEMORY_BYTES,  # equal: no swap, which would be slow, and bytes on a disk
            "PidsLimit": PIDS_UNDER_GVISOR if oci_runtime == GVISOR_RUNTIME else PIDS,  # fork bombs
            "NanoCpus": int(CPUS * 1e9),  # starving the host, the agent and other sandboxes of CPU
            "OomScoreAdj": 500,  # if the host runs out of memory all the same, a sandbox goes first
            "Ulimits": [
                _ulimit("core", 0),  # memory images of crashed programs
                _ulimit("nofile", OPEN_FILES),  # the host's file table
                _ulimit("memlock", 64 * 1024),  # memory that cannot be reclaimed
                _ulimit("msgqueue", 0),  # kernel memory through /dev/mqueue
                *([_ulimit("nproc", PIDS)] if oci_runtime == GVISOR_RUNTIME else []),
            ],
            "IpcMode": "private",  # segments and semaphores of the host or of other sandboxes
            "ShmSize": SHARED_MEMORY_BYTES,
            "Tmpfs": {
                "/tmp": f"size={SCRATCH_BYTES},nr_inodes={SCRATCH_INODES},mode=1777,noexec,nosuid,nodev",  # noqa: S108
            },
            "LogConfig": {"Type": "none"},  # floods of the host's disk; customers' output at rest
            "Init": False,  # the supervisor is PID 1
        },
    }


def _ulimit(name: str, limit: int) -> dict[str, str | int]:
    return {"Name": name, "Soft": limit, "Hard": limit}
