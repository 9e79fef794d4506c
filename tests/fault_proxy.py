"""An HTTP proxy before the emulated AWS that can be out of order in the ways that AWS and networks are."""

import contextlib
import hashlib
import http.client
import json
import select
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

REPLY_QUEUE = "python-exec-reply-"
DELAY_S = 4.0  # of replies: above the wait of the suite's clients and the API's grace


class FaultProxy:
    """`down` refuses everything, `twice` sends each message twice, `late` holds replies back."""

    def __init__(self, upstream):
        self.upstream = urlsplit(upstream)
        self.down = self.twice = self.late = False
        self.on_received = lambda _: None  # told each message body that a host received
        self._connections = set()
        proxy = self

        class Handler(_Handler):
            pass

        Handler.proxy = proxy
        self._server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @contextlib.contextmanager
    def running(self):
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()

    @contextlib.contextmanager
    def outage(self, seconds):
        self.down = True
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        time.sleep(seconds)
        self.down = False
        yield


class _Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True

    def handle_error(self, request, client_address):
        """Clients that are killed are what this is about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    proxy = None

    def setup(self):
        super().setup()
        self.proxy._connections.add(self.connection)
        self.upstream = http.client.HTTPConnection(self.proxy.upstream.netloc, timeout=60)

    def finish(self):
        self.proxy._connections.discard(self.connection)
        self.upstream.close()
        with contextlib.suppress(OSError):
            super().finish()

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.proxy.down:
            self.close_connection = True
            return
        operation = self.headers.get("X-Amz-Target", "").rpartition(".")[2]
        send = operation == "SendMessage"
        if send and self.proxy.late and REPLY_QUEUE in json.loads(body)["QueueUrl"]:
            request = ("POST", self.path, body, dict(self.headers.items()))  # the connection goes on meanwhile
            threading.Timer(DELAY_S, _send_alone, (self.proxy.upstream.netloc, request)).start()
            queue = json.dumps({"MessageId": "0" * 36, "MD5OfMessageBody": _md5(json.loads(body)["MessageBody"])})
            self._answer(200, [("Content-Type", "application/x-amz-json-1.0")], queue.encode())
            return
        status, headers, answer = self._forward(body, self.upstream)
        if send and self.proxy.twice:
            self._forward(body, self.upstream)
        if operation == "ReceiveMessage" and status == 200:
            for message in json.loads(answer).get("Messages", ()):
                self.proxy.on_received(message["Body"])
        self._answer(status, headers, answer)

    def _forward(self, body, upstream):
        upstream.request("POST", self.path, body=body, headers=dict(self.headers.items()))
        if upstream is self.upstream:
            self._wait_for_either(upstream.sock)
        response = upstream.getresponse()
        return response.status, response.getheaders(), response.read()

    def _wait_for_either(self, answer):
        """Raises ConnectionAbortedError if the client goes first: the emulator must not hand a message to nobody."""
        readable, _, _ = select.select([answer, self.connection], [], [])
        if answer not in readable and not self.connection.recv(1, socket.MSG_PEEK):
            raise ConnectionAbortedError

    def _answer(self, status, headers, body):
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in {"content-length", "connection", "transfer-encoding"}:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Says nothing."""


def _send_alone(netloc, request):
    with contextlib.closing(http.client.HTTPConnection(netloc, timeout=60)) as upstream:
        upstream.request(*request)
        upstream.getresponse().read()


def _md5(text):
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
