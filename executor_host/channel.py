"""Exchange bytes with a sandbox's supervisor through Docker's attach stream. See supervisor/protocol.py.

The supervisor shares its container with hostile code, so every frame is checked as if that code had written it.
"""

import contextlib
import select
import socket
import struct
from time import monotonic
from typing import Any, Final

from chalicelib.contract import (
    MAX_ARTIFACTS,
    MAX_ARTIFACTS_BYTES,
    MAX_LISTED_OMISSIONS,
    MAX_PATH_BYTES,
    MAX_STDOUT_BYTES,
    STDERR_HEAD_BYTES,
    OmissionReason,
)
from executor_host.supervisor.protocol import (
    ARTIFACTS,
    FILE_HEADER,
    FRAME_HEADER,
    OMISSION_HEADER,
    OMISSIONS,
    READY,
    REPORT,
    REPORT_RECORD,
    STDERR,
    STDERR_TAIL,
    STDOUT,
    USAGE,
    USAGE_RECORD,
)

MAX_PAYLOAD_BYTES: Final = {  # of all frames of a kind together
    READY: 16,
    STDOUT: MAX_STDOUT_BYTES,
    STDERR: STDERR_HEAD_BYTES,
    STDERR_TAIL: 256 * 1024,  # more than is returned: the traceback may lie before a long message
    USAGE: USAGE_RECORD.size,
    ARTIFACTS: MAX_ARTIFACTS_BYTES + MAX_ARTIFACTS * (FILE_HEADER.size + MAX_PATH_BYTES),
    OMISSIONS: (MAX_LISTED_OMISSIONS + len(OmissionReason)) * (OMISSION_HEADER.size + MAX_PATH_BYTES),
    REPORT: REPORT_RECORD.size,
}
# https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Container/operation/ContainerAttach
_DOCKER_HEADER: Final = struct.Struct(">BxxxI")  # stream, bytes of payload
_DOCKER_STDOUT: Final = 1


class SandboxError(Exception):
    """A sandbox could not be started, died, or sent invalid data."""


class SandboxGoneError(SandboxError):
    """The container ended and closed its streams."""


class Channel:
    """Send bytes to a supervisor and receive its frames."""

    def __init__(self, stream: Any) -> None:  # noqa: ANN401 - docker-py has no types
        """Take over the result of docker-py's attach_socket, which keeps the HTTP response alive."""
        self._stream = stream
        self._socket: socket.socket = stream._sock  # noqa: SLF001 - docker-py offers no other way to the socket
        self._raw_buffer = bytearray()
        self._frame_buffer = bytearray()

    def send(self, data: bytes, deadline: float) -> None:
        """Send all of `data`. Raises TimeoutError at the deadline and OSError if the connection is lost."""
        self._socket.settimeout(_remaining_s(deadline))
        self._socket.sendall(data)

    def next_frame(self, deadline: float) -> tuple[bytes, bytes]:
        """Return kind and payload of a frame. Raises TimeoutError, SandboxGoneError, or SandboxError if invalid."""
        header_bytes = FRAME_HEADER.size
        while len(self._frame_buffer) < header_bytes:
            self._receive(deadline)
        kind, size = FRAME_HEADER.unpack_from(self._frame_buffer)
        if size > MAX_PAYLOAD_BYTES.get(kind, -1):
            raise SandboxError("a frame is of unknown kind or too long")
        while len(self._frame_buffer) < header_bytes + size:
            self._receive(deadline)
        payload = bytes(self._frame_buffer[header_bytes : header_bytes + size])
        del self._frame_buffer[: header_bytes + size]
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
                raise SandboxError("the supervisor wrote to stderr")
            self._frame_buffer += self._raw_buffer[_DOCKER_HEADER.size : end]
            del self._raw_buffer[:end]

    def has_pending_data(self) -> bool:
        """Return whether there is anything to read, including the end of the stream."""
        poller = select.poll()
        poller.register(self._socket, select.POLLIN)
        return bool(self._frame_buffer or poller.poll(0))

    def close(self) -> None:
        """Close the container's stdin and the connection."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError, ValueError):  # urllib3 flushes a file that is closed by then
            self._stream._response.close()  # noqa: SLF001 - docker-py keeps the connection in it


def _remaining_s(deadline: float) -> float:
    remaining_s = deadline - monotonic()
    if remaining_s <= 0:
        raise TimeoutError
    return remaining_s
