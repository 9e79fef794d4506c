"""What a sandbox says, as its supervisor frames it and Docker's attach stream carries it (see supervisor.py).

The supervisor is ours, but it lives among hostile code, so every frame is checked as if that code had written it.
"""

import contextlib
import select
import socket
import struct
from time import monotonic
from typing import Any, Final

from chalicelib.contract import MAX_STREAM_BYTES
from executor_host.supervisor import (
    ERROR,
    ERROR_RECORD,
    FRAME_HEADER,
    MAX_ERROR_FIELD_BYTES,
    READY,
    REPORT,
    REPORT_RECORD,
    STDERR,
    STDOUT,
)

MAX_PAYLOAD_BYTES: Final = {
    READY: 16,
    STDOUT: MAX_STREAM_BYTES,
    STDERR: MAX_STREAM_BYTES,
    ERROR: ERROR_RECORD.size + 2 * MAX_ERROR_FIELD_BYTES,
    REPORT: REPORT_RECORD.size,
}
# https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Container/operation/ContainerAttach
_DOCKER_HEADER: Final = struct.Struct(">BxxxI")  # stream, bytes of payload
_DOCKER_STDOUT: Final = 1


class SandboxError(Exception):
    """A sandbox could not be made, died, or said what no supervisor of ours says."""


class SandboxGoneError(SandboxError):
    """The streams of the container ended."""


class Channel:
    """The supervisor's frames, taken out of Docker's attach stream."""

    def __init__(self, stream: Any) -> None:  # noqa: ANN401 - docker-py gives it no type
        """`stream` is what docker-py's attach_socket returns: it keeps the HTTP response alive."""
        self._stream = stream
        self._socket: socket.socket = stream._sock  # noqa: SLF001 - documented nowhere else: the raw socket
        self._raw_buffer = bytearray()
        self._frame_buffer = bytearray()

    def send(self, data: bytes, deadline: float) -> None:
        """Raises TimeoutError at the deadline and OSError when nobody listens."""
        self._socket.settimeout(_remaining_s(deadline))
        self._socket.sendall(data)

    def next_frame(self, deadline: float) -> tuple[bytes, bytes]:
        """Kind and payload. Raises TimeoutError, SandboxGoneError, or SandboxError for what is no frame."""
        header = FRAME_HEADER.size
        while len(self._frame_buffer) < header:
            self._receive(deadline)
        kind, size = FRAME_HEADER.unpack_from(self._frame_buffer)
        if size > MAX_PAYLOAD_BYTES.get(kind, -1):
            raise SandboxError("a frame of no kind or too long for its kind")
        while len(self._frame_buffer) < header + size:
            self._receive(deadline)
        payload = bytes(self._frame_buffer[header : header + size])
        del self._frame_buffer[: header + size]
        return kind, payload

    def _receive(self, deadline: float) -> None:
        self._socket.settimeout(_remaining_s(deadline))
        data = self._socket.recv(64 * 1024)
        if not data:
            raise SandboxGoneError("the container ended")
        self._raw_buffer += data
        while len(self._raw_buffer) >= _DOCKER_HEADER.size:
            stream, size = _DOCKER_HEADER.unpack_from(self._raw_buffer)
            end = _DOCKER_HEADER.size + size
            if len(self._raw_buffer) < end:
                return
            if stream != _DOCKER_STDOUT:
                raise SandboxError("the supervisor wrote to its stderr")
            self._frame_buffer += self._raw_buffer[_DOCKER_HEADER.size : end]
            del self._raw_buffer[:end]

    def is_silent(self) -> bool:
        """Whether there is nothing to read, not even an end."""
        poller = select.poll()
        poller.register(self._socket, select.POLLIN)
        return not self._frame_buffer and not poller.poll(0)

    def close(self) -> None:
        """End the container's stdin and let go of the connection."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError, ValueError):  # urllib3 flushes what is closed by then
            self._stream._response.close()  # noqa: SLF001 - where docker-py keeps the connection alive


def _remaining_s(deadline: float) -> float:
    left = deadline - monotonic()
    if left <= 0:
        raise TimeoutError
    return left
