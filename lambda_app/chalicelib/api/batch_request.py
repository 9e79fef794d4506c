"""Turns the untrusted body of `POST /batch` into a request that is safe to send to the hosts."""

from typing import Final

from chalicelib.api import request_fields
from chalicelib.api.request_fields import RequestErrorCode, invalid_field
from chalicelib.api.request_files import parse_files
from chalicelib.contract import MAX_BATCH_RUNS, MAX_INPUT_BYTES, Run, batch_output_limits
from chalicelib.jobs.expectations import Expectations, output_digest
from chalicelib.jobs.submission import RunRequest

FIELDS: Final = ("code", "runs", "files", "timeout_s", "runtime", "stop_on_failure", "callback_url")
RUN_FIELDS: Final = ("input", "args", "expected_output")


def parse_batch_request(fields: dict[str, object], *, local_webhook_ports: frozenset[int] = frozenset()) -> RunRequest:
    """Parse the fields of a body; `local_webhook_ports` as in the settings. Raise ProblemError if one is invalid."""
    request_fields.reject_unknown_fields(fields, allowed=FIELDS)
    code = request_fields.parse_code(fields)
    items = _parse_items(fields)
    max_output_bytes = batch_output_limits(len(items)).stdout_bytes
    runs, digests = zip(
        *(_parse_run(item, f"runs[{number}]", max_output_bytes=max_output_bytes) for number, item in enumerate(items)),
        strict=True,
    )
    stop_on_failure = _parse_stop_on_failure(fields)
    return RunRequest(
        code=code,
        files=parse_files(fields),
        runs=runs,
        expectations=Expectations(digests=digests, stop_on_failure=stop_on_failure),
        timeout_s=request_fields.parse_timeout_s(fields),
        runtime=request_fields.parse_runtime(fields),
        callback_url=request_fields.parse_callback_url(fields, local_ports=local_webhook_ports),
    )


def _parse_items(fields: dict[str, object]) -> list[object]:
    if fields.get("runs") is None:
        raise invalid_field("runs", RequestErrorCode.MISSING, "is required")
    items = request_fields.parse_array(fields, "runs", items="objects", limit_items=MAX_BATCH_RUNS)
    if not items:
        raise invalid_field("runs", RequestErrorCode.EMPTY, "must not be empty")
    return items


def _parse_run(item: object, field: str, *, max_output_bytes: int) -> tuple[Run, bytes | None]:
    """Return a run, and the digest of the output that is expected of it. A longer one could never be returned."""
    members, prefix = request_fields.check_object(item, field, allowed=RUN_FIELDS), f"{field}."
    text = request_fields.parse_string(members, "input", limit_bytes=MAX_INPUT_BYTES, allow_nul=True, prefix=prefix)
    expected = request_fields.parse_string(
        members, "expected_output", limit_bytes=max_output_bytes, allow_nul=True, prefix=prefix
    )
    run = Run(input=text or "", args=request_fields.parse_args(members, prefix=prefix))
    return run, None if expected is None else output_digest(expected)


def _parse_stop_on_failure(fields: dict[str, object]) -> bool:
    value = fields.get("stop_on_failure")
    if value is None:
        return False
    if not isinstance(value, bool):
        raise invalid_field("stop_on_failure", RequestErrorCode.WRONG_TYPE, "must be true or false")
    return value
