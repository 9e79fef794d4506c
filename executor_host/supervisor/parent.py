"""Be PID 1: receive one job, watch the program, and report how it ended."""

import contextlib
import ctypes
import math
import os
import select
import signal
import sys
import time

from .cgroup import Cgroup, UncountedSockets
from .program import MAIN, PR_SET_DUMPABLE, StartPipes, prepare_program_process
from .protocol import (
    EXITED,
    JOB_HEADER,
    OUTPUT_LIMIT_EXCEEDED,
    READY,
    REPORT,
    REPORT_RECORD,
    SIGNALLED,
    TIMED_OUT,
    frame,
)
from .streams import READ_BYTES, Streams

# How long to let output collect in a pipe. Otherwise each line that the program writes would wake PID 1, which shares
# the program's CPU time.
PAUSE_S = 0.002


def supervise() -> None:
    """Run one job. Return only in the process that then is the program."""
    libc = ctypes.CDLL(None)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("0")  # the least that the kernel accepts from the program too
    # Otherwise the program, which is the same user, could ptrace PID 1 or open /proc/1/fd/1.
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    streams, start_pipes = Streams(), StartPipes()
    session_leader = os.fork()
    if session_leader == 0:
        prepare_program_process(libc, streams, start_pipes)
        return
    wake_fd = wake_on_child_exit()
    cgroup, sockets = Cgroup(), UncountedSockets()
    for fd in streams.program_ends:
        os.close(fd)
    program = start_pipes.wait_until_ready()
    os.waitpid(session_leader, 0)
    cgroup.start()
    send(frame(READY, b"%d.%d" % sys.version_info[:2]))

    timeout_s, *limits, code_bytes, input_bytes, args_bytes = JOB_HEADER.unpack(receive(JOB_HEADER.size))
    with open(MAIN, "wb") as file:
        file.write(receive(code_bytes))
    streams.start(receive(input_bytes), *limits)
    args = receive(args_bytes)
    started_at = time.monotonic()
    cgroup.report_from(started_at)
    sockets.watch_from(started_at)
    with contextlib.suppress(BrokenPipeError):  # the kernel may have killed the program's process
        start_pipes.start_program(args)
    wait_status = watch(program, streams, cgroup, sockets, wake_fd=wake_fd, deadline=started_at + timeout_s)
    duration_s = time.monotonic() - started_at
    kill_all()
    streams.drain()
    exit_kind, exit_value = verdict(wait_status, is_over_limit=streams.is_over_limit())
    report = REPORT_RECORD.pack(
        exit_kind,
        exit_value,
        sockets.were_too_many or cgroup.has_killed(),
        round(duration_s * 1000),
        cgroup.program_cpu_ms(),
        cgroup.memory_peak_bytes(),
        *streams.written_bytes,
    )
    send(streams.take_last_frames() + frame(REPORT, report))
    os._exit(0)


def wake_on_child_exit() -> int:
    """Return a descriptor that becomes readable when a child exits."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # PID 1 ignores signals from its own namespace unless it handles them
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    return wake_read


def send(data: bytes) -> None:
    """Write all of `data` to the agent."""
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def receive(size: int) -> bytes:
    """Return the next bytes from the agent. Exit if it disconnects."""
    data = bytearray()
    while len(data) < size:
        chunk = os.read(0, size - len(data))
        if not chunk:
            os._exit(0)
        data += chunk
    return bytes(data)


def watch(
    program: int, streams: Streams, cgroup: Cgroup, sockets: UncountedSockets, *, wake_fd: int, deadline: float
) -> int | None:
    """Collect the program's output until it ends, and return its wait status.

    Return None at the deadline, or once the program has written more to a stream than ends the run. Return SIGKILL if
    it has too many sockets.
    """
    control, everything = select.poll(), select.poll()
    for fd in (0, wake_fd):
        control.register(fd, select.POLLIN)
        everything.register(fd, select.POLLIN)
    streams.register(everything)
    poller, pause_s = everything, math.inf
    while (now := time.monotonic()) < deadline and not streams.is_over_limit():
        if sockets.are_too_many(now):
            return signal.SIGKILL
        send(streams.take_due_frames(now) + cgroup.take_due_frame(now))
        wait_s = min(deadline, streams.flush_at, cgroup.frame_at, sockets.check_at, now + pause_s) - now
        events = poller.poll(max(0.0, wait_s) * 1000)
        poller, pause_s = everything, math.inf
        for fd, _ in events:
            if fd == 0:  # the agent is gone, and the sandbox must not outlive it
                os._exit(0)
            elif fd == wake_fd:
                os.read(wake_fd, 4096)
                wait_status = reap(program)
                if wait_status is not None:
                    return wait_status
            elif 0 < streams.read(fd) < READ_BYTES:  # a full pipe blocks the program
                poller, pause_s = control, PAUSE_S
    return None


def reap(program: int, options: int = os.WNOHANG) -> int | None:
    """Collect all processes that have exited. Return the wait status of the program if it is among them."""
    program_status = None
    while True:
        try:
            pid, wait_status = os.waitpid(-1, options)
        except ChildProcessError:
            return program_status
        if pid == 0:
            return program_status
        if pid == program:
            program_status = wait_status


def kill_all() -> None:
    """Kill every other process of this PID namespace; no fork escapes a signal to all of them."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    reap(0, options=0)


def verdict(wait_status: int | None, *, is_over_limit: bool) -> tuple[bytes, int]:
    """Return how the program ended and its exit code or signal, based only on what PID 1 observed itself."""
    if is_over_limit:
        return OUTPUT_LIMIT_EXCEEDED, 0
    if wait_status is None:
        return TIMED_OUT, 0
    if os.WIFEXITED(wait_status):
        return EXITED, os.WEXITSTATUS(wait_status)
    return SIGNALLED, os.WTERMSIG(wait_status)
