"""Receive webhooks on this machine, and misbehave on request."""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Self

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class WebhookReceiver:
    """An HTTP server that handles one connection at a time: it reads the request, then calls `respond`.

    With `reads` off, it responds without reading from the connection, not even for a TLS handshake.
    """

    def __init__(self, tls: ssl.SSLContext | None = None, *, port: int = 0) -> None:
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", port))
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self.port: int = self._listener.getsockname()[1]
        self.requests: list[tuple[str, dict[str, str], bytes]] = []  # request line, headers and body of each
        self.connections = 0
        self.reads = True
        self.respond: Callable[[socket.socket], None] = lambda connection: connection.sendall(OK)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port)).close()
        self._thread.join()
        self._listener.close()

    def hang(self, _connection: socket.socket | None = None) -> None:
        """Send nothing and keep the connection open."""
        self._stopping.wait(10)

    def send_slowly(self, connection: socket.socket) -> None:
        """Send a response byte by byte."""
        for byte in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1000:
            connection.sendall(bytes([byte]))
            time.sleep(0.02)

    def receive_slowly(self, connection: socket.socket) -> None:
        """Receive a few megabytes per second and respond with nothing."""
        while not self._stopping.is_set() and connection.recv(256 * 1024):
            time.sleep(0.05)

    def send_endlessly(self, start: bytes, repeated: bytes) -> Callable[[socket.socket], None]:
        """Return a function that sends `start` once and `repeated` without end."""

        def respond(connection: socket.socket) -> None:
            connection.sendall(start)
            while not self._stopping.is_set():
                connection.sendall(repeated)

        return respond

    def _serve(self) -> None:
        while not self._stopping.is_set():
            connection, _ = self._listener.accept()
            if self._stopping.is_set():
                connection.close()
                return
            self.connections += 1
            connection.settimeout(5)
            with contextlib.suppress(OSError), connection:
                self._handle(connection)

    def _handle(self, connection: socket.socket) -> None:
        if not self.reads:
            self.respond(connection)
            return
        if self._tls:
            connection = self._tls.wrap_socket(connection, server_side=True)
        with connection:
            self.requests.append(self._read_request(connection))
            self.respond(connection)

    def _read_request(self, connection: socket.socket) -> tuple[str, dict[str, str], bytes]:
        head, body = b"", b""
        while b"\r\n\r\n" not in head:
            if not (received := connection.recv(4096)):
                raise ConnectionError
            head += received
        head, _, body = head.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:])
        while len(body) < int(headers.get("Content-Length", "0")):
            body += connection.recv(4096)
        return lines[0], headers, body
