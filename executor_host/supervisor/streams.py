"""Provide the program's stdin as a file, and collect its stdout and stderr."""

import math
import os
import select
import time

from .protocol import STDERR, STDERR_TAIL, STDOUT, frame

PREEMPTIVE_FLUSH_S = 0.1  # older output reaches the agent even if the whole sandbox dies
PREEMPTIVE_FLUSH_BYTES = 16 * 1024
READ_BYTES = 64 * 1024  # what a pipe holds


class OutputPipe:
    """Keep the first bytes of a stream and, for stderr, the last of those that follow. Count all of them."""

    def __init__(self, kind: bytes) -> None:
        """Create the pipe, before the fork."""
        self.kind = kind
        self.fd, self.program_fd = os.pipe()
        self.written_bytes = 0
        self.pending = bytearray()  # to be sent
        self.tail = bytearray()

    def start(self, *, head_bytes: int, tail_bytes: int) -> None:
        """Define how much to keep."""
        self._head_bytes, self._tail_bytes = head_bytes, tail_bytes
        os.set_blocking(self.fd, False)

    def read(self) -> int:
        """Read once and return the number of bytes: 0 at the end. Raise BlockingIOError if there is nothing to read."""
        data = os.read(self.fd, READ_BYTES)
        room = max(0, self._head_bytes - self.written_bytes)
        self.written_bytes += len(data)
        self.pending += data[:room]
        if self._tail_bytes:
            self.tail += data[room:]
            if len(self.tail) > 2 * self._tail_bytes:
                self._trim()
        return len(data)

    def _trim(self) -> None:
        del self.tail[: -self._tail_bytes]

    def take_pending(self) -> bytes:
        """Return a frame of the bytes that have not been sent, if there are any."""
        data = frame(self.kind, self.pending) if self.pending else b""
        self.pending.clear()
        return data

    def take_tail(self) -> bytes:
        """Return a frame of the last bytes, if there are any."""
        self._trim()
        return frame(STDERR_TAIL, self.tail) if self.tail else b""


class Streams:
    """The program's stdin, stdout and stderr."""

    def __init__(self) -> None:
        """Create the file and the pipes, before the fork."""
        self._stdin = os.memfd_create("stdin")
        os.fchmod(self._stdin, 0o400)
        # A second opening, because a duplicate of the descriptor could write.
        self._program_stdin = os.open(f"/proc/self/fd/{self._stdin}", os.O_RDONLY)
        self._stdout, self._stderr = OutputPipe(STDOUT), OutputPipe(STDERR)
        self._open = {pipe.fd: pipe for pipe in (self._stdout, self._stderr)}
        self._max_bytes, self._flushed_at = 0, 0.0

    @property
    def program_ends(self) -> tuple[int, int, int]:
        """Return what become the program's descriptors 0 to 2."""
        return self._program_stdin, self._stdout.program_fd, self._stderr.program_fd

    def start(
        self,
        stdin: bytes,
        stdout_bytes: int,
        stderr_head_bytes: int,
        stderr_tail_bytes: int,
        max_bytes: int,
    ) -> None:
        """Write the file that the program will read, and begin to collect. The limits are those of JOB_HEADER."""
        with open(self._stdin, "wb") as file:
            file.write(stdin)
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

    @property
    def written_bytes(self) -> tuple[int, int]:
        """Return how many bytes the program has written to stdout and to stderr."""
        return self._stdout.written_bytes, self._stderr.written_bytes

    def is_over_limit(self) -> bool:
        """Return whether a stream is longer than a run may make it."""
        return max(self.written_bytes) > self._max_bytes

    def take_due_frames(self, now: float) -> bytes:
        """Return the pending output as frames and clear it, if it must be sent."""
        return self._take_frames(now) if self.flush_at <= now else b""

    def _take_frames(self, now: float) -> bytes:
        self._flushed_at = now
        return self._stdout.take_pending() + self._stderr.take_pending()

    def take_last_frames(self) -> bytes:
        """Return what remains to be sent when the program has ended."""
        return self._take_frames(time.monotonic()) + self._stderr.take_tail()

    @property
    def flush_at(self) -> float:
        """Return when the pending output must be sent, infinity if there is none."""
        pending_bytes = len(self._stdout.pending) + len(self._stderr.pending)
        if not pending_bytes:
            return math.inf
        return self._flushed_at if pending_bytes >= PREEMPTIVE_FLUSH_BYTES else self._flushed_at + PREEMPTIVE_FLUSH_S
