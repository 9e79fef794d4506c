"""Provide the program's stdin as a file, and collect its stdout and stderr."""

import math
import os
import select
import time

from .connection import read_memory, receive_into, send
from .protocol import FRAME_HEADER, STDERR, STDERR_TAIL, STDOUT
from .run_memory import RunBuffer

PREEMPTIVE_FLUSH_S = 0.1  # older output reaches the agent even if the whole sandbox dies
PREEMPTIVE_FLUSH_BYTES = 16 * 1024


class OutputPipe:
    """Keep the first bytes of a stream and, for stderr, the last of those that follow. Count all of them."""

    def __init__(self, kind: bytes) -> None:
        """Prepare for all runs."""
        self.kind = kind
        self.pending, self._tail = RunBuffer(), RunBuffer()  # pending: to be sent

    def open(self) -> None:
        """Create the pipe of a run, before the fork."""
        self.fd, self.program_fd = os.pipe()
        os.set_blocking(self.fd, False)
        self.written_bytes = 0

    def start(self, *, head_bytes: int, tail_bytes: int) -> None:
        """Define how much to keep."""
        self._head_bytes, self._tail_bytes = head_bytes, tail_bytes
        self.pending.reserve(head_bytes)
        self._tail.reserve(2 * tail_bytes + len(read_memory) if tail_bytes else 0)

    def read(self) -> int:
        """Read once and return the number of bytes: 0 at the end. Raise BlockingIOError if there is nothing to read."""
        size = os.readv(self.fd, [read_memory])
        room = max(0, self._head_bytes - self.written_bytes)
        self.written_bytes += size
        self.pending.append(read_memory[: min(room, size)])
        if self._tail_bytes and room < size:
            self._tail.append(read_memory[room:size])
            if len(self._tail) > 2 * self._tail_bytes:
                self._tail.keep_last(self._tail_bytes)
        return size

    def pending_frame(self) -> tuple[bytes | memoryview, ...]:
        """Return a frame of the bytes that have not been sent, if there are any."""
        return _frame(self.kind, self.pending)

    def tail_frame(self) -> tuple[bytes | memoryview, ...]:
        """Return a frame of the last bytes, if there are any."""
        self._tail.keep_last(self._tail_bytes)
        return _frame(STDERR_TAIL, self._tail)


def _frame(kind: bytes, payload: RunBuffer) -> tuple[bytes | memoryview, ...]:
    return (FRAME_HEADER.pack(kind, len(payload)), payload.view) if payload else ()


class Streams:
    """The program's stdin, stdout and stderr, those of one run after the other."""

    def __init__(self) -> None:
        """Prepare for all runs."""
        self._stdout, self._stderr = OutputPipe(STDOUT), OutputPipe(STDERR)
        self._flushed_at = 0.0

    def open(self) -> None:
        """Create the file and the pipes of a run, before the fork."""
        self._stdin = os.memfd_create("stdin")
        os.fchmod(self._stdin, 0o400)
        # A second opening, because a duplicate of the descriptor could write.
        self._program_stdin = os.open(f"/proc/self/fd/{self._stdin}", os.O_RDONLY)
        self._stdout.open()
        self._stderr.open()
        self._open = {pipe.fd: pipe for pipe in (self._stdout, self._stderr)}

    @property
    def program_ends(self) -> tuple[int, int, int]:
        """Return what become the program's descriptors 0 to 2."""
        return self._program_stdin, self._stdout.program_fd, self._stderr.program_fd

    def close_program_ends(self) -> None:
        """Close those descriptors, after the fork."""
        for fd in self.program_ends:
            os.close(fd)

    def start(
        self,
        stdin_bytes: int,
        stdout_bytes: int,
        stderr_head_bytes: int,
        stderr_tail_bytes: int,
        max_bytes: int,
    ) -> None:
        """Receive the file that the program will read, and begin to collect. The limits are those of RUN_HEADER."""
        receive_into(self._stdin, stdin_bytes)
        os.close(self._stdin)
        self._stdout.start(head_bytes=stdout_bytes, tail_bytes=0)
        self._stderr.start(head_bytes=stderr_head_bytes, tail_bytes=stderr_tail_bytes)
        self._max_bytes = max_bytes

    def register(self, poller: select.poll) -> None:
        """Register the pipes; each is unregistered at its end."""
        self._poller = poller
        for fd in self._open:
            poller.register(fd, select.POLLIN)
        self._flushed_at = time.monotonic()

    def read(self, fd: int) -> int:
        """Read a pipe once and return the number of bytes: 0 at its end or if there is nothing to read."""
        try:
            size = self._open[fd].read()
        except BlockingIOError:
            return 0
        if size == 0:
            self._poller.unregister(fd)
            os.close(fd)
            del self._open[fd]
        return size

    def drain(self) -> None:
        """Read the rest of the pipes once every process that could write to them is dead."""
        for fd in list(self._open):
            while self.read(fd):
                pass
        for fd in self._open:  # its other end is in a message that was never received
            os.close(fd)

    @property
    def written_bytes(self) -> tuple[int, int]:
        """Return how many bytes the program has written to stdout and to stderr."""
        return self._stdout.written_bytes, self._stderr.written_bytes

    def is_over_limit(self) -> bool:
        """Return whether a stream is longer than a run may make it."""
        return max(self.written_bytes) > self._max_bytes

    def send_due(self, now: float) -> None:
        """Send the pending output, if it must be sent."""
        if self.flush_at <= now:
            self._flush(now)

    def send_last(self, report: bytes) -> None:
        """Send what remains when the program has ended, then the frame of the report."""
        self._flush(time.monotonic(), *self._stderr.tail_frame(), report)

    def _flush(self, now: float, *more: bytes | memoryview) -> None:
        send(*self._stdout.pending_frame(), *self._stderr.pending_frame(), *more)
        self._stdout.pending.clear()
        self._stderr.pending.clear()
        self._flushed_at = now

    @property
    def flush_at(self) -> float:
        """Return when the pending output must be sent, infinity if there is none."""
        pending_bytes = len(self._stdout.pending) + len(self._stderr.pending)
        if not pending_bytes:
            return math.inf
        return self._flushed_at if pending_bytes >= PREEMPTIVE_FLUSH_BYTES else self._flushed_at + PREEMPTIVE_FLUSH_S
