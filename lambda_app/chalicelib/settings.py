"""The settings of the API, read from the environment on the first request, never at import."""

from collections.abc import Mapping
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from chalicelib.contract import PAYLOAD_STORE_URL_PATTERN

MIN_WAIT_S: Final = 1.0
MAX_WAIT_S: Final = 23.0  # API Gateway gives up after 29 s, a cold start and the grace for late replies included
DEFAULT_WAIT_S: Final = 20.0
# What one host of two cores clears within the default wait.
DEFAULT_MAX_QUEUE_DEPTH: Final = 200
DEFAULT_DATA_MAX_QUEUE_DEPTH: Final = 20
MAX_RESULT_RETENTION_S: Final = 46 * 3600
DEFAULT_METRICS_NAMESPACE: Final = "PythonExec"

# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_CreateQueue.html; a UUID follows
_QueuePrefix = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,48}\Z")]
# https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_CreateTable.html
_TableName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{3,255}\Z")]
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricDatum.html
_Namespace = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._/#:-]{1,255}\Z")]
_Url = Annotated[str, Meta(pattern=r"^https?://.")]
_Ports = Annotated[str, Meta(pattern=r"^([1-9][0-9]{0,4}(,[1-9][0-9]{0,4})*)?\Z")]
_Count = Annotated[int, Meta(ge=1, le=999_999_999)]


class SettingsError(Exception):
    """Raised when settings are missing or invalid; the message names all of them."""


class Settings(Struct, frozen=True, kw_only=True, rename="upper"):
    """The environment variables of the API. docs/configuration.md describes them."""

    job_queue_url: _Url
    data_job_queue_url: _Url
    webhook_queue_url: _Url
    payload_store_url: Annotated[str, Meta(pattern=PAYLOAD_STORE_URL_PATTERN)]
    keys_table: _TableName
    jobs_table: _TableName
    default_wait_s: Annotated[float, Meta(ge=MIN_WAIT_S, le=MAX_WAIT_S)] = DEFAULT_WAIT_S
    # The payload store keeps an object for two days; a job starts within an hour.
    result_retention_s: Annotated[int, Meta(ge=1, le=MAX_RESULT_RETENTION_S)] = 86_400
    max_queue_depth: _Count = DEFAULT_MAX_QUEUE_DEPTH
    data_max_queue_depth: _Count = DEFAULT_DATA_MAX_QUEUE_DEPTH
    reply_queue_prefix: _QueuePrefix = "python-exec-reply-"
    metrics_namespace: _Namespace = DEFAULT_METRICS_NAMESPACE
    local_webhook_ports: _Ports = ""

    @property
    def job_queue_urls(self) -> dict[str, str]:
        """Return the URL of the job queue of each runtime."""
        return {"python": self.job_queue_url, "data": self.data_job_queue_url}

    @property
    def max_queue_depths(self) -> dict[str, int]:
        """Return the depth above which the job queue of each runtime is full."""
        return {"python": self.max_queue_depth, "data": self.data_max_queue_depth}

    @property
    def webhook_ports(self) -> frozenset[int]:
        """Return the ports of `local_webhook_ports`."""
        return frozenset(int(port) for port in self.local_webhook_ports.split(",") if port)


def load(environment: Mapping[str, str]) -> Settings:
    """Return the settings of an environment. Raise SettingsError."""
    values, errors = {}, []
    for field in msgspec.structs.fields(Settings):
        raw = environment.get(field.encode_name)
        if raw is None:
            if field.required:
                errors.append(f"{field.encode_name} is missing")
            continue
        try:
            values[field.name] = msgspec.convert(raw, field.type, strict=False)
        except msgspec.ValidationError as error:
            errors.append(f"{field.encode_name}: {error}")
    if values.get("local_webhook_ports") and "AWS_LAMBDA_FUNCTION_NAME" in environment:
        errors.append("LOCAL_WEBHOOK_PORTS must not be set on Lambda")
    if errors:
        raise SettingsError("; ".join(errors))
    return Settings(**values)
