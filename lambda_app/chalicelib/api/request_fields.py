"""Parses the fields that requests to run programs have in common. Each function raises ProblemError for its field."""

import json
import re
from collections.abc import Collection
from enum import StrEnum
from typing import Any, Final, NoReturn

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


def invalid_request(code: RequestErrorCode, detail: str, **members: Any) -> ProblemError:  # noqa: ANN401 - of Problem
    """Return the problem of a request that is not valid."""
    return ProblemError(problems.INVALID_REQUEST, detail=detail, code=code, **members)


def invalid_field(field: str, code: RequestErrorCode, fault: str, **members: Any) -> ProblemError:  # noqa: ANN401
    """Return the problem of a field. `fault` continues its name, for example "must be a string"."""
    return invalid_request(code, f"{field} {fault}.", field=field, **members)


def check_size(field: str | None, actual_bytes: int, *, limit_bytes: int) -> None:
    """Raise ProblemError if a field, or the body if it is None, has too many bytes."""
    if actual_bytes > limit_bytes:
        raise ProblemError(
            problems.TOO_LARGE,
            detail=f"{field or 'The body'} has {actual_bytes} bytes; the limit is {limit_bytes}.",
            field=field,
            code=RequestErrorCode.TOO_LARGE,
            limit_bytes=limit_bytes,
            actual_bytes=actual_bytes,
        )


def parse_body(body: bytes, *, content_type: str) -> dict[str, object]:
    """Return the members of the JSON object in a body."""
    check_json_body(body, content_type=content_type)
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise invalid_request(RequestErrorCode.INVALID_UTF8, "The body is not UTF-8.") from error
    try:
        value = json.loads(text, object_pairs_hook=_reject_duplicate_names, parse_constant=reject_nan_and_infinity)
    except (ValueError, RecursionError) as error:
        raise invalid_request(RequestErrorCode.INVALID_JSON, "The body is not JSON.") from error
    if not isinstance(value, dict):
        raise invalid_request(RequestErrorCode.NOT_AN_OBJECT, "The body must be a JSON object.")
    return value


def check_json_body(body: bytes, *, content_type: str) -> None:
    """Raise ProblemError unless a body is declared as JSON and is not too large."""
    if not _JSON_TYPE.fullmatch(content_type.strip()):
        raise ProblemError(problems.UNSUPPORTED_MEDIA_TYPE, code=RequestErrorCode.UNSUPPORTED_CONTENT_TYPE)
    check_size(None, len(body), limit_bytes=MAX_BODY_BYTES)


def check_object(value: object, field: str, *, allowed: Collection[str]) -> dict[str, object]:
    """Return a value that is an object without other members."""
    if not isinstance(value, dict):
        raise invalid_field(field, RequestErrorCode.WRONG_TYPE, "must be an object")
    reject_unknown_fields(value, allowed=allowed, prefix=f"{field}.")
    return value


def reject_unknown_fields(fields: dict[str, object], *, allowed: Collection[str], prefix: str = "") -> None:
    """Raise ProblemError if an object has other members. `prefix` is its path."""
    for name in fields:
        if name not in allowed:
            detail = f"Unknown field. Allowed: {', '.join(allowed)}."
            raise invalid_request(RequestErrorCode.UNKNOWN_FIELD, detail, field=prefix + _shorten_field_name(name))


def parse_code(fields: dict[str, object]) -> str:
    """Return the program."""
    code = parse_string(fields, "code", limit_bytes=MAX_CODE_BYTES)
    if code is None:
        raise invalid_field("code", RequestErrorCode.MISSING, "is required")
    if not code:
        raise invalid_field("code", RequestErrorCode.EMPTY, "must not be empty")
    return code


def _reject_duplicate_names(pairs: list[tuple[str, object]]) -> dict[str, object]:
    # Parsers disagree on which of two wins (RFC 8259, 4), so a proxy may have checked the other one.
    value: dict[str, object] = {}
    for name, member in pairs:
        if name in value:
            field = _shorten_field_name(name)
            raise invalid_request(RequestErrorCode.DUPLICATE_NAME, "Duplicate field name.", field=field)
        value[name] = member
    return value


def reject_nan_and_infinity(name: str) -> NoReturn:
    """Raise ValueError for a constant that Python's parser takes for JSON."""
    raise ValueError(f"{name} is not JSON")


def parse_string(
    fields: dict[str, object], name: str, *, limit_bytes: int, allow_nul: bool = False, prefix: str = ""
) -> str | None:
    """Return a member that is text, or None if it is absent or null. `prefix` is the path of its object."""
    value = fields.get(name)
    return None if value is None else check_text(value, prefix + name, limit_bytes=limit_bytes, allow_nul=allow_nul)


def parse_array(
    fields: dict[str, object], name: str, *, items: str, limit_items: int, prefix: str = ""
) -> list[object]:
    """Return a member that is an array, empty if it is absent or null. `items` says of what it is one."""
    value, field = fields.get(name), prefix + name
    if value is None:
        return []
    if not isinstance(value, list):
        raise invalid_field(field, RequestErrorCode.WRONG_TYPE, f"must be an array of {items}")
    if len(value) > limit_items:
        fault = f"has {len(value)} items; the limit is {limit_items}"
        raise invalid_field(field, RequestErrorCode.TOO_MANY, fault, limit_items=limit_items, actual_items=len(value))
    return value


def parse_args(fields: dict[str, object], *, prefix: str = "") -> tuple[str, ...]:
    """Return the arguments of a program."""
    field = f"{prefix}args"
    items = parse_array(fields, "args", items="strings", limit_items=MAX_ARGS, prefix=prefix)
    args = tuple(check_text(item, f"{field}[{index}]", limit_bytes=MAX_ARGS_BYTES) for index, item in enumerate(items))
    check_size(field, len("".join(args).encode()), limit_bytes=MAX_ARGS_BYTES)
    return args


def check_text(value: object, field: str, *, limit_bytes: int, allow_nul: bool = False) -> str:
    """Return a value that is text of at most this size."""
    if not isinstance(value, str):
        raise invalid_field(field, RequestErrorCode.WRONG_TYPE, "must be a string")
    try:
        actual_bytes = len(value.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise invalid_field(field, RequestErrorCode.LONE_SURROGATE, "contains an unpaired surrogate") from error
    check_size(field, actual_bytes, limit_bytes=limit_bytes)
    if "\0" in value and not allow_nul:
        raise invalid_field(field, RequestErrorCode.CONTAINS_NUL, "must not contain U+0000")
    return value


def parse_timeout_s(fields: dict[str, object]) -> float:
    """Return the time limit of a run."""
    value = fields.get("timeout_s")
    if value is None:
        return DEFAULT_TIMEOUT_S
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise invalid_field("timeout_s", RequestErrorCode.WRONG_TYPE, "must be a number")
    if not MIN_TIMEOUT_S <= value <= MAX_TIMEOUT_S:
        fault = f"must be from {MIN_TIMEOUT_S:g} to {MAX_TIMEOUT_S:g}"
        raise invalid_field("timeout_s", RequestErrorCode.OUT_OF_RANGE, fault)
    return float(value)


def parse_runtime(fields: dict[str, object]) -> str:
    """Return the name of the runtime."""
    value = fields.get("runtime")
    if value is None:
        return DEFAULT_RUNTIME
    if not isinstance(value, str):
        raise invalid_field("runtime", RequestErrorCode.WRONG_TYPE, "must be a string")
    if value not in RUNTIMES:
        fault = f"must be one of: {', '.join(RUNTIMES)}"
        raise invalid_field("runtime", RequestErrorCode.UNKNOWN_RUNTIME, fault)
    return value


def parse_callback_url(fields: dict[str, object], *, local_ports: frozenset[int]) -> str | None:
    """Return the URL for the result."""
    text = parse_string(fields, "callback_url", limit_bytes=webhook_url.MAX_URL_CHARS)
    if text is not None:
        try:
            webhook_url.parse(text, local_ports=local_ports)
        except webhook_url.WebhookUrlError as error:
            raise invalid_field("callback_url", RequestErrorCode.INVALID_URL, str(error)) from error
    return text


def _shorten_field_name(name: str) -> str:
    return name[:MAX_ECHO_CHARS].encode("utf-8", "backslashreplace").decode("utf-8")
