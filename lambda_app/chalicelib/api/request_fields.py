"""Parses the fields that requests to run programs have in common. Each function raises ProblemError for its field."""

import json
import re
from collections.abc import Collection
from enum import StrEnum
from typing import Final, NoReturn

from chalicelib import problems
from chalicelib.contract import (
    DEFAULT_TIMEOUT_S,
    MAX_ARGS,
    MAX_ARGS_BYTES,
    MAX_CODE_BYTES,
    MAX_TIMEOUT_S,
    MIN_TIMEOUT_S,
)
from chalicelib.problems import ProblemError
from chalicelib.runtimes import DEFAULT_RUNTIME, RUNTIMES
from chalicelib.webhooks import url as webhook_url

# 3 MiB of files are 4 MiB in base64. Lambda takes an event of 6 MB, in which quotes and backslashes are escaped.
MAX_BODY_BYTES: Final = 5 * 1024 * 1024

MAX_ECHO_CHARS: Final = 64  # of the name of an unknown field

# A missing Content-Type is rejected too: RFC 9110 8.3 leaves it to guessing, which HTML forms exploit.
_JSON_TYPE: Final = re.compile(r"application/json\s*(;\s*charset=(utf-8|\"utf-8\")\s*)?", re.IGNORECASE)


class RequestErrorCode(StrEnum):
    """What is wrong with a request: `code` of its problem. Stable, because clients compare it."""

    UNSUPPORTED_CONTENT_TYPE = "unsupported_content_type"  # anything but application/json
    TOO_LARGE = "too_large"  # the body, or the UTF-8 text of a field
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
    INVALID_PATH = "invalid_path"  # not relative, or not normalized
    RESERVED_PATH = "reserved_path"  # main.py
    DUPLICATE_PATH = "duplicate_path"
    CONFLICTING_PATH = "conflicting_path"  # of a file that would be in another file
    INVALID_BASE64 = "invalid_base64"  # RFC 4648, section 4, with padding and without line breaks
    MUTUALLY_EXCLUSIVE = "mutually_exclusive"  # members of which only one may be present
    INVALID_URL = "invalid_url"
    REQUIRES_RESPOND_ASYNC = "requires_respond_async"


def invalid_field(code: RequestErrorCode, detail: str, *, field: str | None = None) -> ProblemError:
    """Return the problem of a request that is not valid."""
    return ProblemError(problems.INVALID_REQUEST, detail=detail, field=field, code=code)


def too_large(subject: str, *, actual_bytes: int, limit_bytes: int, field: str | None = None) -> ProblemError:
    """Return the problem of something with too many bytes, for example "input has"."""
    return ProblemError(
        problems.TOO_LARGE,
        detail=f"{subject} {actual_bytes} bytes; the limit is {limit_bytes}.",
        field=field,
        code=RequestErrorCode.TOO_LARGE,
        limit_bytes=limit_bytes,
        actual_bytes=actual_bytes,
    )


def too_many(field: str, *, actual_items: int, limit_items: int) -> ProblemError:
    """Return the problem of an array with too many items."""
    return ProblemError(
        problems.INVALID_REQUEST,
        detail=f"{field} has {actual_items} items; the limit is {limit_items}.",
        field=field,
        code=RequestErrorCode.TOO_MANY,
        limit_items=limit_items,
        actual_items=actual_items,
    )


def parse_body(body: bytes, *, content_type: str, allowed: Collection[str]) -> dict[str, object]:
    """Return the members of the JSON object in a body."""
    check_json_body(body, content_type=content_type)
    fields = _json_object(body)
    reject_unknown_fields(fields, allowed=allowed)
    return fields


def check_json_body(body: bytes, *, content_type: str) -> None:
    """Raise ProblemError unless a body is declared as JSON and is not too large."""
    if not _JSON_TYPE.fullmatch(content_type.strip()):
        raise ProblemError(problems.UNSUPPORTED_MEDIA_TYPE, code=RequestErrorCode.UNSUPPORTED_CONTENT_TYPE)
    if len(body) > MAX_BODY_BYTES:
        raise too_large("The body has", actual_bytes=len(body), limit_bytes=MAX_BODY_BYTES)


def reject_unknown_fields(fields: dict[str, object], *, allowed: Collection[str], prefix: str = "") -> None:
    """Raise ProblemError if an object has other members."""
    for name in fields:
        if name not in allowed:
            detail = f"Unknown field. Allowed: {', '.join(allowed)}."
            raise invalid_field(RequestErrorCode.UNKNOWN_FIELD, detail, field=prefix + _shorten_field_name(name))


def parse_code(fields: dict[str, object]) -> str:
    """Return the program."""
    code = parse_string(fields, "code", limit_bytes=MAX_CODE_BYTES)
    if code is None:
        raise invalid_field(RequestErrorCode.MISSING, "code is required.", field="code")
    if not code:
        raise invalid_field(RequestErrorCode.EMPTY, "code must not be empty.", field="code")
    return code


def _json_object(body: bytes) -> dict[str, object]:
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise invalid_field(RequestErrorCode.INVALID_UTF8, "The body is not UTF-8.") from error
    try:
        value = json.loads(text, object_pairs_hook=_reject_duplicate_names, parse_constant=_reject_nan_and_infinity)
    except (ValueError, RecursionError) as error:
        raise invalid_field(RequestErrorCode.INVALID_JSON, "The body is not JSON.") from error
    if not isinstance(value, dict):
        raise invalid_field(RequestErrorCode.NOT_AN_OBJECT, "The body must be a JSON object.")
    return value


def _reject_duplicate_names(pairs: list[tuple[str, object]]) -> dict[str, object]:
    # Parsers disagree on which of two wins (RFC 8259, 4), so a proxy may have checked the other one.
    value: dict[str, object] = {}
    for name, member in pairs:
        if name in value:
            raise invalid_field(
                RequestErrorCode.DUPLICATE_NAME, "Duplicate field name.", field=_shorten_field_name(name)
            )
        value[name] = member
    return value


def _reject_nan_and_infinity(name: str) -> NoReturn:
    message = f"{name} is not JSON"
    raise ValueError(message)


def parse_string(
    fields: dict[str, object], name: str, *, limit_bytes: int, allow_nul: bool = False, prefix: str = ""
) -> str | None:
    """Return a member that is text, or None if it is absent or null. `prefix` is the path of its object."""
    value = fields.get(name)
    return None if value is None else check_text(value, prefix + name, limit_bytes=limit_bytes, allow_nul=allow_nul)


def parse_args(fields: dict[str, object], *, prefix: str = "") -> tuple[str, ...]:
    """Return the arguments of a program."""
    value, field = fields.get("args"), f"{prefix}args"
    if value is None:
        return ()
    if not isinstance(value, list):
        raise invalid_field(RequestErrorCode.WRONG_TYPE, f"{field} must be an array of strings.", field=field)
    if len(value) > MAX_ARGS:
        raise too_many(field, actual_items=len(value), limit_items=MAX_ARGS)
    args = tuple(
        check_text(item, f"{field}[{index}]", limit_bytes=MAX_ARGS_BYTES, allow_nul=False)
        for index, item in enumerate(value)
    )
    actual_bytes = len("".join(args).encode())
    if actual_bytes > MAX_ARGS_BYTES:
        raise too_large(f"{field} has", actual_bytes=actual_bytes, limit_bytes=MAX_ARGS_BYTES, field=field)
    return args


def check_text(value: object, field: str, *, limit_bytes: int, allow_nul: bool) -> str:
    """Return a value that is text of at most this size."""
    if not isinstance(value, str):
        raise invalid_field(RequestErrorCode.WRONG_TYPE, f"{field} must be a string.", field=field)
    try:
        actual_bytes = len(value.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise invalid_field(
            RequestErrorCode.LONE_SURROGATE, f"{field} contains an unpaired surrogate.", field=field
        ) from error
    if actual_bytes > limit_bytes:
        raise too_large(f"{field} has", actual_bytes=actual_bytes, limit_bytes=limit_bytes, field=field)
    if "\0" in value and not allow_nul:
        raise invalid_field(RequestErrorCode.CONTAINS_NUL, f"{field} must not contain U+0000.", field=field)
    return value


def parse_timeout_s(fields: dict[str, object]) -> float:
    """Return the time limit of a run."""
    value = fields.get("timeout_s")
    if value is None:
        return DEFAULT_TIMEOUT_S
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise invalid_field(RequestErrorCode.WRONG_TYPE, "timeout_s must be a number.", field="timeout_s")
    if not MIN_TIMEOUT_S <= value <= MAX_TIMEOUT_S:
        raise invalid_field(
            RequestErrorCode.OUT_OF_RANGE,
            f"timeout_s must be from {MIN_TIMEOUT_S:g} to {MAX_TIMEOUT_S:g}.",
            field="timeout_s",
        )
    return float(value)


def parse_runtime(fields: dict[str, object]) -> str:
    """Return the name of the runtime."""
    value = fields.get("runtime")
    if value is None:
        return DEFAULT_RUNTIME
    if not isinstance(value, str):
        raise invalid_field(RequestErrorCode.WRONG_TYPE, "runtime must be a string.", field="runtime")
    if value not in RUNTIMES:
        detail = f"runtime must be one of: {', '.join(RUNTIMES)}."
        raise invalid_field(RequestErrorCode.UNKNOWN_RUNTIME, detail, field="runtime")
    return value


def parse_callback_url(fields: dict[str, object], *, local_ports: frozenset[int]) -> str | None:
    """Return the URL for the result."""
    text = parse_string(fields, "callback_url", limit_bytes=webhook_url.MAX_URL_CHARS)
    if text is not None:
        try:
            webhook_url.parse(text, local_ports=local_ports)
        except webhook_url.WebhookUrlError as error:
            raise invalid_field(RequestErrorCode.INVALID_URL, f"callback_url {error}.", field="callback_url") from error
    return text


def _shorten_field_name(name: str) -> str:
    return name[:MAX_ECHO_CHARS].encode("utf-8", "backslashreplace").decode("utf-8")
