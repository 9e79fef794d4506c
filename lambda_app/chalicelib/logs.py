"""Log lines of the API: one JSON object each, with what is known of the request that they belong to."""

import json
import logging
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_EMPTY: Final[Mapping[str, object]] = MappingProxyType({})

_context: ContextVar[Mapping[str, object]] = ContextVar("log_context", default=_EMPTY)


def begin(**fields: object) -> None:
    """Forget the last request on this thread; from now on `fields` go into each line."""
    _context.set(fields)


def add(**fields: object) -> None:
    """Put `fields` into each further line of this request."""
    _context.set({**_context.get(), **fields})


class JsonFormatter(logging.Formatter):
    """A record as one JSON object: the message is the event, `extra` and the request's fields are members."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **_context.get(),
            **{name: value for name, value in vars(record).items() if name not in _STANDARD},
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure(*names: str) -> None:
    """Send these loggers, and no others, to stdout as JSON lines."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    for name in names:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False  # Lambda's root handler would print each line a second time
        logger.setLevel(logging.INFO)
