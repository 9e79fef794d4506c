"""The body of a POST, which anybody may have written, to a RunRequest that is safe to send on."""

import json
import re
from enum import StrEnum
from typing import Final, NoReturn

from msgspec import Struct

from chalicelib import problems
from chalicelib.access.api_keys import KeyRecord
from chalicelib.access.plans import Plan
from chalicelib.contract import (
    DEFAULT_TIMEOUT_S,
    MAX_CODE_BYTES,
    MAX_INPUT_BYTES,
    MAX_TIMEOUT_S,
    MIN_TIMEOUT_S,
)
from chalicelib.problems import ProblemError
from chalicelib.webhooks import url as webhook_url

FIELDS: Final = ("code", "input", "timeout_s", "callback_url")
# A client may escape each byte of a text as six (\u0001); the rest is names and white space.
MAX_BODY_BYTES: Final = 6 * (MAX_CODE_BYTES + MAX_INPUT_BYTES) + 4096
MAX_ECHO_CHARS: Final = 64  # of an unknown field's name

# A missing Content-Type is refused too: RFC 9110 8.3 leaves it to guessing, which browsers' forms exploit.
_JSON_TYPE: Final = re.compile(r"application/json\s*(;\s*charset=(utf-8|\"utf-8\")\s*)?", re.IGNORECASE)


class RequestErrorCode(StrEnum):
    """What is wrong with a request: `code` of its problem. Stable, because clients compare it."""

    UNSUPPORTED_CONTENT_TYPE = "unsupported_content_type"  # anything but application/json
    TOO_LARGE = "too_large"  # the body, or the UTF-8 text of a field
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
    INVALID_URL = "invalid_url"
    REQUIRES_RESPOND_ASYNC = "requires_respond_async"


def _invalid(code: RequestErrorCode, detail: str, *, field: str | None = None) -> ProblemError:
    return ProblemError(problems.INVALID_REQUEST, detail=detail, field=field, code=code)


def _too_large(*, actual_bytes: int, limit_bytes: int, field: str | None = None) -> ProblemError:
    return ProblemError(
        problems.TOO_LARGE,
        detail=f"{field or 'The body'} has {actual_bytes} bytes; the limit is {limit_bytes}.",
        field=field,
        code=RequestErrorCode.TOO_LARGE,
        limit_bytes=limit_bytes,
        actual_bytes=actual_bytes,
    )


class RunRequest(Struct, frozen=True, kw_only=True):
    """What a customer asks to have run, checked."""

    code: str
    input: str = ""
    timeout_s: float = DEFAULT_TIMEOUT_S
    callback_url: str | None = None


def parse_run_request(body: bytes, *, content_type: str, allow_local_webhooks: bool = False) -> RunRequest:
    """The request in `body`; `allow_local_webhooks` as in settings.

    Raises ProblemError.
    """
    if not _JSON_TYPE.fullmatch(content_type.strip()):
        raise ProblemError(problems.UNSUPPORTED_MEDIA_TYPE, code=RequestErrorCode.UNSUPPORTED_CONTENT_TYPE)
    if len(body) > MAX_BODY_BYTES:
        raise _too_large(actual_bytes=len(body), limit_bytes=MAX_BODY_BYTES)
    given = _json_object(body)
    for name in given:
        if name not in FIELDS:
            raise _invalid(
                RequestErrorCode.UNKNOWN_FIELD, f"Unknown field. Allowed: {', '.join(FIELDS)}.", field=_echo(name)
            )
    code = _text(given, "code", limit_bytes=MAX_CODE_BYTES)
    if code is None:
        raise _invalid(RequestErrorCode.MISSING, "code is required.", field="code")
    if not code:
        raise _invalid(RequestErrorCode.EMPTY, "code must not be empty.", field="code")
    return RunRequest(
        code=code,
        input=_text(given, "input", limit_bytes=MAX_INPUT_BYTES) or "",
        timeout_s=_timeout_s(given),
        callback_url=_callback_url(given, allow_local=allow_local_webhooks),
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


def check_signing_secret(request: RunRequest, key: KeyRecord) -> None:
    """Raise ProblemError for a callback_url if the key has no signing secret."""
    if request.callback_url is not None and not key.signing_secret:
        raise ProblemError(problems.NO_SIGNING_SECRET)


def require_async(wanted: RunRequest, respond_async: bool) -> None:  # noqa: FBT001 - what it is about
    """Raises InvalidRequestError for a callback_url of a request that waits for its result."""
    if wanted.callback_url is not None and not respond_async:
        detail = "callback_url needs the header Prefer: respond-async."
        raise _invalid(RequestErrorCode.REQUIRES_RESPOND_ASYNC, detail, field="callback_url")


def _json_object(body: bytes) -> dict[str, object]:
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _invalid(RequestErrorCode.INVALID_UTF8, "The body is not UTF-8.") from error
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise _invalid(RequestErrorCode.INVALID_JSON, "The body is not JSON.") from error
    if not isinstance(value, dict):
        raise _invalid(RequestErrorCode.NOT_AN_OBJECT, "The body must be a JSON object.")
    return value


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    # Parsers disagree which of two wins (RFC 8259, 4), so a proxy may have checked the other one.
    value: dict[str, object] = {}
    for name, member in pairs:
        if name in value:
            raise _invalid(RequestErrorCode.DUPLICATE_NAME, "Duplicate field name.", field=_echo(name))
        value[name] = member
    return value


def _refuse_constant(name: str) -> NoReturn:
    message = f"{name} is not JSON"
    raise ValueError(message)


def _text(given: dict[str, object], field: str, *, limit_bytes: int) -> str | None:
    value = given.get(field)
    if value is None:
        return None
    if not isinstance(value, str):
        raise _invalid(RequestErrorCode.WRONG_TYPE, f"{field} must be a string.", field=field)
    try:
        actual_bytes = len(value.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise _invalid(
            RequestErrorCode.LONE_SURROGATE, f"{field} contains an unpaired surrogate.", field=field
        ) from error
    if actual_bytes > limit_bytes:
        raise _too_large(actual_bytes=actual_bytes, limit_bytes=limit_bytes, field=field)
    if "\0" in value:
        raise _invalid(RequestErrorCode.CONTAINS_NUL, f"{field} must not contain U+0000.", field=field)
    return value


def _timeout_s(given: dict[str, object]) -> float:
    value = given.get("timeout_s")
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


def _callback_url(given: dict[str, object], *, allow_local: bool) -> str | None:
    text = _text(given, "callback_url", limit_bytes=webhook_url.MAX_URL_CHARS)
    if text is not None:
        try:
            webhook_url.parse(text, allow_local=allow_local)
        except webhook_url.WebhookUrlError as error:
            raise _invalid(RequestErrorCode.INVALID_URL, f"callback_url {error}.", field="callback_url") from error
    return text


def _echo(name: str) -> str:
    return name[:MAX_ECHO_CHARS].encode("utf-8", "backslashreplace").decode("utf-8")
