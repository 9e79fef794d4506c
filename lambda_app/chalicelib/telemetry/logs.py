"""Log lines of the API: one JSON object each, with what is known of the request that they belong to."""

import logging
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, Final

from pythonjsonlogger import json

# As executor_host/logs.py has them. The library leaves out what begins with _, hence the last one.
_FIELDS: Final = ("levelname", "name", "message")
_RENAMED: Final = {"levelname": "level", "name": "logger", "message": "event", "exc_info": "traceback", "emf": "_aws"}
_EMPTY: Final[Mapping[str, object]] = MappingProxyType({})

_context: ContextVar[Mapping[str, object]] = ContextVar("log_context", default=_EMPTY)


def begin(**fields: object) -> None:
    """Forget the last request on this thread; from now on `fields` go into each line."""
    _context.set(fields)


def add(**fields: object) -> None:
    """Put `fields` into each further line of this request."""
    _context.set({**_context.get(), **fields})


class JsonFormatter(json.JsonFormatter):
    """A record as one JSON object: the message is the event, `extra` and the request's fields are members."""

    def __init__(self) -> None:
        super().__init__(_FIELDS, rename_fields=_RENAMED, timestamp="time")

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        """As its base does, and the request's fields."""
        super().add_fields(log_data, record, message_dict)
        for name, value in _context.get().items():
            log_data.setdefault(name, value)


def configure(*names: str) -> None:
    """Send these loggers, and no others, to stdout as JSON lines."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    for name in names:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False  # Lambda's root handler would print each line a second time
        logger.setLevel(logging.INFO)
