"""One JSON object a line on stderr, for the processes of a host."""

import logging
from typing import Final

from pythonjsonlogger.json import JsonFormatter

# As chalicelib/telemetry/logs.py has them. The library leaves out what begins with _, hence the last one.
_FIELDS: Final = ("levelname", "name", "message")
_RENAMED: Final = {"levelname": "level", "name": "logger", "message": "event", "exc_info": "traceback", "emf": "_aws"}


def formatter() -> logging.Formatter:
    """A record as one JSON object: the message is the event, `extra` are members."""
    return JsonFormatter(_FIELDS, rename_fields=_RENAMED, timestamp="time")


def log_json_lines() -> None:
    """What is ours from INFO, what is others' from WARNING."""
    handler = logging.StreamHandler()
    handler.setFormatter(formatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("executor_host").setLevel(logging.INFO)
