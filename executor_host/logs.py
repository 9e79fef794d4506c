"""Write logs as one JSON object per line to stderr, for the processes of a host."""

import logging
from typing import Final

from pythonjsonlogger.json import JsonFormatter

# Same fields as chalicelib/telemetry/logs.py. The library drops names that start with _, so `_aws` is a rename.
_FIELDS: Final = ("levelname", "name", "message")
_RENAMED: Final = {"levelname": "level", "name": "logger", "message": "event", "exc_info": "traceback", "emf": "_aws"}


def formatter() -> logging.Formatter:
    """Return a formatter: the message is the event, and each key of `extra` is a member."""
    return JsonFormatter(_FIELDS, rename_fields=_RENAMED, timestamp="time")


def log_json_lines() -> None:
    """Log this package from INFO, everything else from WARNING."""
    handler = logging.StreamHandler()
    handler.setFormatter(formatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("executor_host").setLevel(logging.INFO)
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # its warnings contain URLs, and a presigned one is a secret
