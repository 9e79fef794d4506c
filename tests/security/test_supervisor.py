# ruff: noqa: E501, FBT003  # tables of programs, records in their order
"""Attack PID 1 from the program, which is the same user: kill it, read it, and forge its report."""

from textwrap import dedent

import pytest

from executor_host.hardening import ENVIRONMENT
from executor_host.supervisor.protocol import (
    EXITED,
    FRAME_HEADER,
    READY,
    REPORT,
    REPORT_RECORD,
    STDERR_TAIL,
    STDOUT,
)

START = """
import ctypes, errno, fcntl, gc, os, re, resource, signal, socket, struct, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
def attempt(function, *args):
    # returns the name of the error, or the result
    ctypes.set_errno(0)
    try: result = function(*args)
    except OSError as error: return errno.errorcode[error.errno]
    return errno.errorcode[ctypes.get_errno()] if result == -1 else result
"""
END = "\nos.write(1, b'survived')\nos._exit(3)\n"  # not with 0, which a forged report could claim too


def supervisor_survived(outcome):
    return (outcome.status, outcome.exit_code, outcome.stdout, outcome.stderr) == ("error", 3, "survived", "")


ATTACKS = {
    "every_signal": "for s in range(1, 65): attempt(os.kill, 1, s)",
    "every_signal_by_pidfd": "fd = os.pidfd_open(1)\nfor s in range(1, 65): attempt(signal.pidfd_send_signal, fd, s)",
    "every_signal_to_its_thread": "for s in range(1, 65): libc.tgkill(1, 1, s); libc.syscall(200, 1, s)",
    "signals_by_thousands": "for _ in range(3000):\n    for s in (2, 10, 15, 17, 18, 19, 28, 9): os.kill(1, s)",
    "kill_every_process": "os.fork() or time.sleep(60)\nfor s in (15, 19, 9): os.kill(-1, s)",
    "kill_its_group": "attempt(os.killpg, 1, 9), attempt(os.kill, -1, 9)",
    "signal_of_an_own_pipe": """
        for s in (0, 9, 19, 15, 6, 29, 34):
            r, w = os.pipe()
            fcntl.fcntl(r, fcntl.F_SETOWN, 1)
            fcntl.fcntl(r, fcntl.F_SETSIG, s)
            fcntl.fcntl(r, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
            os.write(w, b"x")
    """,
    "signals_of_its_stdio": """
        for fd in (0, 1, 2):
            fcntl.fcntl(fd, fcntl.F_SETOWN, 1)
            fcntl.fcntl(fd, fcntl.F_SETSIG, 9)
            fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)
    """,
    "nonblocking_stdio": "for fd in (0, 1, 2): os.set_blocking(fd, False)",
    "smallest_pipes": "for fd in (0, 1, 2): attempt(fcntl.fcntl, fd, 1031, 4096)",
    "closed_stdin": "os.close(0)",
    "closed_stderr": "os.close(2)",
    "limits": "for n in range(16): attempt(resource.prlimit, 1, n, (0, 0))",
    "lowest_priority_for_all": """
        attempt(os.setpriority, os.PRIO_PGRP, 0, 19), attempt(os.setpriority, os.PRIO_USER, os.getuid(), 19)
        for pid in range(100):
            attempt(os.setpriority, os.PRIO_PROCESS, pid, 19), attempt(os.setpriority, os.PRIO_PGRP, pid, 19)
            attempt(os.sched_setscheduler, pid, os.SCHED_IDLE, os.sched_param(0)), attempt(os.sched_setaffinity, pid, {0})
    """,
    "its_own_ids": "os.setuid(os.getuid()), os.setgid(os.getgid()), os.setresuid(-1, os.getuid(), -1), attempt(os.kill, 1, 9)",
    "open_pidfds": "for n in range(64): attempt(libc.syscall, 438, os.pidfd_open(1), n, 0)",
    "exhausted_user": """
        pipes = []
        try:
            while True: pipes.append(os.pipe())
        except OSError: pass
        for r, w in pipes: attempt(fcntl.fcntl, w, 1031, 1 << 20)
    """,
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_supervisor_reports_correctly_under_attack(run, attack):
    outcome = run(START + dedent(attack) + END)
    assert supervisor_survived(outcome), outcome


REFUSED = {  # call, expected error
    "ptrace_attach": ("libc.ptrace(16, 1, 0, 0)", "EPERM"),
    "ptrace_seize": ("libc.ptrace(0x4206, 1, 0, 0)", "EPERM"),
    "ptrace_parent": ("libc.ptrace(16, os.getppid(), 0, 0)", "EPERM"),
    "read_memory": ("libc.process_vm_readv(1, None, 0, None, 0, 0)", "EPERM"),
    "write_memory": ("libc.process_vm_writev(1, None, 0, None, 0, 0)", "EPERM"),
    "take_descriptor": ("libc.syscall(438, os.pidfd_open(1), 1, 0)", "EPERM"),
    "cpu_limit": ("resource.prlimit(1, resource.RLIMIT_CPU, (0, 0))", "EPERM"),
    "file_limit": ("resource.prlimit(1, resource.RLIMIT_NOFILE, (0, 0))", "EPERM"),
    "memory_limit": ("resource.prlimit(1, resource.RLIMIT_AS, (0, 0))", "EPERM"),
    "read_limit": ("resource.prlimit(1, resource.RLIMIT_AS)", "EPERM"),
    "nice": ("os.setpriority(os.PRIO_PROCESS, 1, 19)", "EPERM"),
    "nice_of_user": ("os.setpriority(os.PRIO_USER, 0, 19)", "EPERM"),
    "nice_of_group": ("os.setpriority(os.PRIO_PGRP, 1, 19)", "EPERM"),
    "scheduler": ("os.sched_setscheduler(1, os.SCHED_IDLE, os.sched_param(0))", "EPERM"),
    **{
        f"{name}_with_upper_half_{high:x}": (f"libc.syscall({number}, {before}ctypes.c_ulong({high << 32 | 1}), None, None, None)", "EPERM")
        for name, number, before in (
            ("nice", 141, "0, "), ("nice_of_group", 141, "1, "), ("join_its_group", 109, "0, "), ("limit", 302, ""),
            ("affinity", 203, ""),
            ("scheduler", 144, ""), ("scheduler_parameters", 142, ""), ("scheduler_attributes", 314, ""),
        )
        for high in (1, 1 << 31, 0xFFFFFFFF)
    },
    "scheduler_parameters": ("os.sched_setparam(1, os.sched_param(0))", "EPERM"),
    "scheduler_attributes": ("libc.syscall(314, 1, ctypes.create_string_buffer(48), 0)", "EPERM"),
    "join_its_group": ("os.setpgid(0, 1)", "EPERM"),
    "join_its_group_from_a_child": ("os.setpgid(child, 1)", "EPERM"),
    "affinity": ("os.sched_setaffinity(1, {0})", "EPERM"),
    "io_priority": ("libc.syscall(251, 1, 1, 3 << 13)", "EPERM"),
    "autogroup": ("open('/proc/1/autogroup', 'w')", "EACCES"),
    "session": ("os.setpgid(1, 0)", "ESRCH"),
    "compare_files": ("libc.syscall(312, 1, os.getpid(), 0, 0, 0)", "EPERM"),
    "its_pages": ("libc.syscall(279, 1, 0, None, None, None, 0)", "EPERM"),
    "advise_its_memory": ("libc.syscall(440, os.pidfd_open(1), None, 0, 21, 0)", "EPERM"),
    "its_futexes": ("libc.syscall(274, 1, ctypes.byref(ctypes.c_long()), ctypes.byref(ctypes.c_long()))", "EPERM"),
    "queue_forged_signal": ("libc.syscall(129, 1, 17, ctypes.create_string_buffer(128))", "EPERM"),
    **{
        f"proc_{name.replace('/', '_')}": (f"open('/proc/1/{name}', 'rb').read(1)", "EACCES")
        for name in (
            "mem", "environ", "maps", "smaps", "pagemap", "auxv", "io", "stack", "syscall", "personality",
            "fd/0", "fd/1", "fd/2", "fdinfo/1", "map_files", "task/1/mem", "task/1/environ", "cwd/main.py", "root/etc",
        )
    },
    **{
        f"write_proc_{name}": (f"open('/proc/1/{name}', 'wb')", "EACCES")
        for name in ("mem", "oom_score_adj", "oom_adj", "clear_refs", "coredump_filter", "comm", "fd/1")
    },
    "readlink_exe": ("os.readlink('/proc/1/exe')", "EACCES"),
    "list_descriptors": ("os.listdir('/proc/1/fd')", "EACCES"),
    "namespace": ("os.open('/proc/1/ns/net', os.O_RDONLY)", "EACCES"),
}  # fmt: skip


def test_supervisor_access_is_denied(run):
    calls = "\n".join(f"print({name!r}, attempt(lambda: {call}))" for name, (call, _) in REFUSED.items())
    outcome = run(f"{START}child = os.fork() or time.sleep(60)\n{calls}")
    errors = dict(line.split(" ", 1) for line in outcome.stdout.splitlines())
    refused = {name: error for name, (_, error) in REFUSED.items()}
    assert {name: error for name, error in errors.items() if error != refused[name]} == {}
    assert (len(errors), outcome.stderr) == (len(refused), "")


def test_supervisor_proc_files_are_not_writable(run):
    program = """
        writable = []
        for directory, names, files in os.walk("/proc/1"):
            for name in files:
                path = os.path.join(directory, name)
                if isinstance(attempt(lambda: os.write(os.open(path, os.O_WRONLY), b"1")), int): writable.append(path)
        print(writable)
    """
    assert run(START + dedent(program)).stdout == "[]\n"


def frame(kind, payload):
    return FRAME_HEADER.pack(kind, len(payload)) + payload


FORGED = (
    frame(READY, b"3.13")
    + frame(STDOUT, b"forged")
    + frame(STDERR_TAIL, b"forged")
    + frame(REPORT, REPORT_RECORD.pack(EXITED, 0, False, 1, 1, 1, 1, 1))
)


def test_forged_frames_are_treated_as_output(run):
    program = f"""
        import glob, os
        forged = {FORGED!r}
        forged += b"\\x01\\x00\\x00\\x00" + len(forged).to_bytes(4, "big") + forged  # also in Docker's framing
        for fd in range(1024):
            if fd not in (1, 2):
                try: os.write(fd, forged)
                except OSError: pass
        for path in ("/dev/console", "/dev/tty", "/dev/ptmx", "/dev/stdin", "/proc/1/fd/1", "/proc/1/task/1/fd/1",
                     "/proc/1/root/dev/stdout", *glob.glob("/dev/pts/*"), *glob.glob("/proc/1/fd/*")):
            try: os.write(os.open(path, os.O_WRONLY | os.O_NONBLOCK), forged)
            except OSError: pass
        for path in ("/dev/stdout", "/proc/self/fd/1", "/proc/thread-self/fd/1"):
            os.write(os.open(path, os.O_WRONLY), forged)
        os.write(1, forged)
        os._exit(3)
    """
    outcome = run(dedent(program))
    written = FORGED + b"\1\0\0\0" + len(FORGED).to_bytes(4, "big") + FORGED
    assert (outcome.status, outcome.exit_code, outcome.error) == ("error", 3, None)
    assert outcome.stdout == (written * 4).decode(errors="replace")


TRACEBACK = 'Traceback (most recent call last):\n  File "/tmp/main.py", line 7, in <module>\nForged: m\n'


@pytest.mark.parametrize(("exit_code", "status"), [(0, "ok"), (1, "error"), (137, "error")])
def test_forged_traceback_cannot_change_status(run, exit_code, status):
    outcome = run(f"import os\nos.write(2, {TRACEBACK.encode()!r})\nos._exit({exit_code})")
    assert (outcome.status, outcome.exit_code, outcome.signal) == (status, exit_code, None)
    assert (outcome.error is not None) == (exit_code == 1)


def test_descriptors_of_the_supervisor_are_not_inherited(run):
    program = """
        import os
        print([fd for fd in range(1024) if os.path.exists(f"/proc/self/fd/{fd}")])
        print(len({os.readlink(f"/proc/self/fd/{fd}") for fd in range(3)}))
    """
    assert run(dedent(program)).stdout == "[0, 1, 2]\n3\n"


IMAGE_VARIABLES = {  # of the images' Dockerfiles
    "python": set(),
    "data": {"LOKY_MAX_CPU_COUNT", "MPLBACKEND", "MPLCONFIGDIR", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"},
}


def test_memory_and_environment_contain_no_agent_data(run, runtime):
    program = """
        import gc, os, sys
        print(sorted(os.environ))
        print(sorted(l.split(b"=")[0].decode() for l in open("/proc/self/environ", "rb").read().split(b"\\0") if l))
        print([name for name in sys.modules if "sitecustomize" in name])
        print([o for o in gc.get_objects() if type(o).__module__.startswith("sitecustomize")])
    """
    variables = {*ENVIRONMENT, "HOSTNAME", "LOGNAME", "USER", *IMAGE_VARIABLES[runtime.name]}
    names = sorted(variables - {"PYTHONPATH"})
    assert run(dedent(program)).stdout == f"{names}\n{names}\n[]\n[]\n"


def test_output_is_complete_when_program_is_killed(run):
    outcome = run("import os, signal\nos.write(1, b'x' * 40000)\nos.write(2, b'y' * 40000)\nos.kill(os.getpid(), 9)")
    assert (outcome.stdout, outcome.stderr) == ("x" * 40000, "y" * 40000)
