"""Define every barrier around a sandbox and the attack it stops. docs/threat-model.md names the test of each."""

import json
import math
import secrets
from collections.abc import Sequence
from typing import Any, Final

MEMORY_BYTES: Final = 256 * 1024 * 1024
SCRATCH_BYTES: Final = 64 * 1024 * 1024  # part of the memory, in /tmp
SHARED_MEMORY_BYTES: Final = 16 * 1024 * 1024  # part of the memory, in /dev/shm; multiprocessing keeps its locks there
SCRATCH_INODES: Final = 16 * 1024
PROCESSES: Final = 256  # processes and threads that a program can start
PIDS: Final = PROCESSES + 2  # and the supervisor and the program itself
# runsc also counts the dozens of threads of its own kernel: https://gvisor.dev/docs/user_guide/faq/
PIDS_UNDER_GVISOR: Final = 2048
CPUS: Final = 1.0
OPEN_FILES: Final = 1024
AGENT_LABEL: Final = "python-exec.agent"
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

# Docker's default list, plus /proc/pressure: any user may install triggers on the host's load there.
MASKED_PATHS: Final = (
    *(f"/proc/{name}" for name in ("acpi", "asound", "interrupts", "kcore", "keys", "latency_stats", "pressure")),
    *(f"/proc/{name}" for name in ("sched_debug", "scsi", "timer_list", "timer_stats")),
    *("/sys/firmware", "/sys/devices/virtual/powercap"),
)

# Each sandbox gets its own uid. Jobs then share no per-user kernel limits (pipe buffers, pending signals, inotify),
# and a program that breaks out of its container cannot signal or trace processes of another one.
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
    rt_sigsuspend rt_sigtimedwait sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr
    sched_getparam sched_getscheduler sched_rr_get_interval sched_yield select sendfile set_robust_list
    set_tid_address setfsgid setfsuid setgid setitimer setpgid setregid setresgid setresuid setreuid setrlimit setsid
    setuid sigaltstack signalfd signalfd4 splice stat statfs statx symlink symlinkat sync sync_file_range sysinfo tee
    tgkill time timerfd_create timerfd_gettime timerfd_settime times tkill truncate umask uname unlink unlinkat utime
    utimensat utimes vfork wait4 waitid write writev
    accept accept4 bind connect getpeername getsockname getsockopt listen recvfrom recvmmsg recvmsg sendmmsg sendmsg
    sendto setsockopt shutdown
""".split()  # noqa: SIM905 - two hundred quotation marks would be harder to read
_NEW_NAMESPACE_FLAGS: Final = 0x7E020000  # CLONE_NEW* of clone(2)
_AF_UNIX, _AF_INET, _AF_INET6 = 1, 2, 10
_ENOSYS: Final = 38
# Calls that act on any process of the caller's user, which the supervisor runs as too.
_CALLS_ON_PID: Final = ("prlimit64", "sched_setaffinity", "sched_setattr", "sched_setparam", "sched_setscheduler")
_PRIO_PROCESS, _PRIO_PGRP = 0, 1
_PID_BITS: Final = 22  # https://man7.org/linux/man-pages/man5/proc_sys_kernel.5.html, pid_max


def _arg_filter(index: int, value: int, op: str = "SCMP_CMP_EQ", value_two: int = 0) -> dict[str, int | str]:
    return {"index": index, "value": value, "valueTwo": value_two, "op": op}


def _allow(*names: str, args: Sequence[dict[str, int | str]] = ()) -> dict[str, Any]:
    return {"names": list(names), "action": "SCMP_ACT_ALLOW", "args": list(args)}


def _pid_filters(index: int) -> list[dict[str, int | str]]:
    """Return filters that together match 0, the caller itself, and every process ID but 1, the supervisor's.

    A comparison with 1 is not enough: the kernel ignores the upper half of the register, which seccomp compares too.
    So one filter per bit matches the IDs that have this bit, and an empty upper half.
    """
    upper_half = 0xFFFFFFFF << 32
    any_of_bits = (
        _arg_filter(index, upper_half | 1 << bit, "SCMP_CMP_MASKED_EQ", 1 << bit) for bit in range(1, _PID_BITS)
    )
    return [_arg_filter(index, 0), *any_of_bits]


def seccomp_profile() -> dict[str, Any]:
    """Return an allowlist of the system calls that Python programs need, in Docker's format. Others fail with EPERM.

    Docker's own profile also allows ptrace, io_uring, SysV IPC, message queues and every socket family; some families
    (AF_VSOCK) leave the container without a network interface. Allowed here are Unix and internet sockets; the
    container's empty network namespace limits the latter to its own loopback.
    """
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        # Native instruction sets only: the numbers of 32-bit system calls mean different calls.
        "archMap": [
            {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": []},
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": []},
        ],
        "syscalls": [
            _allow(*_ALLOWED_SYSCALLS),
            _allow("clone", args=[_arg_filter(0, _NEW_NAMESPACE_FLAGS, "SCMP_CMP_MASKED_EQ")]),
            # ENOSYS makes libc fall back to clone, whose flags seccomp can inspect.
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS},
            *(_allow("socket", args=[_arg_filter(0, family)]) for family in (_AF_UNIX, _AF_INET, _AF_INET6)),
            _allow("socketpair", args=[_arg_filter(0, _AF_UNIX)]),
            # The program must not take CPU time, priority or limits from the supervisor.
            *(_allow(*_CALLS_ON_PID, args=[pid]) for pid in _pid_filters(0)),
            *(
                _allow("setpriority", args=[_arg_filter(0, which), pid])
                for which in (_PRIO_PROCESS, _PRIO_PGRP)
                for pid in _pid_filters(1)
            ),
        ],
    }


_SECCOMP: Final = json.dumps(seccomp_profile(), separators=(",", ":"))


def container_config(image: str, *, agent: str, oci_runtime: str | None = None) -> dict[str, Any]:
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
        "Labels": {AGENT_LABEL: agent},
        "NetworkDisabled": True,  # with NetworkMode none: an empty network namespace, and a faster start without hooks
        "OpenStdin": True,
        "StdinOnce": True,  # the supervisor notices when the agent exits or crashes
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "HostConfig": _host_config(oci_runtime),
    }


def _host_config(oci_runtime: str | None) -> dict[str, Any]:
    is_gvisor = oci_runtime == GVISOR_RUNTIME
    return {
        "AutoRemove": True,  # an agent that crashes leaves no containers
        "Runtime": oci_runtime or "",
        "NetworkMode": "none",  # exfiltration, scanning, the cloud's metadata service
        "ReadonlyRootfs": True,  # changes to Python itself, data on the host's disk
        "CapDrop": ["ALL"],  # privileged operations without root
        "SecurityOpt": [
            "no-new-privileges",  # setuid programs
            f"seccomp={_SECCOMP}",  # kernel bugs in rare system calls
        ],
        "MaskedPaths": list(MASKED_PATHS),  # the host's activity, keys and power use
        "Memory": MEMORY_BYTES,  # starving the host of memory
        "MemorySwap": MEMORY_BYTES,  # equal to Memory: no swap, which would be slow and write to disk
        "PidsLimit": PIDS_UNDER_GVISOR if is_gvisor else PIDS,  # fork bombs
        "NanoCpus": int(CPUS * 1e9),  # starving the host, the agent and other sandboxes of CPU
        "OomScoreAdj": 500,  # if the host runs out of memory anyway, the kernel kills sandboxes first
        "Ulimits": [
            _ulimit("core", 0),  # memory images of crashed programs
            _ulimit("nofile", OPEN_FILES),  # the host's file table
            _ulimit("memlock", 64 * 1024),  # memory that cannot be reclaimed
            _ulimit("msgqueue", 0),  # kernel memory through /dev/mqueue
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
