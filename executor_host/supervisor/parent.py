"""Be PID 1: receive one job, and run its program once or, in a batch, several times in a process of its own each."""

import contextlib
import ctypes
import os
import signal
import sys

from .artifacts import ArtifactSearch
from .autogroup import Autogroup
from .cgroup import Cgroup, UncountedSockets
from .connection import send
from .files import JobFiles
from .program import PR_SET_DUMPABLE, StartPipes, become_program, prepare_interpreter
from .protocol import READY, frame
from .run import Run
from .scratch import Scratch
from .streams import Streams


def supervise() -> None:
    """Run one job. Return only in the processes that then are its program."""
    libc, autogroup = ctypes.CDLL(None), Autogroup()
    protect_supervisor(libc)
    run = Run(Streams(), Cgroup(), UncountedSockets(), wake_fd=wake_on_child_exit())
    scratch = Scratch(libc)
    preloaded = prepare_interpreter(libc)
    files = None
    while not run.was_last:
        run.streams.open()
        start_pipes = StartPipes()
        program = os.fork()
        if program == 0:
            become_program(libc, run.streams, start_pipes, preloaded, is_first=files is None)
            return
        run.streams.close_program_ends()
        start_pipes.wait_until_ready()
        run.cgroup.start()
        send(frame(READY, b"%d.%d" % sys.version_info[:2]))
        if files is None:
            files, search = JobFiles(), ArtifactSearch()
        search.created = files.create()
        run.execute(program, start_pipes, search)
        if not run.was_last:
            scratch.empty(*files.paths)
            autogroup.reset()
    os._exit(0)


def protect_supervisor(libc: ctypes.CDLL) -> None:
    """Take from the program, which is the same user, what it could do to PID 1."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("0")  # the least that the kernel accepts from the program too
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)  # otherwise it could ptrace PID 1 or open /proc/1/fd/1


def wake_on_child_exit() -> int:
    """Return a descriptor that becomes readable when a child exits."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # PID 1 ignores signals from its own namespace unless it handles them
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    return wake_read
