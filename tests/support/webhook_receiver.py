"""A receiver of webhooks on this machine, which behaves as it is told to."""

import contextlib
import socket
import threading
import time

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class Receiver:
    """Handles one connection at a time: reads the request, then does what `behave` does with the connection."""

    def __init__(self, tls=None):
        self._tls = tls
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self.port = self._listening.getsockname()[1]
        self.requests = []  # head and body
        self.connections = 0
        self.reads = True
        self.behave = lambda connection: connection.sendall(OK)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port)).close()
        self._thread.join()
        self._listening.close()

    def say_nothing(self, _connection=None):
        self._ended.wait(10)

    def drip(self, connection):
        for byte in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1000:
            connection.sendall(bytes([byte]))
            time.sleep(0.02)

    def never_end(self, start):
        def behave(connection):
            connection.sendall(start)
            while not self._ended.is_set():
                connection.sendall(b"X: x\r\n")

        return behave

    def _serve(self):
        while not self._ended.is_set():
            connection, _ = self._listening.accept()
            if self._ended.is_set():
                connection.close()
                return
            self.connections += 1
            connection.settimeout(5)
            with contextlib.suppress(OSError), connection:
                self._handle(connection)

    def _handle(self, connection):
        if not self.reads:
            self.say_nothing()
            return
        if self._tls:
            connection = self._tls.wrap_socket(connection, server_side=True)
        with connection:
            self.requests.append(self._request(connection))
            self.behave(connection)

    def _request(self, connection):
        head, body = b"", b""
        while b"\r\n\r\n" not in head:
            if not (received := connection.recv(4096)):
                raise ConnectionError
            head += received
        head, _, body = head.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:])
        while len(body) < int(headers["Content-Length"]):
            body += connection.recv(4096)
        return lines[0], headers, body
