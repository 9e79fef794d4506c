"""Emulate SQS, DynamoDB and S3 with moto's server, corrected for concurrency, for the local stack and the tests.

Without this module, moto 5.2.5 lost 5 of 600 messages of 4 producers and 4 consumers, let 11 conditional updates
pass a limit of 10, delivered messages to disconnected clients, and let a message group delay all others. Here, a
request keeps one lock until it ends; only a waiting long poll releases it. This depends on moto's internals, so its
version is pinned.
"""

import functools
import importlib.metadata
import io
import logging
import select
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable
from operator import itemgetter
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
MIN_RECHECK_S: Final = 0.02  # the delay after which a long poll sees that a message has become visible

if (_installed := importlib.metadata.version("moto")) != MOTO_VERSION:
    raise ImportError(
        f"infra/local/aws_emulator.py patches moto {MOTO_VERSION}, but {_installed} is installed. See requirements.txt."
    )

_lock: Final = threading.RLock()
_moto_init_queue: Final = Queue.__init__
_moto_receive_message: Final = SQSBackend.receive_message


class Emulator(DomainDispatcherApplication):
    """moto's WSGI application, which handles one request at a time after reading it completely."""

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Handle one request."""
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        with _lock:
            response: Iterable[bytes] = super().__call__(environ, start_response)
            return response


class Handler(MotoRequestHandler):
    """A request handler that keeps connections alive, does not delay responses and logs nothing."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Log nothing."""


def _init_queue_with_lock(queue: Queue, *args: Any, **kwargs: Any) -> None:
    _moto_init_queue(queue, *args, **kwargs)
    queue._messages_lock = threading.Condition(_lock)  # waiting releases the lock for other requests


def _receive_message(  # noqa: PLR0917 - the signature is moto's
    backend: SQSBackend,
    queue_name: str,
    count: int,
    wait_seconds_timeout: int,
    visibility_timeout: int,
    message_attribute_names: list[str] | None = None,
) -> list[Message]:
    deadline = time.time() + wait_seconds_timeout
    while not _is_client_disconnected():
        messages = _moto_receive_message(backend, queue_name, count, 0, visibility_timeout, message_attribute_names)
        remaining_s = deadline - time.time()
        if messages or remaining_s <= 0:
            return messages
        queue = backend.get_queue(queue_name)
        queue._messages_lock.wait(min(remaining_s, _seconds_until_next_visible(queue)))
    return []


def _messages_in_turn(queue: Queue) -> list[Message]:
    """Return the visible messages as a fair queue delivers them: groups with the fewest messages in flight first.

    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-fair-queues.html
    """
    taken = Counter(message.group_id for message in queue._messages if not message.visible)
    turns = []
    for message in queue._messages:
        if message.visible and not message.delayed:
            turns.append((taken[message.group_id], message))
            taken[message.group_id] += 1
    return [message for _, message in sorted(turns, key=itemgetter(0))]


def _is_client_disconnected() -> bool:
    """Return whether the waiting client has closed its connection and would lose a message."""
    connection: socket.socket = flask.request.environ["werkzeug.socket"]
    readable, _, _ = select.select([connection], [], [], 0)
    return bool(readable) and connection.recv(1, socket.MSG_PEEK) == b""


def _seconds_until_next_visible(queue: Queue) -> float:
    """Return when a message that is in flight or delayed becomes visible; moto's clock counts milliseconds."""
    due_ms = [max(message.visible_at, message.delayed_until) for message in queue._messages]
    return max(MIN_RECHECK_S, min(due_ms, default=float("inf")) / 1000 - time.time())


_services: Final = tuple(backends.list_of_moto_modules())
for _owner, _name, _replacement in (
    (Queue, "__init__", _init_queue_with_lock),
    (Queue, "messages", property(_messages_in_turn)),
    (SQSBackend, "receive_message", _receive_message),
    # Caching these pure functions halves the time of a request.
    (backends, "list_of_moto_modules", lambda: _services),
    (responses, "method_names_from_class", functools.cache(utils.method_names_from_class)),
    (models, "camelcase_to_underscores", functools.cache(utils.camelcase_to_underscores)),
):
    setattr(_owner, _name, _replacement)


def main(port: int) -> None:
    """Serve forever."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    emulator = Emulator(create_backend_app)
    make_server(LOOPBACK, port, emulator, threaded=True, request_handler=Handler).serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]))
