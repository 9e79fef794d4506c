"""Stand between the stack and the emulated AWS, and fail in the ways that AWS and networks fail."""

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

SQS, DYNAMODB, S3 = "AmazonSQS", "DynamoDB_20120810", ""  # prefixes of X-Amz-Target; S3 has none
REPLY_QUEUE = "python-exec-reply-"
DELAY_S = 4.0  # of replies: longer than the suite's clients and the API wait for one


class FaultProxy:
    """Forwards requests to the endpoints of their services, and fails as its attributes demand.

    `unavailable_service` names a service that is cut off, and `unavailable_payloads` requests to the payload store, by
    method and folder. `duplicate_messages` sends each message twice, and `delay_replies` delays replies. `hits` counts
    the requests that were affected, and failed polls of reply queues.
    """

    def __init__(self, upstreams):
        self.upstreams = {service: urlsplit(url).netloc for service, url in upstreams.items()}
        self.unavailable_service = self.unavailable_payloads = None
        self.duplicate_messages = self.delay_replies = False
        self.hits = 0
        self.on_received = lambda _queue, _body: None  # called with each message that was received
        self.on_sent = lambda _queue, _body: None  # called with each message that was sent
        self.reply_polls = set()  # handlers that wait for one now
        self.services = {}  # by connection
        self._lock = threading.Lock()
        proxy = self

        class Handler(_Handler):
            pass

        Handler.proxy = proxy
        self._server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @contextlib.contextmanager
    def running(self):
        """Serve until the context ends."""
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()

    def record_hit(self, count=1):
        """Count requests, jobs or messages that a fault affected."""
        with self._lock:
            self.hits += count

    def outage(self, service, seconds):
        """Close all connections to a service, and refuse new ones for some seconds."""
        self.unavailable_service = service
        for connection, service_name in list(self.services.items()):
            if service_name == service:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        time.sleep(seconds)
        self.unavailable_service = None


class _Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True

    def handle_error(self, request, client_address):
        """Ignore connections that killed clients left."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    proxy = None

    def setup(self):
        super().setup()
        self.upstreams = {
            service: http.client.HTTPConnection(netloc, timeout=60) for service, netloc in self.proxy.upstreams.items()
        }

    def finish(self):
        self.proxy.services.pop(self.connection, None)
        for upstream in self.upstreams.values():
            upstream.close()
        with contextlib.suppress(OSError):
            super().finish()

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.service, _, operation = self.headers.get("X-Amz-Target", "").partition(".")
        self.proxy.services[self.connection] = self.service
        if self.service == self.proxy.unavailable_service:
            self.proxy.record_hit()
            self.close_connection = True
        elif operation == "SendMessage":
            self._send(body, json.loads(body))
        elif operation == "ReceiveMessage":
            self._receive(body, json.loads(body)["QueueUrl"])
        else:
            self._answer(*self._forward(body))

    def do_HEAD(self):
        self._forward_payload()

    def do_GET(self):
        self._forward_payload()

    def do_PUT(self):
        self._forward_payload()

    def do_DELETE(self):
        self._forward_payload()

    def _forward_payload(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.service = self.proxy.services[self.connection] = S3
        # The path is /bucket/folder/id, or only /bucket while the stack starts.
        folder = self.path.split("/")[2:3]
        if self.proxy.unavailable_service == S3 or self.proxy.unavailable_payloads == (self.command, *folder):
            self.proxy.record_hit()
            self.close_connection = True
        else:
            self._answer(*self._forward(body))

    def _send(self, body, request):
        if self.proxy.delay_replies and REPLY_QUEUE in request["QueueUrl"]:
            self.proxy.record_hit()
            delayed = ("POST", self.path, body, dict(self.headers.items()))
            threading.Timer(DELAY_S, _forward_later, (self.proxy.upstreams[SQS], delayed)).start()
            queued = json.dumps({"MessageId": "0" * 36, "MD5OfMessageBody": _md5(request["MessageBody"])})
            self._answer(200, [("Content-Type", "application/x-amz-json-1.0")], queued.encode())
            return
        answer = self._forward(body)
        if answer[0] == 200:
            self.proxy.on_sent(request["QueueUrl"], request["MessageBody"])
            if self.proxy.duplicate_messages and self._forward(body)[0] == 200:
                self.proxy.record_hit()
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
            self.proxy.record_hit()
        self._answer(status, headers, answer)

    def _forward(self, body):
        upstream = self.upstreams[self.service]
        upstream.request(self.command, self.path, body=body, headers=dict(self.headers.items()))
        self._wait_for_either(upstream.sock)
        response = upstream.getresponse()
        return response.status, response.getheaders(), response.read()

    def _wait_for_either(self, answer):
        """Wait for the answer. Raise ConnectionAbortedError if the client disconnects first.

        Closing the connection to the emulator keeps it from handing a message to a client that is gone.
        """
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
        """Log nothing."""


def _forward_later(netloc, request):
    with contextlib.closing(http.client.HTTPConnection(netloc, timeout=60)) as upstream:
        upstream.request(*request)
        upstream.getresponse().read()


def _md5(text):
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
