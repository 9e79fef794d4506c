"""Feed the program's stdin and collect its stdout and stderr."""

import os
import select
import time

from .protocol import STDERR, STDOUT, frame

PREEMPTIVE_FLUSH_S = 0.1  # older output reaches the agent even if the whole sandbox dies
PREEMPTIVE_FLUSH_BYTES = 16 * 1024
HANDSHAKE_BYTE = b"\n"  # from the child: ready; to the child: go


class Streams:
    """Three pipes. Only the program holds their other ends."""

    def __init__(self) -> None:
        """Create the pipes, before the fork."""
        self.child_stdin, self._stdin = os.pipe()
        self._stdout, self.child_stdout = os.pipe()
        self._stderr, self.child_stderr = os.pipe()
        self._kinds = {self._stdout: STDOUT, self._stderr: STDERR}
        self._kept = dict.fromkeys(self._kinds, 0)
        self._pending = {fd: bytearray() for fd in self._kinds}
        self._flushed_at = 0.0
        self.truncated: set[bytes] = set()

    def wait_for_child_ready(self) -> None:
        """In the parent: close the child's ends, and wait until the child is ready."""
        for fd in (self.child_stdin, self.child_stdout, self.child_stderr):
            os.close(fd)
        if os.read(self._stdout, len(HANDSHAKE_BYTE)) != HANDSHAKE_BYTE:
            os._exit(1)

    def start(self, poller: select.poll, stdin_data: bytes, max_stream_bytes: int) -> None:
        """Signal the child to continue, and begin to feed its stdin."""
        self._poller = poller
        self._unwritten = memoryview(HANDSHAKE_BYTE + stdin_data)
        self._max_stream_bytes = max_stream_bytes
        for fd in (self._stdin, *self._kinds):
            os.set_blocking(fd, False)
            poller.register(fd, select.POLLOUT if fd == self._stdin else select.POLLIN)
        self.handle(self._stdin)
        self._flushed_at = time.monotonic()

    def handle(self, fd: int) -> None:
        """Move as much data as possible without blocking."""
        if fd == self._stdin:
            self._feed()
        elif fd in self._kinds:
            self._collect(fd)

    def _feed(self) -> None:
        try:
            while self._unwritten:
                self._unwritten = self._unwritten[os.write(self._stdin, self._unwritten) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            pass
        self._poller.unregister(self._stdin)
        os.close(self._stdin)

    def _collect(self, fd: int) -> bool:
        """Read once. Return whether there may be more to read."""
        try:
            data = os.read(fd, 65536)
        except BlockingIOError:
            return False
        if not data:
            self._poller.unregister(fd)
            os.close(fd)
            del self._kinds[fd]
            return False
        room = self._max_stream_bytes - self._kept[fd]
        if len(data) > room:
            self.truncated.add(self._kinds[fd])
            data = data[:room]
        self._kept[fd] += len(data)
        self._pending[fd] += data
        return True

    def drain(self) -> None:
        """Collect the rest of the pipes once every process that could write to them is dead."""
        for fd, kind in list(self._kinds.items()):
            while kind not in self.truncated and self._collect(fd):
                pass

    def take_frames(self) -> bytes:
        """Return the pending output as frames and clear it."""
        self._flushed_at = time.monotonic()
        frames = b"".join(
            frame(kind, self._pending[fd])
            for fd, kind in zip(self._pending, (STDOUT, STDERR), strict=True)
            if self._pending[fd]
        )
        for pending in self._pending.values():
            pending.clear()
        return frames

    def flush_due_in_s(self) -> float | None:
        """Return the seconds until the pending output must be sent, or None if there is none."""
        pending = sum(map(len, self._pending.values()))
        if not pending:
            return None
        if pending >= PREEMPTIVE_FLUSH_BYTES:
            return 0.0
        return max(0.0, self._flushed_at + PREEMPTIVE_FLUSH_S - time.monotonic())
