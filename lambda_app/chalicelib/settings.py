"""The environment as one checked value. app.py reads it on the first request, never at import."""

import re
from collections.abc import Mapping
from typing import Final

from msgspec import Struct

DEFAULT_WAIT_S: Final = 20.0
MIN_WAIT_S: Final = 1.0
MAX_WAIT_S: Final = 25.0  # API Gateway gives up after 29 s
DEFAULT_MAX_QUEUE_DEPTH: Final = 200  # what one host of two cores clears within the default wait
DEFAULT_RESULT_RETENTION_S: Final = 86_400
DEFAULT_REPLY_QUEUE_PREFIX: Final = "python-exec-reply-"
DEFAULT_METRICS_NAMESPACE: Final = "PythonExec"

# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_CreateQueue.html; a UUID follows
_QUEUE_PREFIX: Final = re.compile(r"[A-Za-z0-9_-]{1,48}")
# https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_CreateTable.html
_TABLE_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{3,255}")
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricDatum.html
_NAMESPACE: Final = re.compile(r"[A-Za-z0-9._/#:-]{1,255}")
_COUNT: Final = re.compile(r"[1-9][0-9]{0,8}")
_URL: Final = re.compile(r"https?://.+")

_TEXTS: Final = (
    ("JOB_QUEUE_URL", "", _URL, "the URL of the job queue"),
    ("WEBHOOK_QUEUE_URL", "", _URL, "the URL of the webhook queue"),
    ("KEYS_TABLE", "", _TABLE_NAME, "the name of the table of customer keys"),
    ("JOBS_TABLE", "", _TABLE_NAME, "the name of the table of jobs"),
    ("REPLY_QUEUE_PREFIX", DEFAULT_REPLY_QUEUE_PREFIX, _QUEUE_PREFIX, "1 to 48 letters, digits, - and _"),
    ("METRICS_NAMESPACE", DEFAULT_METRICS_NAMESPACE, _NAMESPACE, "1 to 255 letters, digits and . _ / # : -"),
    ("RESULT_RETENTION_S", str(DEFAULT_RESULT_RETENTION_S), _COUNT, "a whole number above 0"),
    ("MAX_QUEUE_DEPTH", str(DEFAULT_MAX_QUEUE_DEPTH), _COUNT, "a whole number above 0"),
    ("ALLOW_LOCAL_WEBHOOKS", "", re.compile("(true)?"), "true or absent"),
)


class SettingsError(Exception):
    """The environment lacks a setting or holds a wrong one. Names all of them."""


class Settings(Struct, frozen=True, kw_only=True):
    """What the API is told from outside."""

    job_queue_url: str
    default_wait_s: float
    keys_table: str
    jobs_table: str
    metrics_namespace: str
    result_retention_s: int
    reply_queue_prefix: str
    max_queue_depth: int
    webhook_queue_url: str
    allow_local_webhooks: bool


def load(environ: Mapping[str, str]) -> Settings:
    """The settings in `environ`. Raises SettingsError."""
    wrong: list[str] = []
    values = {name: environ.get(name, default) for name, default, _, _ in _TEXTS}
    wrong += [f"{name} must be {what}" for name, _, rule, what in _TEXTS if not rule.fullmatch(values[name])]
    default_wait_s = _number(environ.get("DEFAULT_WAIT_S", str(DEFAULT_WAIT_S)))
    if not MIN_WAIT_S <= default_wait_s <= MAX_WAIT_S:
        wrong.append(f"DEFAULT_WAIT_S must be a number from {MIN_WAIT_S:g} to {MAX_WAIT_S:g}")
    if values["ALLOW_LOCAL_WEBHOOKS"] and "AWS_LAMBDA_FUNCTION_NAME" in environ:
        wrong.append("ALLOW_LOCAL_WEBHOOKS must be absent on Lambda")
    if wrong:
        raise SettingsError("; ".join(wrong))
    return Settings(
        job_queue_url=values["JOB_QUEUE_URL"],
        webhook_queue_url=values["WEBHOOK_QUEUE_URL"],
        keys_table=values["KEYS_TABLE"],
        jobs_table=values["JOBS_TABLE"],
        metrics_namespace=values["METRICS_NAMESPACE"],
        reply_queue_prefix=values["REPLY_QUEUE_PREFIX"],
        default_wait_s=default_wait_s,
        result_retention_s=int(values["RESULT_RETENTION_S"]),
        max_queue_depth=int(values["MAX_QUEUE_DEPTH"]),
        allow_local_webhooks=values["ALLOW_LOCAL_WEBHOOKS"] == "true",
    )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")  # in no range
