"""Define which system calls a program may make, and with which arguments."""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, Final

_ALLOWED_SYSCALLS: Final = """
    access alarm arch_prctl brk capget chdir chmod chown clock_getres clock_gettime clock_nanosleep close close_range
    copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait
    eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fallocate fchdir fchmod fchmodat
    fchmodat2 fchown fchownat fgetxattr flistxattr flock fork fstat fstatfs ftruncate futex
    futex_wait futex_waitv futex_wake futimesat getcpu getcwd getdents getdents64 getegid geteuid getgid getgroups
    getitimer getpgid getpgrp getpid getppid getpriority getrandom getresgid getresuid getrlimit getrusage getsid
    gettid gettimeofday getuid getxattr ioctl kill lchown lgetxattr link linkat listxattr llistxattr lseek lstat
    madvise membarrier mincore mkdir mkdirat mknod mknodat mlock mlock2 mprotect mremap
    munlock munmap nanosleep newfstatat pause pidfd_open pidfd_send_signal pipe pipe2 poll ppoll
    pread64 preadv preadv2 pselect6 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv rename
    renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigreturn
    rt_sigsuspend rt_sigtimedwait sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr
    sched_getparam sched_getscheduler sched_rr_get_interval sched_yield select sendfile set_robust_list
    set_tid_address setfsgid setfsuid setgid setitimer setregid setresgid setresuid setreuid setsid
    setuid sigaltstack signalfd signalfd4 splice stat statfs statx symlink symlinkat sysinfo tee
    tgkill time timerfd_create timerfd_gettime timerfd_settime times tkill truncate umask uname unlink unlinkat utime
    utimensat utimes vfork wait4 waitid write writev
    accept accept4 bind connect getpeername getsockname getsockopt listen recvfrom recvmmsg recvmsg sendmmsg sendmsg
    sendto shutdown
""".split()  # noqa: SIM905 - two hundred quotation marks would be harder to read
_NEW_NAMESPACE_FLAGS: Final = 0x7E020000  # CLONE_NEW* of clone(2)

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

# O_DIRECT reads from the host's disk what is in memory. Its value depends on the architecture.
_O_DIRECT: Final = {"amd64": 0o40000, "arm64": 0o200000}
_F_SETFL, _FCNTL_BITS = 4, 11
_MAP_HUGETLB, _MFD_HUGETLB = 0x40000, 4  # pages that the host has reserved for others
_RLIMIT_CORE, _RLIMIT_BITS = 4, 4
# Of these limits, a program may also set its own by its process ID: CPU, FSIZE, DATA, STACK, MEMLOCK, AS, SIGPENDING.
_LIMITS_BY_PID: Final = 0b1011

# Calls that act on any process of the caller's user, which the supervisor runs as too.
_CALLS_ON_PID: Final = ("sched_setaffinity", "sched_setscheduler")
# Rarer ones, with a process only as 0, the caller: gVisor needs 12 instructions for each filter, of 4,096 in all.
_CALLS_ON_ITSELF: Final = ("sched_setattr", "sched_setparam")
_PRIO_PROCESS, _PRIO_PGRP = 0, 1
_PID_BITS: Final = 13  # of process IDs in a sandbox, unless it forks more often
_UPPER_HALF: Final = 0xFFFFFFFF << 32  # of a register; where the kernel ignores it, it must be empty


def _arg_filter(index: int, value: int, op: str = "SCMP_CMP_EQ", value_two: int = 0) -> dict[str, int | str]:
    return {"index": index, "value": value, "valueTwo": value_two, "op": op}


def _allow(*names: str, args: Sequence[dict[str, int | str]] = ()) -> dict[str, Any]:
    return {"names": list(names), "action": "SCMP_ACT_ALLOW", "args": list(args)}


def _ignore(*names: str, args: Sequence[dict[str, int | str]] = ()) -> dict[str, Any]:
    """Return a rule that lets a call succeed without any effect. No other rule may match the same arguments.

    gVisor knows no number but EPERM, so there the call has its effect, mostly on gVisor's own kernel.
    """
    return {"names": list(names), "action": "SCMP_ACT_ERRNO", "errnoRet": 0, "args": list(args)}


def _socket_rules() -> Iterable[dict[str, Any]]:
    yield _allow("socket", args=[_arg_filter(0, _AF_UNIX)])
    yield _allow("socketpair", args=[_arg_filter(0, _AF_UNIX)])
    no_flags = ~_SOCKET_TYPE_FLAGS & 0xFFFFFFFF_FFFFFFFF
    families, protocols = _any_of(0, (_AF_INET, _AF_INET6)), _any_of(2, _IP_PROTOCOLS)
    for family, kind, protocol in itertools.product(families, _STREAM_OR_DGRAM, protocols):
        yield _allow("socket", args=[family, _arg_filter(1, no_flags, "SCMP_CMP_MASKED_EQ", kind), protocol])
    for level in _any_of(1, _OPTION_LEVELS):
        yield _allow("setsockopt", args=[level])
    for option in _any_of(2, _SOCKET_OPTIONS):
        yield _allow("setsockopt", args=[_arg_filter(1, _SOL_SOCKET), option])
    for option in _any_of(2, _BUFFER_SIZES):
        yield _ignore("setsockopt", args=[_arg_filter(1, _SOL_SOCKET), option])


def _file_rules() -> Iterable[dict[str, Any]]:
    """Yield rules that keep the program away from the host's disk and from memory that the host has reserved."""
    for command in _filters_of_others_than(_F_SETFL, index=1, bits=_FCNTL_BITS):
        yield _allow("fcntl", args=[command])
    for architecture, o_direct in _O_DIRECT.items():
        only_here = {"includes": {"arches": [architecture]}}
        yield _allow("open", args=[_without_flag(1, o_direct)]) | only_here
        yield _allow("openat", args=[_without_flag(2, o_direct)]) | only_here
        yield _allow("fcntl", args=[_arg_filter(1, _F_SETFL), _without_flag(2, o_direct)]) | only_here
    yield _allow("mmap", args=[_without_flag(3, _MAP_HUGETLB)])
    yield _allow("memfd_create", args=[_without_flag(1, _MFD_HUGETLB)])
    for advice in _any_of(3, _FILE_ADVICE):
        yield _allow("fadvise64", args=[advice])
    yield _ignore("fadvise64", args=[_arg_filter(3, _DONTNEED)])
    # The program's own files are in memory. Others are on the host's disk, whose caches the first three would flush;
    # sync would also write the dirty pages of the whole host, and cannot be killed meanwhile.
    yield _ignore("fsync", "fdatasync", "msync", "sync")


def _limit_rules() -> Iterable[dict[str, Any]]:
    """Yield rules for every limit but RLIMIT_CORE, which stays as it is while the program believes to have set it.

    Only the value 1 keeps the kernel from piping the memory of a crashed program to one that runs as root on the host:
    https://man7.org/linux/man-pages/man5/core.5.html
    """
    for limit in _filters_of_others_than(_RLIMIT_CORE, index=0, bits=_RLIMIT_BITS):
        yield _allow("setrlimit", args=[limit])
    yield _ignore("setrlimit", args=[_arg_filter(0, _RLIMIT_CORE)])
    itself, core = _arg_filter(0, 0), _arg_filter(1, _RLIMIT_CORE)
    no_new_limit, a_new_limit, no_old_limit = _arg_filter(2, 0), _arg_filter(2, 0, "SCMP_CMP_NE"), _arg_filter(3, 0)
    for limit in _filters_of_others_than(_RLIMIT_CORE, index=1, bits=_RLIMIT_BITS):
        yield _allow("prlimit64", args=[itself, limit])
    yield _allow("prlimit64", args=[itself, core, no_new_limit])
    yield _ignore("prlimit64", args=[itself, core, a_new_limit, no_old_limit])
    limits_by_pid = _without_flag(1, ~_LIMITS_BY_PID & 0xFFFFFFFF_FFFFFFFF)
    for pid in _pid_filters(0):
        yield _allow("prlimit64", args=[pid, limits_by_pid])


def _supervisor_rules() -> Iterable[dict[str, Any]]:
    """Yield rules that let the program act on its own processes, but take nothing from the supervisor."""
    yield _allow(*_CALLS_ON_PID, *_CALLS_ON_ITSELF, args=[_arg_filter(0, 0)])
    for pid in _pid_filters(0):
        yield _allow(*_CALLS_ON_PID, args=[pid])
    for pid in (_arg_filter(1, 0), *_pid_filters(1)):
        yield _allow("setpriority", args=[_arg_filter(0, _PRIO_PROCESS), pid])
    yield _allow("setpriority", args=[_arg_filter(0, _PRIO_PGRP), _arg_filter(1, 0)])
    for group in (_arg_filter(1, 0), *_pid_filters(1)):  # not that of the supervisor, whose session the program is in
        yield _allow("setpgid", args=[group])


def _any_of(index: int, values: Iterable[int]) -> list[dict[str, int | str]]:
    """Return filters that together match exactly these numbers, one for all that differ only in the same bits.

    Each filter takes CPU time at the start of every sandbox.
    """
    groups = {(value, 0) for value in values}  # the bits that all have in common, and those in which they differ
    pairs = itertools.combinations(sorted(groups), 2)
    while pair := next(((a, b) for a, b in pairs if a[1] == b[1] and (a[0] ^ b[0]).bit_count() == 1), None):
        (low, differing), (high, _) = pair
        groups = groups - set(pair) | {(low & high, differing | low ^ high)}
        pairs = itertools.combinations(sorted(groups), 2)
    return [
        _arg_filter(index, ~differing & 0xFFFFFFFF_FFFFFFFF, "SCMP_CMP_MASKED_EQ", value)
        for value, differing in sorted(groups)
    ]


def _pid_filters(index: int) -> list[dict[str, int | str]]:
    """Return filters that together match every process ID but 1, the supervisor's, and 0, the caller itself."""
    return _filters_of_others_than(1, index=index, bits=_PID_BITS)[1:]


def _filters_of_others_than(value: int, *, index: int, bits: int) -> list[dict[str, int | str]]:
    """Return filters that together match every number of this many bits but `value`, which is a power of two.

    A comparison is not enough: the kernel ignores the upper half of the register, which seccomp compares too. So one
    filter matches 0, and one per other bit matches the numbers that have this bit. Both ask for an empty upper half.
    """
    others = [1 << bit for bit in range(bits) if 1 << bit != value]
    return [
        _arg_filter(index, 0),
        *(_arg_filter(index, _UPPER_HALF | other, "SCMP_CMP_MASKED_EQ", other) for other in others),
    ]


def _without_flag(index: int, flag: int) -> dict[str, int | str]:
    return _arg_filter(index, flag, "SCMP_CMP_MASKED_EQ", 0)


def profile(*, is_gvisor: bool = False) -> dict[str, Any]:
    """Return an allowlist of the system calls that Python programs need, in Docker's format. Others fail with EPERM.

    Docker's own profile also allows ptrace, io_uring, SysV IPC, message queues and every socket family; some families
    (AF_VSOCK) leave the container without a network interface. Allowed here are Unix and internet sockets; the
    container's empty network namespace limits the latter to its own loopback.
    """
    rules = [
        _allow(*_ALLOWED_SYSCALLS),
        _allow("clone", args=[_arg_filter(0, _NEW_NAMESPACE_FLAGS, "SCMP_CMP_MASKED_EQ")]),
        # Without a tracer, the call fails with ENOSYS, and libc falls back to clone, whose flags seccomp can inspect.
        {"names": ["clone3"], "action": "SCMP_ACT_TRACE"},
        *_socket_rules(),
        *_file_rules(),
        *_limit_rules(),
        *_supervisor_rules(),
        *(_allow("prctl", args=[option]) for option in _any_of(0, _PRCTL_OPTIONS)),
    ]
    if is_gvisor:
        rules = [_allow(*rule["names"], args=rule["args"]) if "errnoRet" in rule else rule for rule in rules]
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        # Native instruction sets only: the numbers of 32-bit system calls mean different calls.
        "archMap": [
            {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": []},
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": []},
        ],
        "syscalls": rules,
    }
