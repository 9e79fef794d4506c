"""Writes the log lines of the API: one JSON object each, with the fields of the request that they belong to."""

import logging
import sys
from typing import Any, Final

from pythonjsonlogger import json

from chalicelib.telemetry import request_context

# The same as in executor_host/logs.py. The library omits fields that begin with _, hence the last one.
_FIELDS: Final = ("levelname", "name", "message")
_FIELD_NAMES: Final = {
    "levelname": "level",
    "name": "logger",
    "message": "event",
    "exc_info": "traceback",
    "emf": "_aws",
}


class JsonFormatter(json.JsonFormatter):
    """Formats a record as one JSON object: the message is the event; `extra` and the request's fields are members."""

    def __init__(self) -> None:
        super().__init__(_FIELDS, rename_fields=_FIELD_NAMES, timestamp="time")

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        """Add the fields of the request to those of the record."""
        super().add_fields(log_data, record, message_dict)
        for name, value in request_context.current().log_fields.items():
            log_data.setdefault(name, value)


def configure(*names: str) -> None:
    """Write these loggers, and no others, to stdout as JSON lines."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    for name in names:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False  # Lambda's root handler would print each line a second time
        logger.setLevel(logging.INFO)
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # its warnings contain URLs, and a presigned one is a secret
