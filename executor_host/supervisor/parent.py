"""Be PID 1: receive one job, watch the program, and report how it ended."""

import contextlib
import ctypes
import mmap
import os
import select
import signal
import sys
import time

from .cgroup import Cgroup
from .program import MAIN, PR_SET_DUMPABLE, prepare_program_process
from .protocol import (
    ERROR,
    EXITED,
    JOB_HEADER,
    MAX_ERROR_RECORD_BYTES,
    OUTPUT_LIMIT_EXCEEDED,
    READY,
    REPORT,
    REPORT_RECORD,
    SIGNALLED,
    STDERR,
    STDOUT,
    TIMED_OUT,
    frame,
)
from .streams import Streams


def supervise() -> None:
    """Run one job. Return only in the child, which is then the program."""
    libc = ctypes.CDLL(None)
    # Otherwise the program, which is the same user, could ptrace PID 1 or open /proc/1/fd/1.
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    streams = Streams()
    error_record = mmap.mmap(-1, MAX_ERROR_RECORD_BYTES)
    child = os.fork()
    if child == 0:
        prepare_program_process(libc, streams, error_record)
        return
    wake_fd = wake_on_child_exit()
    cgroup, poller = Cgroup(), select.poll()
    poller.register(0, select.POLLIN)
    poller.register(wake_fd, select.POLLIN)
    streams.wait_for_child_ready()
    cpu_s, oom_kills = cgroup.cpu_s() - time.process_time(), cgroup.oom_kills()
    send(frame(READY, b"%d.%d" % sys.version_info[:2]))

    timeout_s, max_stream_bytes, code, stdin_data = receive_job()
    with open(MAIN, "wb") as file:
        file.write(code)
    started_at = time.monotonic()
    streams.start(poller, stdin_data, max_stream_bytes)
    wait_status = watch(child, poller, streams, wake_fd, started_at + timeout_s)
    duration_s = time.monotonic() - started_at
    kill_all()
    streams.drain()
    exit_kind, exit_value = verdict(wait_status, streams.truncated)
    report = REPORT_RECORD.pack(
        exit_kind,
        exit_value,
        cgroup.oom_kills() > oom_kills,
        round(duration_s * 1000),
        max(0, round((cgroup.cpu_s() - time.process_time() - cpu_s) * 1000)),
        cgroup.memory_peak_bytes(),
        STDOUT in streams.truncated,
        STDERR in streams.truncated,
    )
    send(streams.take_frames() + frame(ERROR, error_record[:]) + frame(REPORT, report))
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


def receive_job() -> tuple[float, int, bytes, bytes]:
    """Wait for the job: timeout_s, max_stream_bytes, code, stdin. Exit if the agent disconnects first."""
    timeout_s, max_stream_bytes, code_bytes, input_bytes = JOB_HEADER.unpack(_read_exactly(JOB_HEADER.size))
    return timeout_s, max_stream_bytes, _read_exactly(code_bytes), _read_exactly(input_bytes)


def _read_exactly(size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        chunk = os.read(0, size - len(data))
        if not chunk:
            os._exit(0)
        data += chunk
    return bytes(data)


def watch(child: int, poller: select.poll, streams: Streams, wake_fd: int, deadline: float) -> int | None:
    """Serve the program's streams until it ends, and return its wait status.

    Return None at the deadline, or once the program has written more than a stream may hold.
    """
    while True:
        now = time.monotonic()
        if now >= deadline:
            return None
        due_in_s = streams.flush_due_in_s()
        if due_in_s == 0.0:
            send(streams.take_frames())
            continue
        wait_s = deadline - now if due_in_s is None else min(deadline - now, due_in_s)
        for fd, _ in poller.poll(wait_s * 1000):
            if fd == 0:  # the agent is gone, and the sandbox must not outlive it
                os._exit(0)
            elif fd == wake_fd:
                os.read(wake_fd, 4096)
                wait_status = reap(child)
                if wait_status is not None:
                    return wait_status
            else:
                streams.handle(fd)
        if streams.truncated:
            return None


def reap(child: int, options: int = os.WNOHANG) -> int | None:
    """Collect all processes that have exited. Return the wait status of `child` if it is among them."""
    child_status = None
    while True:
        try:
            pid, wait_status = os.waitpid(-1, options)
        except ChildProcessError:
            return child_status
        if pid == 0:
            return child_status
        if pid == child:
            child_status = wait_status


def kill_all() -> None:
    """Kill every other process of this PID namespace; no fork escapes a signal to all of them."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    reap(0, options=0)


def verdict(wait_status: int | None, truncated: set[bytes]) -> tuple[bytes, int]:
    """Return how the program ended and its exit code or signal, based only on what PID 1 observed itself."""
    if truncated:
        return OUTPUT_LIMIT_EXCEEDED, 0
    if wait_status is None:
        return TIMED_OUT, 0
    if os.WIFEXITED(wait_status):
        return EXITED, os.WEXITSTATUS(wait_status)
    return SIGNALLED, os.WTERMSIG(wait_status)
