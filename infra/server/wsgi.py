"""The API as a WSGI application, for a production server: `gunicorn --config python:infra.server.gunicorn_settings`.

As the local server does, it checks the key and the length of a request before it reads the body, and bounds the time
in which the body has to arrive.
"""

import base64
import time
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from chalice.local import LocalGatewayException

from chalicelib import problems
from infra.server.gateway import BODY_TIMEOUT_S, MAX_BODY_BYTES, Gateway, Headers, compress, load_app

if TYPE_CHECKING:
    from socket import socket

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_CHUNK_BYTES: Final = 64 * 1024


class _BodyError(Exception):
    """Raised when a body is too long or too slow. The argument is the status of the response."""


class Application:
    """The WSGI application of a gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Respond to one request."""
        status, headers, body = self._respond(environ)
        body, encoding = compress(body, accepted=environ.get("HTTP_ACCEPT_ENCODING", ""))
        lines = [
            *_lines({"Content-Type": "application/json", **headers, **encoding}),
            ("Content-Length", str(len(body))),
        ]
        start_response(f"{status} {HTTPStatus(status).phrase}", lines)
        return [body]

    def _respond(self, environ: "WSGIEnvironment") -> tuple[int, dict[str, Any], bytes]:
        method, path, headers = environ["REQUEST_METHOD"], environ["RAW_URI"], _request_headers(environ)
        body = None
        try:
            if _has_body(environ) and self._gateway.is_authenticated(method, path, headers):
                body = b"".join(_read_body(environ))
            response = self._gateway.handle_request(method, path, headers, body)
        except LocalGatewayException as error:
            return error.CODE, error.headers, error.body or b""
        except _BodyError as error:
            refusal = problems.problem_response(problems.problem_for_status(error.args[0]))
            extra = {**self._gateway.cors_headers(), "Cache-Control": "no-store", "Connection": "close"}
            return refusal.status_code, {**refusal.headers, **extra}, refusal.body.encode()
        content = response["body"] or ""
        body = base64.b64decode(content) if response.get("isBase64Encoded") else content.encode()
        return response["statusCode"], {**response["headers"], **response["multiValueHeaders"]}, body


def create_application() -> Application:
    """Return the application of the API."""
    return Application(Gateway(*load_app()))


def _request_headers(environ: "WSGIEnvironment") -> Headers:
    """Return the headers of a request. The server has joined the values of a repeated header with commas."""
    names = {name: name.removeprefix("HTTP_") for name in environ if name.startswith("HTTP_")}
    names |= {name: name for name in ("CONTENT_TYPE", "CONTENT_LENGTH") if environ.get(name)}
    return Headers({header.replace("_", "-").title(): [environ[name]] for name, header in names.items()})


def _has_body(environ: "WSGIEnvironment") -> bool:
    return environ.get("CONTENT_LENGTH", "0") != "0" or "HTTP_TRANSFER_ENCODING" in environ


def _read_body(environ: "WSGIEnvironment") -> Iterator[bytes]:
    """Yield the parts of a body. Raise _BodyError if it is too long or does not arrive in time."""
    if int(environ.get("CONTENT_LENGTH") or 0) > MAX_BODY_BYTES:
        raise _BodyError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    connection: socket = environ["gunicorn.socket"]
    deadline, remaining_bytes = time.monotonic() + BODY_TIMEOUT_S, MAX_BODY_BYTES
    try:
        while (remaining_s := deadline - time.monotonic()) > 0:
            connection.settimeout(remaining_s)
            part = environ["wsgi.input"].read(_CHUNK_BYTES)
            if not part:
                return
            remaining_bytes -= len(part)
            if remaining_bytes < 0:
                raise _BodyError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            yield part
    except TimeoutError:
        pass
    finally:
        connection.settimeout(None)
    raise _BodyError(HTTPStatus.REQUEST_TIMEOUT)


def _lines(headers: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in headers.items():
        for each in value if isinstance(value, list) else [value]:
            yield name, str(each)
