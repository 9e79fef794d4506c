"""The environment as one checked value. app.py reads it on the first request, never at import."""

import re
from collections.abc import Mapping
from typing import Final

from msgspec import Struct

DEFAULT_REPLY_WAIT_S: Final = 20.0
MIN_REPLY_WAIT_S: Final = 1.0
MAX_REPLY_WAIT_S: Final = 25.0  # API Gateway gives up after 29 s
DEFAULT_MAX_QUEUE_DEPTH: Final = 200  # what one host of two cores clears within the default wait

# https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_CreateTable.html
_TABLE_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{3,255}")
_COUNT: Final = re.compile(r"[1-9][0-9]{0,8}")


class SettingsError(Exception):
    """The environment lacks a setting or holds a wrong one. Names all of them."""


class Settings(Struct, frozen=True, kw_only=True):
    """What the API is told from outside."""

    job_queue_url: str
    reply_wait_s: float
    keys_table: str
    max_queue_depth: int


def load(environ: Mapping[str, str]) -> Settings:
    """The settings in `environ`. Raises SettingsError."""
    wrong = []
    job_queue_url = environ.get("JOB_QUEUE_URL", "")
    if not job_queue_url.startswith(("https://", "http://")):
        wrong.append("JOB_QUEUE_URL must be the URL of the job queue")
    reply_wait_s = _number(environ.get("REPLY_WAIT_S", str(DEFAULT_REPLY_WAIT_S)))
    if not MIN_REPLY_WAIT_S <= reply_wait_s <= MAX_REPLY_WAIT_S:
        wrong.append(f"REPLY_WAIT_S must be a number from {MIN_REPLY_WAIT_S:g} to {MAX_REPLY_WAIT_S:g}")
    keys_table = environ.get("KEYS_TABLE", "")
    if not _TABLE_NAME.fullmatch(keys_table):
        wrong.append("KEYS_TABLE must be the name of the table of customer keys")
    max_queue_depth = environ.get("MAX_QUEUE_DEPTH", str(DEFAULT_MAX_QUEUE_DEPTH))
    if not _COUNT.fullmatch(max_queue_depth):
        wrong.append("MAX_QUEUE_DEPTH must be a whole number above 0")
    if wrong:
        raise SettingsError("; ".join(wrong))
    return Settings(
        job_queue_url=job_queue_url,
        reply_wait_s=reply_wait_s,
        keys_table=keys_table,
        max_queue_depth=int(max_queue_depth),
    )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")  # in no range
