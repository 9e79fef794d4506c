"""Bound what one HTTP connection may cost the local server: time, memory, threads. Used by chalice_server.py.

On AWS, API Gateway does this. Python's http.server reads each body before the API sees the request, waits forever for
the next byte, and reads several ambiguous requests differently from a proxy in front of it.
"""

import contextlib
import http.client
import io
import re
import socket
import sys
import threading
import time
from email import errors
from http.client import HTTPMessage
from typing import TYPE_CHECKING, Any, Final

from chalice.local import ThreadedHTTPServer

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAX_CONNECTIONS: Final = 256  # each has a thread
MAX_HEAD_BYTES: Final = 128 * 1024  # request line and headers; http.server accepts lines of 64 KiB
HEAD_TIMEOUT_S: Final = 15.0  # for the request line and the headers, from the connection or the first byte
IDLE_TIMEOUT_S: Final = 60.0  # between two requests of a connection
SEND_TIMEOUT_S: Final = 20.0  # of one response
LINGER_S: Final = 2.0  # in which a client may read the response before the rest of its body is reset
CHUNK_BYTES: Final = 64 * 1024

# A malformed line ends the headers, so the others would be ignored. The parser also reports defects of MIME bodies.
_HEADER_DEFECTS: Final = (
    errors.FirstHeaderLineIsContinuationDefect,
    errors.InvalidHeaderDefect,
    errors.MisplacedEnvelopeHeaderDefect,
    errors.MissingHeaderBodySeparatorDefect,
)
_LENGTH: Final = re.compile("[0-9]{1,19}")
_BUSY: Final = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class RequestReader(io.RawIOBase):
    """The receiving half of a connection, with a deadline and a number of bytes for each part of a request."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._is_idle = False
        self.limit(MAX_HEAD_BYTES, timeout_s=HEAD_TIMEOUT_S)

    def limit(self, count: int, *, timeout_s: float) -> None:
        """Set the number of bytes and seconds of the next part of a request."""
        self._readable_bytes = count
        self._deadline = time.monotonic() + timeout_s

    def wait_for_next_request(self) -> None:
        """Expect the head of another request, which may begin after a pause."""
        self.limit(MAX_HEAD_BYTES, timeout_s=IDLE_TIMEOUT_S)
        self._is_idle = True

    def readable(self) -> bool:
        """Return True, as io.BufferedReader requires."""
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """Receive into a buffer. Raise TimeoutError at the deadline, and HTTPException if the head is too large."""
        view = memoryview(buffer)[: self._readable_bytes]
        remaining_s = self._deadline - time.monotonic()
        if remaining_s <= 0:
            raise TimeoutError
        if not view:
            raise http.client.HTTPException("too large")
        self._connection.settimeout(remaining_s)
        count = self._connection.recv_into(view)
        self._connection.settimeout(SEND_TIMEOUT_S)
        self._readable_bytes -= count
        if self._is_idle:
            self._is_idle = False
            self._deadline = time.monotonic() + HEAD_TIMEOUT_S
        return count


class BoundedServer(ThreadedHTTPServer):
    """A server that refuses connections above MAX_CONNECTIONS."""

    request_queue_size = 128  # with the default of 5, simultaneous clients retry after a second

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - those of the base class
        self._slots = threading.BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__(*arguments, **options)

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - typeshed's types
        """Start a thread for a connection, or refuse the connection."""
        if not self._slots.acquire(blocking=False):
            with contextlib.suppress(OSError):
                request.sendall(_BUSY)
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._slots.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Serve a connection in its thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Log an error in a handler, unless it is that of a client that disconnected."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


def is_ambiguous(headers: HTTPMessage) -> bool:
    """Return whether two parsers could disagree on the headers or on where the body ends (RFC 9112, 6.3 and 11.2)."""
    lengths = headers.get_all("Content-Length", [])
    is_malformed = any(isinstance(defect, _HEADER_DEFECTS) for defect in headers.defects)
    is_invalid = len(lengths) > 1 or not all(_LENGTH.fullmatch(length.strip(" \t")) for length in lengths)
    return is_malformed or is_invalid or bool(lengths and "Transfer-Encoding" in headers)


def discard_rest(connection: socket.socket) -> None:
    """Close the sending half and discard what a client still sends, so that it reads the response before a reset."""
    deadline = time.monotonic() + LINGER_S
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_WR)
        while (remaining_s := deadline - time.monotonic()) > 0:
            connection.settimeout(remaining_s)
            if not connection.recv(CHUNK_BYTES):
                return
