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

SQS, DYNAMODB = "AmazonSQS", "DynamoDB_20120810"  # how their X-Amz-Target begins
REPLY_QUEUE = "python-exec-reply-"
DELAY_S = 4.0  # of replies: above the wait of the suite's clients and the API's grace


class FaultProxy:
    """`down` is a service that it refuses, `twice` sends each message twice, `late` holds replies back.

    `struck` counts the requests that met one of these, and polls of a reply queue that is gone.
    """

    def __init__(self, upstream):
        self.upstream = urlsplit(upstream)
        self.down = None
        self.twice = self.late = False
        self.struck = 0
        self.on_received = lambda _queue, _body: None  # told each message that somebody received
        self.on_sent = lambda _queue, _body: None  # told each message that a queue took
        self.reply_polls = set()  # under way
        self.services = {}  # of connections
        self._lock = threading.Lock()
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

    def strike(self, count=1):
        with self._lock:
            self.struck += count

    def outage(self, service, seconds):
        self.down = service
        for connection, its in list(self.services.items()):
            if its == service:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        time.sleep(seconds)
        self.down = None


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
        self.upstream = http.client.HTTPConnection(self.proxy.upstream.netloc, timeout=60)

    def finish(self):
        self.proxy.services.pop(self.connection, None)
        self.upstream.close()
        with contextlib.suppress(OSError):
            super().finish()

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        service, _, operation = self.headers.get("X-Amz-Target", "").partition(".")
        self.proxy.services[self.connection] = service
        if service == self.proxy.down:
            self.proxy.strike()
            self.close_connection = True
        elif operation == "SendMessage":
            self._send(body, json.loads(body))
        elif operation == "ReceiveMessage":
            self._receive(body, json.loads(body)["QueueUrl"])
        else:
            self._answer(*self._forward(body))

    def _send(self, body, request):
        if self.proxy.late and REPLY_QUEUE in request["QueueUrl"]:
            self.proxy.strike()
            alone = ("POST", self.path, body, dict(self.headers.items()))  # the connection goes on meanwhile
            threading.Timer(DELAY_S, _send_alone, (self.proxy.upstream.netloc, alone)).start()
            queued = json.dumps({"MessageId": "0" * 36, "MD5OfMessageBody": _md5(request["MessageBody"])})
            self._answer(200, [("Content-Type", "application/x-amz-json-1.0")], queued.encode())
            return
        answer = self._forward(body)
        if answer[0] == 200:
            self.proxy.on_sent(request["QueueUrl"], request["MessageBody"])
            if self.proxy.twice and self._forward(body)[0] == 200:
                self.proxy.strike()
        self._answer(*answer)

    def _receive(self, body, queue):
        is_reply = REPLY_QUEUE in queue
        if is_reply:
            self.proxy.reply_polls.add(self)
        try:
            status, headers, answer = self._forward(body)
        finally:
            self.proxy.reply_polls.discard(self)
        if status == 200:
            for message in json.loads(answer).get("Messages", ()):
                self.proxy.on_received(queue, message["Body"])
        elif is_reply:
            self.proxy.strike()
        self._answer(status, headers, answer)

    def _forward(self, body):
        self.upstream.request("POST", self.path, body=body, headers=dict(self.headers.items()))
        self._wait_for_either(self.upstream.sock)
        response = self.upstream.getresponse()
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
