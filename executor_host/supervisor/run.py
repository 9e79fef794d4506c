"""Watch one run of the program from PID 1, and report how it ended."""

import contextlib
import math
import os
import select
import signal
import time

from .artifacts import ArtifactSearch
from .cgroup import Cgroup, UncountedSockets
from .connection import READ_BYTES, receive, receive_into, send
from .program import StartPipes
from .protocol import (
    EXITED,
    OUTPUT_LIMIT_EXCEEDED,
    REPORT,
    REPORT_RECORD,
    RUN_HEADER,
    SIGNALLED,
    TIMED_OUT,
    frame,
)
from .streams import Streams

# How long to let output collect in a pipe. Otherwise each line that the program writes would wake PID 1, which shares
# the program's CPU time.
PAUSE_S = 0.002


class Run:
    """The runs of one job, one after the other."""

    def __init__(self, streams: Streams, cgroup: Cgroup, sockets: UncountedSockets, *, wake_fd: int) -> None:
        """Prepare for all runs. `wake_fd` becomes readable when a child exits."""
        self.streams, self.cgroup = streams, cgroup
        self._sockets, self._wake_fd = sockets, wake_fd
        self.was_last = False

    def execute(self, program: int, start_pipes: StartPipes, search: ArtifactSearch) -> None:
        """Receive a run, let the program's process start, watch it, kill everything and send the report.

        Before the last report, send the artifacts: their names must not be in the memory of a later run.
        """
        is_last, timeout_s, *limits, input_bytes, args_bytes = RUN_HEADER.unpack(receive(RUN_HEADER.size))
        self.streams.start(input_bytes, *limits)
        with contextlib.suppress(BrokenPipeError):  # the kernel may have killed the program's process
            receive_into(start_pipes.start_write, args_bytes)
        started_at = time.monotonic()  # before the program starts, which may then run for a while before PID 1 does
        start_pipes.start_program()
        self.cgroup.report_from(started_at)
        self._sockets.watch_from(started_at)
        wait_status = self._watch(program, deadline=started_at + timeout_s)
        duration_s = time.monotonic() - started_at
        self._kill_all()
        self.streams.drain()
        exit_kind, exit_value = verdict(wait_status, is_over_limit=self.streams.is_over_limit())
        report = REPORT_RECORD.pack(
            exit_kind,
            exit_value,
            self._sockets.were_too_many or self.cgroup.has_killed(),
            round(duration_s * 1000),
            self.cgroup.program_cpu_ms(),
            self.cgroup.memory_peak_bytes(),
            *self.streams.written_bytes,
        )
        if is_last:
            for artifact_frame in search.run():
                send(artifact_frame)
        self.streams.send_last(frame(REPORT, report))
        self.was_last = is_last

    def _watch(self, program: int, *, deadline: float) -> int | None:
        """Collect the program's output until it ends, and return its wait status.

        Return None at the deadline, or once the program has written more to a stream than ends the run. Return SIGKILL
        if it has too many sockets.
        """
        control, everything = select.poll(), select.poll()
        for fd in (0, self._wake_fd):
            control.register(fd, select.POLLIN)
            everything.register(fd, select.POLLIN)
        self.streams.register(everything)
        poller, pause_s = everything, math.inf
        while (now := time.monotonic()) < deadline and not self.streams.is_over_limit():
            if self._sockets.are_too_many(now):
                return signal.SIGKILL
            self.streams.send_due(now)
            send(self.cgroup.take_due_frame(now))
            times = deadline, self.streams.flush_at, self.cgroup.frame_at, self._sockets.check_at, now + pause_s
            events = poller.poll(max(0.0, min(times) - now) * 1000)
            poller, pause_s = everything, math.inf
            for fd, _ in events:
                if fd == 0:  # the agent is gone, and the sandbox must not outlive it
                    os._exit(0)
                elif fd == self._wake_fd:
                    os.read(self._wake_fd, 4096)
                    wait_status = self._reap(program)
                    if wait_status is not None:
                        return wait_status
                elif 0 < self.streams.read(fd) < READ_BYTES:  # a full pipe blocks the program
                    poller, pause_s = control, PAUSE_S
        return None

    def _reap(self, program: int, options: int = os.WNOHANG) -> int | None:
        """Collect all processes that have exited. Return the wait status of the program if it is among them."""
        program_status = None
        while True:
            try:
                pid, wait_status, usage = os.wait4(-1, options)
            except ChildProcessError:
                return program_status
            if pid == 0:
                return program_status
            self.cgroup.process_ended(usage)
            if pid == program:
                program_status = wait_status

    def _kill_all(self) -> None:
        """Kill every other process of this PID namespace; no fork escapes a signal to all of them."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)
        self._reap(0, options=0)


def verdict(wait_status: int | None, *, is_over_limit: bool) -> tuple[bytes, int]:
    """Return how the program ended and its exit code or signal, based only on what PID 1 observed itself."""
    if is_over_limit:
        return OUTPUT_LIMIT_EXCEEDED, 0
    if wait_status is None:
        return TIMED_OUT, 0
    if os.WIFEXITED(wait_status):
        return EXITED, os.WEXITSTATUS(wait_status)
    return SIGNALLED, os.WTERMSIG(wait_status)
