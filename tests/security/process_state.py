# ruff: noqa: E501, PTH109, PTH123, PTH208
"""Print what a program sees of its process and its sandbox, as JSON. Run in a sandbox by tests of batches.

With code on stdin, run that instead: a batch has one program, which behaves differently in each of its runs.
"""

import contextlib
import gc
import json
import os
import re
import resource
import signal
import socket
import stat
import sys
import threading
import time

CHANGING_STATUS = {"Pid", "Tgid", "PPid", "NSpid", "NStgid", "NSpgid", "NSsid", "Ngid"}  # process IDs go on
CHANGING_STATUS |= {"voluntary_ctxt_switches", "nonvoluntary_ctxt_switches", "Cpus_allowed_list"}
PORT = 4321
# sitecustomize and main.py would be imported or run if a run before had left them
WRITABLE = ("/tmp", "/dev/shm", "/dev/mqueue")


def main():
    """Run the code of stdin or print the state."""
    if code := sys.stdin.read():
        exec(code, {"__name__": "__main__", "WRITABLE": WRITABLE, "PORT": PORT})  # noqa: S102 - the purpose
    else:
        print(json.dumps(state(), sort_keys=True).replace(str(os.getuid()), "UID"))  # each sandbox has its own


def state():
    """Return everything that another run could have changed."""
    return {
        "limits": {name: resource.getrlimit(getattr(resource, name)) for name in dir(resource) if "RLIMIT" in name},
        "nice": os.nice(0),
        "scheduler": (os.sched_getscheduler(0), os.sched_getparam(0).sched_priority, sorted(os.sched_getaffinity(0))),
        "environment": dict(os.environ),
        "initial_environment": sorted(read("/proc/self/environ").split("\0")),
        "command": read("/proc/self/cmdline"),
        "status": process_status(),
        "oom_score_adj": read("/proc/self/oom_score_adj"),
        "core_dump_filter": read("/proc/self/coredump_filter"),
        "personality": read("/proc/self/personality"),
        "autogroup": re.sub(r"\d+ ", "", read("/proc/self/autogroup")),
        "umask": os.umask(0o22),
        "directory": os.getcwd(),
        "files": {directory: sorted(os.listdir(directory)) for directory in WRITABLE},
        "free": [(os.statvfs(path).f_bfree, os.statvfs(path).f_ffree) for path in ("/tmp", "/dev/shm")],
        "descriptors": descriptors(),
        "handlers": [str(signal.getsignal(number)) for number in sorted(signal.valid_signals())],
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "pending": sorted(signal.sigpending()),
        "timers": [signal.getitimer(timer) for timer in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)],
        "threads": threading.active_count(),
        "processes": sum(name.isdecimal() for name in os.listdir("/proc")),
        "leads_group_but_no_session": (os.getpgid(0) == os.getpid(), os.getsid(0) != os.getpid(), os.getppid()),
        "sockets": sockets(),
        "can_listen": can_listen(),
        "ipc": [len(read(f"/proc/sysvipc/{name}").splitlines()) for name in ("shm", "sem", "msg")],
        "modules": sorted(sys.modules),
        "path": sys.path,
        "arguments": (sys.argv, sys.orig_argv),
        "main": sorted(vars(sys.modules["__main__"])),
        "garbage_collection": (gc.isenabled(), gc.get_threshold(), gc.get_freeze_count() > 0, gc.garbage),
        "hooks": [str(hook).partition(" at ")[0] for hook in (sys.excepthook, sys.displayhook, sys.gettrace())],
        "recursion": (sys.getrecursionlimit(), sys.getswitchinterval()),
        "streams": [
            (stream.name, stream.mode, stream.encoding, stream.errors, stream.line_buffering)
            for stream in (sys.stdin, sys.stdout, sys.stderr)
        ],
    }  # fmt: skip


def read(path):
    """Return the text of a file, or the error."""
    try:
        with open(path) as file:
            return file.read()
    except OSError as error:
        return str(error)


def process_status():
    """Return the lines of /proc/self/status that are not different in each process."""
    lines = (line.split(":", 1) for line in read("/proc/self/status").splitlines() if ":" in line)
    return {
        name: value.strip() for name, value in lines if name not in CHANGING_STATUS and name[:2] not in ("Vm", "Rs")
    }


def descriptors():
    """Return kind, flags and offset of each open descriptor."""
    states = {}
    for fd in range(64):
        with contextlib.suppress(OSError):
            states[fd] = (
                stat.S_IFMT(os.fstat(fd).st_mode),
                oct(os.fstat(fd).st_mode),
                read(f"/proc/self/fdinfo/{fd}")[:30],
            )
    return states


def sockets():
    """Return the lines of the lists of sockets. The kernel frees those that only messages refer to a little later."""
    for _ in range(50):
        lines = [len(read(f"/proc/net/{name}").splitlines()) for name in ("tcp", "tcp6", "udp", "udp6", "unix")]
        if lines == [1] * len(lines):
            break
        time.sleep(0.1)
    return lines


def can_listen():
    """Return whether the port is free, which a connection that a run before has closed last could prevent."""
    with socket.socket() as server:
        try:
            server.bind(("127.0.0.1", PORT))
            server.listen()
        except OSError as error:
            return str(error)
        return True


if __name__ == "__main__":
    main()
