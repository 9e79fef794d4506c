"""Define which system calls a program may make, and with which arguments."""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, Final

_ALLOWED_SYSCALLS: Final = """
    access alarm arch_prctl brk capget chdir chmod chown clock_getres clock_gettime clock_nanosleep close close_range
    copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait
    eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fallocate fchdir fchmod fchmodat
    fchmodat2 fchown fchownat fcntl fdatasync fgetxattr flistxattr flock fork fstat fstatfs fsync ftruncate futex
    futex_wait futex_waitv futex_wake futimesat getcpu getcwd getdents getdents64 getegid geteuid getgid getgroups
    getitimer getpgid getpgrp getpid getppid getpriority getrandom getresgid getresuid getrlimit getrusage getsid
    gettid gettimeofday getuid getxattr ioctl kill lchown lgetxattr link linkat listxattr llistxattr lseek lstat
    madvise membarrier memfd_create mincore mkdir mkdirat mknod mknodat mlock mlock2 mmap mprotect mremap msync
    munlock munmap nanosleep newfstatat open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 poll ppoll
    pread64 preadv preadv2 pselect6 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv rename
    renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigreturn
    rt_sigsuspend rt_sigtimedwait sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr
    sched_getparam sched_getscheduler sched_rr_get_interval sched_yield select sendfile set_robust_list
    set_tid_address setfsgid setfsuid setgid setitimer setpgid setregid setresgid setresuid setreuid setrlimit setsid
    setuid sigaltstack signalfd signalfd4 splice stat statfs statx symlink symlinkat sync_file_range sysinfo tee
    tgkill time timerfd_create timerfd_gettime timerfd_settime times tkill truncate umask uname unlink unlinkat utime
    utimensat utimes vfork wait4 waitid write writev
    accept accept4 bind connect getpeername getsockname getsockopt listen recvfrom recvmmsg recvmsg sendmmsg sendmsg
    sendto shutdown
""".split()  # noqa: SIM905 - two hundred quotation marks would be harder to read
_NEW_NAMESPACE_FLAGS: Final = 0x7E020000  # CLONE_NEW* of clone(2)
_ENOSYS: Final = 38

_AF_UNIX, _AF_INET, _AF_INET6 = 1, 2, 10
_STREAM_OR_DGRAM, _SOCKET_TYPE_FLAGS = (1, 2), 0o2004000  # SOCK_NONBLOCK and SOCK_CLOEXEC
_IP_PROTOCOLS: Final = (0, 6, 17)  # default, TCP, UDP; a kernel may load modules for others
_OPTION_LEVELS: Final = (0, 6, 17, 41)  # IP, TCP, UDP, IPv6
_SOL_SOCKET: Final = 1
# SO_*, without the four that attach a BPF program: the kernel limits their memory for the whole host.
_SOCKET_OPTIONS: Final = (1, 2, 5, 6, 9, 10, 12, 13, 15, 16, 18, 19, 20, 21, 27, 29, 34, 35, 37, 40, 63, 64, 65, 66, 67)
_BUFFER_SIZES: Final = (7, 8)  # SO_SNDBUF, SO_RCVBUF: memory that cgroup v1 does not count
# PR_*, without PR_SET_SECCOMP, which compiles a BPF program, and PR_SET_MM.
_PRCTL_OPTIONS: Final = (1, 2, 3, 4, 7, 8, 15, 16, 21, 23, 29, 30, 36, 37, 38, 39, 40, 41, 42, 47, 52, 0x53564D41)
# POSIX_FADV_*, without DONTNEED, which would remove pages of libraries that all sandboxes share from memory.
_FILE_ADVICE: Final = (0, 1, 2, 3, 5)
_DONTNEED: Final = 4

# Calls that act on any process of the caller's user, which the supervisor runs as too.
_CALLS_ON_PID: Final = ("prlimit64", "sched_setaffinity", "sched_setattr", "sched_setparam", "sched_setscheduler")
_PRIO_PROCESS, _PRIO_PGRP = 0, 1
_PID_BITS: Final = 22  # https://man7.org/linux/man-pages/man5/proc_sys_kernel.5.html, pid_max


def _arg_filter(index: int, value: int, op: str = "SCMP_CMP_EQ", value_two: int = 0) -> dict[str, int | str]:
    return {"index": index, "value": value, "valueTwo": value_two, "op": op}


def _allow(*names: str, args: Sequence[dict[str, int | str]] = ()) -> dict[str, Any]:
    return {"names": list(names), "action": "SCMP_ACT_ALLOW", "args": list(args)}


def _ignore(*names: str, args: Sequence[dict[str, int | str]] = ()) -> dict[str, Any]:
    """Return a rule that lets a call succeed without any effect. No other rule may match the same arguments."""
    return {"names": list(names), "action": "SCMP_ACT_ERRNO", "errnoRet": 0, "args": list(args)}


def _socket_rules() -> Iterable[dict[str, Any]]:
    yield _allow("socket", args=[_arg_filter(0, _AF_UNIX)])
    yield _allow("socketpair", args=[_arg_filter(0, _AF_UNIX)])
    no_flags = ~_SOCKET_TYPE_FLAGS & 0xFFFFFFFF_FFFFFFFF
    for family, kind, protocol in itertools.product((_AF_INET, _AF_INET6), _STREAM_OR_DGRAM, _IP_PROTOCOLS):
        kind_filter = _arg_filter(1, no_flags, "SCMP_CMP_MASKED_EQ", kind)
        yield _allow("socket", args=[_arg_filter(0, family), kind_filter, _arg_filter(2, protocol)])
    for level in _OPTION_LEVELS:
        yield _allow("setsockopt", args=[_arg_filter(1, level)])
    for option in _SOCKET_OPTIONS:
        yield _allow("setsockopt", args=[_arg_filter(1, _SOL_SOCKET), _arg_filter(2, option)])
    for option in _BUFFER_SIZES:
        yield _ignore("setsockopt", args=[_arg_filter(1, _SOL_SOCKET), _arg_filter(2, option)])


def _supervisor_rules() -> Iterable[dict[str, Any]]:
    """Yield rules that let the program act on its own processes, but take nothing from the supervisor."""
    for pid in _pid_filters(0):
        yield _allow(*_CALLS_ON_PID, args=[pid])
    for which, pid in itertools.product((_PRIO_PROCESS, _PRIO_PGRP), _pid_filters(1)):
        yield _allow("setpriority", args=[_arg_filter(0, which), pid])


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


def profile() -> dict[str, Any]:
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
            *_socket_rules(),
            *_supervisor_rules(),
            *(_allow("prctl", args=[_arg_filter(0, option)]) for option in _PRCTL_OPTIONS),
            *(_allow("fadvise64", args=[_arg_filter(3, advice)]) for advice in _FILE_ADVICE),
            _ignore("fadvise64", args=[_arg_filter(3, _DONTNEED)]),
            _ignore("sync"),  # would write the dirty pages of the whole host, and cannot be killed meanwhile
        ],
    }
