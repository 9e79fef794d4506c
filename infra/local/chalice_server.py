"""Serve the API with Chalice's local server, with less latency and with reload. Only infra/local/stack.py starts it."""

import argparse
import io
import sys
from http import HTTPStatus
from http.client import HTTPMessage
from http.server import BaseHTTPRequestHandler
from typing import Any

from chalice.config import Config
from chalice.local import ChaliceRequestHandler, LocalDevServer

from chalicelib import problems
from infra.local.bounded_http import BoundedServer, RequestReader, discard_rest, is_ambiguous
from infra.local.reload import restart_on_change
from infra.server.gateway import BODY_TIMEOUT_S, MAX_BODY_BYTES, Gateway, Headers, compress, load_app


class Handler(ChaliceRequestHandler):
    """A request handler that checks the headers, the key and the length of the body before it reads the body.

    It logs nothing, because the API logs each request: request lines may hold a key.
    """

    disable_nagle_algorithm = True  # the delay costs 44 ms per request of a kept connection
    local_gateway: Gateway
    rfile: io.BufferedIOBase

    def __init__(self, request: Any, client_address: Any, server: Any, app_object: Any, config: Config) -> None:  # noqa: ANN401
        self.local_gateway = Gateway(app_object, config)
        BaseHTTPRequestHandler.__init__(self, request, client_address, server)

    def setup(self) -> None:
        """Prepare a connection."""
        super().setup()
        self.rfile.close()
        self._reader = RequestReader(self.connection)
        self.rfile = io.BufferedReader(self._reader)
        self._has_unread_body = False

    def finish(self) -> None:
        """Close a connection."""
        if self._has_unread_body:
            discard_rest(self.connection)
        super().finish()

    def handle_one_request(self) -> None:
        """Handle one request, and wait for the next one."""
        super().handle_one_request()
        self._reader.wait_for_next_request()

    def parse_request(self) -> bool:
        """Read the head of a request. If it is unacceptable, respond and return False."""
        if not super().parse_request():
            return False
        if is_ambiguous(self.headers):
            self.send_error(HTTPStatus.BAD_REQUEST)
            return False
        length = int(self.headers.get("Content-Length", "0"))
        self._body_bytes = 0
        if length == 0:
            return True
        if not self.local_gateway.is_authenticated(self.command, self.path, _headers(self.headers)):
            self._has_unread_body = True  # the response will be the same without it
            return True
        if length > MAX_BODY_BYTES:
            self.send_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return False
        self._body_bytes = length
        return True

    def handle_expect_100(self) -> bool:
        """Do nothing yet: the client is asked to continue when its body is read."""
        return True

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """Refuse a request that does not reach the API, in the same form as the API, and close the connection."""
        self._has_unread_body = True
        response = problems.problem_response(problems.problem_for_status(code))
        headers = {**self.local_gateway.cors_headers(), **response.headers, "Cache-Control": "no-store"}
        self._send_http_response(response.status_code, headers, response.body)

    def end_headers(self) -> None:
        """End the headers of a response."""
        if self._has_unread_body and not self.close_connection:
            self.send_header("Connection", "close")  # which sets close_connection
        super().end_headers()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        """Return the handler of a method that Chalice does not know, so that its response is 405 instead of 501."""
        if name.startswith("do_"):
            return self._generic_handle
        raise AttributeError(name)

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def _send_http_response_with_body(self, code: int, headers: dict[str, Any], body: str | bytes) -> None:
        """Compress a large response for a client that accepts that, as API Gateway does."""
        content = body.encode() if isinstance(body, str) else body
        received = getattr(self, "headers", {})  # none, if they were too large
        content, encoding = compress(content, accepted=received.get("Accept-Encoding", ""))
        super()._send_http_response_with_body(code, {**headers, **encoding}, content)

    def _parse_payload(self) -> tuple[dict[str, str], bytes | None]:
        return _headers(self.headers), self._read_body() if self._body_bytes else None

    def _read_body(self) -> bytes:
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(HTTPStatus.CONTINUE)
            self.end_headers()
        self._reader.limit(self._body_bytes, timeout_s=BODY_TIMEOUT_S)
        return self.rfile.read(self._body_bytes)


def _headers(message: HTTPMessage) -> Headers:
    return Headers({name: message.get_all(name, []) for name in message})


def main(arguments: list[str]) -> None:
    """Serve the API forever."""
    parser = argparse.ArgumentParser(prog="python -m infra.local.chalice_server", description=__doc__)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--reload", action="store_true", help="restart when a source file changes")
    options = parser.parse_args(arguments)
    if options.reload:
        restart_on_change()
    LocalDevServer(*load_app(), options.host, options.port, Handler, BoundedServer).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
