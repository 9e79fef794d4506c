"""SQS and DynamoDB on this machine: moto's server, exact under concurrency. For infra/local/stack.py and the tests.

Alone, moto 5.2.5 lost 5 of 600 messages of 4 producers and 4 consumers, let 11 conditional updates through
a limit of 10, and handed messages to clients that were gone. Here a request holds one lock from its first
step to its last, and only a long poll that waits gives it up. That reaches into moto, hence its version.
"""

import argparse
import functools
import importlib.metadata
import io
import logging
import select
import socket
import sys
import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import flask
from moto import backends
from moto.core import responses, utils
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from moto.sqs import models
from moto.sqs.models import Message, Queue, SQSBackend
from werkzeug.serving import make_server

from infra.local.processes import LOOPBACK

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

MOTO_VERSION: Final = "5.2.5"
RECHECK_S: Final = 0.02  # how late a message that becomes visible by itself may be received

if (_found := importlib.metadata.version("moto")) != MOTO_VERSION:
    raise ImportError(
        f"infra/local/aws_emulator.py patches moto {MOTO_VERSION}, and this is {_found}: see requirements.txt"
    )

_lock: Final = threading.RLock()
_init_queue: Final = Queue.__init__
_receive_now: Final = SQSBackend.receive_message


class Emulator(DomainDispatcherApplication):
    """moto's WSGI application, one request at a time; a request is read before its turn comes."""

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        with _lock:
            response: Iterable[bytes] = super().__call__(environ, start_response)
            return response


class Handler(MotoRequestHandler):
    """Keeps connections alive, sends at once, logs nothing."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass


def _init_queue_with_lock(queue: Queue, *args: Any, **kwargs: Any) -> None:
    _init_queue(queue, *args, **kwargs)
    queue._messages_lock = threading.Condition(_lock)  # whoever waits for a message lets the other requests go on


def _receive_message(  # noqa: PLR0917 - the signature is moto's
    backend: SQSBackend,
    queue_name: str,
    count: int,
    wait_seconds_timeout: int,
    visibility_timeout: int,
    message_attribute_names: list[str] | None = None,
) -> list[Message]:
    deadline = time.time() + wait_seconds_timeout
    while not _client_is_gone():
        messages = _receive_now(backend, queue_name, count, 0, visibility_timeout, message_attribute_names)
        left_s = deadline - time.time()
        if messages or left_s <= 0:
            return messages
        queue = backend.get_queue(queue_name)
        queue._messages_lock.wait(min(left_s, _until_next_visible_s(queue)))
    return []


def _client_is_gone() -> bool:
    """Whether the waiting client has closed its connection, so that nobody would see what it is given."""
    connection: socket.socket = flask.request.environ["werkzeug.socket"]
    readable, _, _ = select.select([connection], [], [], 0)
    return bool(readable) and connection.recv(1, socket.MSG_PEEK) == b""


def _until_next_visible_s(queue: Queue) -> float:
    """Until a message that is in flight or delayed may be received; moto's clock is in milliseconds."""
    due_ms = [max(message.visible_at, message.delayed_until) for message in queue._messages]
    return max(RECHECK_S, min(due_ms, default=float("inf")) / 1000 - time.time())


_services: Final = tuple(backends.list_of_moto_modules())
for _owner, _name, _replacement in (
    (Queue, "__init__", _init_queue_with_lock),
    (SQSBackend, "receive_message", _receive_message),
    # Pure functions, and half the time of a request.
    (backends, "list_of_moto_modules", lambda: _services),
    (responses, "method_names_from_class", functools.cache(utils.method_names_from_class)),
    (models, "camelcase_to_underscores", functools.cache(utils.camelcase_to_underscores)),
):
    setattr(_owner, _name, _replacement)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m infra.local.aws_emulator", description=__doc__.split("\n")[0])
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args(arguments).port
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    emulator = Emulator(create_backend_app)
    make_server(LOOPBACK, port, emulator, threaded=True, request_handler=Handler).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
