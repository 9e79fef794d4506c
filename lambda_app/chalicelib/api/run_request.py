"""Turns an untrusted POST request into a submission that is safe to send to the hosts."""

import json
import re
from enum import StrEnum
from typing import Final, NoReturn, cast

from chalice.app import Request

from chalicelib import problems
from chalicelib.access.admission import Caller
from chalicelib.access.api_keys import KeyRecord
from chalicelib.access.plans import Plan
from chalicelib.api.headers import idempotency_key
from chalicelib.api.prefer_header import Preference
from chalicelib.contract import (
    DEFAULT_TIMEOUT_S,
    MAX_ARGS,
    MAX_ARGS_BYTES,
    MAX_CODE_BYTES,
    MAX_COMPRESSED_PROGRAM_BYTES,
    MAX_INPUT_BYTES,
    MAX_TIMEOUT_S,
    MIN_TIMEOUT_S,
    compressed_program_bytes,
)
from chalicelib.jobs.submission import RunRequest, Submission
from chalicelib.problems import ProblemError
from chalicelib.runtimes import DEFAULT_RUNTIME, RUNTIMES
from chalicelib.webhooks import url as webhook_url

FIELDS: Final = ("code", "input", "args", "timeout_s", "runtime", "callback_url")
MAX_BODY_BYTES: Final = 4 * 1024 * 1024  # Lambda takes an event of 6 MB, in which quotes and backslashes are escaped
# A field has at most as many bytes as its JSON, and zlib adds far less than these 16 KiB to the largest program.
ALWAYS_FITTING_BODY_BYTES: Final = MAX_COMPRESSED_PROGRAM_BYTES - 16 * 1024
MAX_ECHO_CHARS: Final = 64  # of the name of an unknown field

# A missing Content-Type is rejected too: RFC 9110 8.3 leaves it to guessing, which HTML forms exploit.
_JSON_TYPE: Final = re.compile(r"application/json\s*(;\s*charset=(utf-8|\"utf-8\")\s*)?", re.IGNORECASE)


class RequestErrorCode(StrEnum):
    """What is wrong with a request: `code` of its problem. Stable, because clients compare it."""

    UNSUPPORTED_CONTENT_TYPE = "unsupported_content_type"  # anything but application/json
    TOO_LARGE = "too_large"  # the body, the UTF-8 text of a field, or the compressed program
    TOO_MANY = "too_many"  # items of an array
    INVALID_UTF8 = "invalid_utf8"
    INVALID_JSON = "invalid_json"  # RFC 8259: no NaN, no BOM
    NOT_AN_OBJECT = "not_an_object"
    DUPLICATE_NAME = "duplicate_name"  # in an object, at any depth
    UNKNOWN_FIELD = "unknown_field"
    MISSING = "missing"
    WRONG_TYPE = "wrong_type"
    EMPTY = "empty"
    LONE_SURROGATE = "lone_surrogate"
    CONTAINS_NUL = "contains_nul"
    OUT_OF_RANGE = "out_of_range"
    UNKNOWN_RUNTIME = "unknown_runtime"
    INVALID_URL = "invalid_url"
    REQUIRES_RESPOND_ASYNC = "requires_respond_async"


def _invalid(code: RequestErrorCode, detail: str, *, field: str | None = None) -> ProblemError:
    return ProblemError(problems.INVALID_REQUEST, detail=detail, field=field, code=code)


def _too_large(subject: str, *, actual_bytes: int, limit_bytes: int, field: str | None = None) -> ProblemError:
    return ProblemError(
        problems.TOO_LARGE,
        detail=f"{subject} {actual_bytes} bytes; the limit is {limit_bytes}.",
        field=field,
        code=RequestErrorCode.TOO_LARGE,
        limit_bytes=limit_bytes,
        actual_bytes=actual_bytes,
    )


def parse_submission(
    request: Request,
    caller: Caller,
    *,
    preference: Preference,
    default_wait_s: float,
    local_webhook_ports: frozenset[int],
) -> Submission:
    """Parse and validate a request to run code. Raise ProblemError if it is invalid or exceeds the caller's plan."""
    key = idempotency_key(request)
    body = cast("bytes", request.raw_body)  # annotated str | bytes, never str
    content_type = request.headers.get("content-type", "")
    run_request = parse_run_request(body, content_type=content_type, local_webhook_ports=local_webhook_ports)
    check_plan_limits(run_request, caller.plan)
    check_callback(run_request, caller.record, preference=preference)
    # A request with a callback_url never waits: its result is delivered.
    is_async = preference.respond_async and (preference.wait_s is None or run_request.callback_url is not None)
    return Submission(
        request=run_request,
        caller=caller,
        wait_s=preference.wait_s or default_wait_s,
        is_async=is_async,
        idempotency_key=key,
        body=body,
    )


def parse_run_request(
    body: bytes, *, content_type: str, local_webhook_ports: frozenset[int] = frozenset()
) -> RunRequest:
    """Parse a request body; `local_webhook_ports` as in the settings. Raise ProblemError if it is invalid."""
    if not _JSON_TYPE.fullmatch(content_type.strip()):
        raise ProblemError(problems.UNSUPPORTED_MEDIA_TYPE, code=RequestErrorCode.UNSUPPORTED_CONTENT_TYPE)
    if len(body) > MAX_BODY_BYTES:
        raise _too_large("The body has", actual_bytes=len(body), limit_bytes=MAX_BODY_BYTES)
    fields = _json_object(body)
    for name in fields:
        if name not in FIELDS:
            detail = f"Unknown field. Allowed: {', '.join(FIELDS)}."
            raise _invalid(RequestErrorCode.UNKNOWN_FIELD, detail, field=_shorten_field_name(name))
    run_request = _parse_fields(fields, local_webhook_ports=local_webhook_ports)
    if len(body) > ALWAYS_FITTING_BODY_BYTES:
        _check_compressed_size(run_request)
    return run_request


def _parse_fields(fields: dict[str, object], *, local_webhook_ports: frozenset[int]) -> RunRequest:
    code = _parse_string(fields, "code", limit_bytes=MAX_CODE_BYTES)
    if code is None:
        raise _invalid(RequestErrorCode.MISSING, "code is required.", field="code")
    if not code:
        raise _invalid(RequestErrorCode.EMPTY, "code must not be empty.", field="code")
    return RunRequest(
        code=code,
        input=_parse_string(fields, "input", limit_bytes=MAX_INPUT_BYTES, allow_nul=True) or "",
        args=_parse_args(fields),
        timeout_s=_parse_timeout_s(fields),
        runtime=_parse_runtime(fields),
        callback_url=_parse_callback_url(fields, local_ports=local_webhook_ports),
    )


def _check_compressed_size(request: RunRequest) -> None:
    actual_bytes = compressed_program_bytes(request.code, stdin=request.input, args=request.args)
    if actual_bytes > MAX_COMPRESSED_PROGRAM_BYTES:
        raise _too_large(
            "Compressed, code, input and args have",
            actual_bytes=actual_bytes,
            limit_bytes=MAX_COMPRESSED_PROGRAM_BYTES,
        )


def check_plan_limits(request: RunRequest, plan: Plan) -> None:
    """Raise ProblemError if the request asks for more than the plan allows."""
    if request.timeout_s > plan.max_timeout_s:
        raise ProblemError(
            problems.PLAN_LIMIT_EXCEEDED,
            detail=f"timeout_s exceeds the limit of {plan.max_timeout_s:g} s for plan {plan.name}.",
            field="timeout_s",
            plan=plan.name,
            limit_s=plan.max_timeout_s,
        )
    if len(request.input.encode()) > plan.max_input_bytes:
        raise ProblemError(
            problems.PLAN_LIMIT_EXCEEDED,
            detail=f"input exceeds the limit of {plan.max_input_bytes} bytes for plan {plan.name}.",
            field="input",
            plan=plan.name,
            limit_bytes=plan.max_input_bytes,
        )


def check_callback(request: RunRequest, key: KeyRecord, *, preference: Preference) -> None:
    """Raise ProblemError for a callback_url without Prefer: respond-async, or with a key without a signing secret."""
    if request.callback_url is None:
        return
    if not preference.respond_async:
        detail = "callback_url requires the header Prefer: respond-async."
        raise _invalid(RequestErrorCode.REQUIRES_RESPOND_ASYNC, detail, field="callback_url")
    if not key.signing_secret:
        raise ProblemError(problems.NO_SIGNING_SECRET)


def _json_object(body: bytes) -> dict[str, object]:
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _invalid(RequestErrorCode.INVALID_UTF8, "The body is not UTF-8.") from error
    try:
        value = json.loads(text, object_pairs_hook=_reject_duplicate_names, parse_constant=_reject_nan_and_infinity)
    except (ValueError, RecursionError) as error:
        raise _invalid(RequestErrorCode.INVALID_JSON, "The body is not JSON.") from error
    if not isinstance(value, dict):
        raise _invalid(RequestErrorCode.NOT_AN_OBJECT, "The body must be a JSON object.")
    return value


def _reject_duplicate_names(pairs: list[tuple[str, object]]) -> dict[str, object]:
    # Parsers disagree on which of two wins (RFC 8259, 4), so a proxy may have checked the other one.
    value: dict[str, object] = {}
    for name, member in pairs:
        if name in value:
            raise _invalid(RequestErrorCode.DUPLICATE_NAME, "Duplicate field name.", field=_shorten_field_name(name))
        value[name] = member
    return value


def _reject_nan_and_infinity(name: str) -> NoReturn:
    message = f"{name} is not JSON"
    raise ValueError(message)


def _parse_string(fields: dict[str, object], field: str, *, limit_bytes: int, allow_nul: bool = False) -> str | None:
    value = fields.get(field)
    return None if value is None else _check_text(value, field, limit_bytes=limit_bytes, allow_nul=allow_nul)


def _parse_args(fields: dict[str, object]) -> tuple[str, ...]:
    value = fields.get("args")
    if value is None:
        return ()
    if not isinstance(value, list):
        raise _invalid(RequestErrorCode.WRONG_TYPE, "args must be an array of strings.", field="args")
    if len(value) > MAX_ARGS:
        raise ProblemError(
            problems.INVALID_REQUEST,
            detail=f"args has {len(value)} items; the limit is {MAX_ARGS}.",
            field="args",
            code=RequestErrorCode.TOO_MANY,
            limit_items=MAX_ARGS,
            actual_items=len(value),
        )
    args = tuple(
        _check_text(item, f"args[{index}]", limit_bytes=MAX_ARGS_BYTES, allow_nul=False)
        for index, item in enumerate(value)
    )
    actual_bytes = len("".join(args).encode())
    if actual_bytes > MAX_ARGS_BYTES:
        raise _too_large("args has", actual_bytes=actual_bytes, limit_bytes=MAX_ARGS_BYTES, field="args")
    return args


def _check_text(value: object, field: str, *, limit_bytes: int, allow_nul: bool) -> str:
    if not isinstance(value, str):
        raise _invalid(RequestErrorCode.WRONG_TYPE, f"{field} must be a string.", field=field)
    try:
        actual_bytes = len(value.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise _invalid(
            RequestErrorCode.LONE_SURROGATE, f"{field} contains an unpaired surrogate.", field=field
        ) from error
    if actual_bytes > limit_bytes:
        raise _too_large(f"{field} has", actual_bytes=actual_bytes, limit_bytes=limit_bytes, field=field)
    if "\0" in value and not allow_nul:
        raise _invalid(RequestErrorCode.CONTAINS_NUL, f"{field} must not contain U+0000.", field=field)
    return value


def _parse_timeout_s(fields: dict[str, object]) -> float:
    value = fields.get("timeout_s")
    if value is None:
        return DEFAULT_TIMEOUT_S
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _invalid(RequestErrorCode.WRONG_TYPE, "timeout_s must be a number.", field="timeout_s")
    if not MIN_TIMEOUT_S <= value <= MAX_TIMEOUT_S:
        raise _invalid(
            RequestErrorCode.OUT_OF_RANGE,
            f"timeout_s must be from {MIN_TIMEOUT_S:g} to {MAX_TIMEOUT_S:g}.",
            field="timeout_s",
        )
    return float(value)


def _parse_runtime(fields: dict[str, object]) -> str:
    value = fields.get("runtime")
    if value is None:
        return DEFAULT_RUNTIME
    if not isinstance(value, str):
        raise _invalid(RequestErrorCode.WRONG_TYPE, "runtime must be a string.", field="runtime")
    if value not in RUNTIMES:
        detail = f"runtime must be one of: {', '.join(RUNTIMES)}."
        raise _invalid(RequestErrorCode.UNKNOWN_RUNTIME, detail, field="runtime")
    return value


def _parse_callback_url(fields: dict[str, object], *, local_ports: frozenset[int]) -> str | None:
    text = _parse_string(fields, "callback_url", limit_bytes=webhook_url.MAX_URL_CHARS)
    if text is not None:
        try:
            webhook_url.parse(text, local_ports=local_ports)
        except webhook_url.WebhookUrlError as error:
            raise _invalid(RequestErrorCode.INVALID_URL, f"callback_url {error}.", field="callback_url") from error
    return text


def _shorten_field_name(name: str) -> str:
    return name[:MAX_ECHO_CHARS].encode("utf-8", "backslashreplace").decode("utf-8")
