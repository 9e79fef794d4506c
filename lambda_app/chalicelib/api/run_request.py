"""The body of a POST, which anybody may have written, to a RunRequest that is safe to send on."""

import json
import re
from enum import StrEnum
from http import HTTPStatus
from typing import Final, NoReturn

from msgspec import Struct

from chalicelib.access.plans import Plan
from chalicelib.contract import (
    DEFAULT_TIMEOUT_S,
    MAX_CODE_BYTES,
    MAX_INPUT_BYTES,
    MAX_TIMEOUT_S,
    MIN_TIMEOUT_S,
)
from chalicelib.problems import TYPE_PREFIX, Problem, ProblemError
from chalicelib.webhooks import url as webhook_url

FIELDS: Final = ("code", "input", "timeout_s", "callback_url")
# A client may escape each byte of a text as six (\u0001); the rest is names and white space.
MAX_BODY_BYTES: Final = 6 * (MAX_CODE_BYTES + MAX_INPUT_BYTES) + 4096
MAX_ECHO_CHARS: Final = 64  # of an unknown field's name

# A missing Content-Type is refused too: RFC 9110 8.3 leaves it to guessing, which browsers' forms exploit.
_JSON_TYPE: Final = re.compile(r"application/json\s*(;\s*charset=(utf-8|\"utf-8\")\s*)?", re.IGNORECASE)


class Rule(StrEnum):
    """What a request broke; `rule` of its problem. Stable: clients compare it."""

    CONTENT_TYPE = "content_type"  # application/json
    MAX_BYTES = "max_bytes"  # of the body, or of a field's text in UTF-8
    UTF8 = "utf8"  # the body is UTF-8
    JSON = "json"  # the body is JSON (RFC 8259: no NaN, no BOM)
    OBJECT = "object"  # the body is a JSON object
    UNIQUE = "unique"  # no name twice in an object
    KNOWN = "known"  # no field that we do not know
    REQUIRED = "required"
    TYPE = "type"
    NOT_EMPTY = "not_empty"
    UNICODE = "unicode"  # no lone surrogate
    NO_NUL = "no_nul"  # no U+0000
    RANGE = "range"
    URL = "url"  # one that results are sent to
    ASYNC_ONLY = "async_only"  # only with Prefer: respond-async


class InvalidRequestError(ProblemError):
    """The body breaks a rule."""

    def __init__(self, rule: Rule, detail: str, *, field: str | None = None) -> None:
        super().__init__(
            Problem(
                type=TYPE_PREFIX + "invalid-request",
                title="Invalid request",
                status=HTTPStatus.BAD_REQUEST,
                detail=detail,
                field=field,
                rule=rule,
            )
        )


class TooLargeError(ProblemError):
    """The body, or the text in `field`, is longer than allowed."""

    def __init__(self, *, actual_bytes: int, limit_bytes: int, field: str | None = None) -> None:
        super().__init__(
            Problem(
                type=TYPE_PREFIX + "too-large",
                title="Too large",
                status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                detail=f"{field or 'The body'} has {actual_bytes} bytes; the limit is {limit_bytes}.",
                field=field,
                rule=Rule.MAX_BYTES,
                limit_bytes=limit_bytes,
                actual_bytes=actual_bytes,
            )
        )


class UnsupportedMediaTypeError(ProblemError):
    """The body does not claim to be JSON."""

    def __init__(self) -> None:
        super().__init__(
            Problem(
                type=TYPE_PREFIX + "unsupported-media-type",
                title="Unsupported media type",
                status=HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                detail="Content-Type must be application/json.",
                rule=Rule.CONTENT_TYPE,
            ),
            headers={"Accept-Post": "application/json"},
        )


class NotInPlanError(ProblemError):
    """The request asks for more than the key's plan allows at all."""

    def __init__(
        self, plan: Plan, field: str, detail: str, *, limit_bytes: int | None = None, limit_s: float | None = None
    ) -> None:
        super().__init__(
            Problem(
                type=TYPE_PREFIX + "plan-limit-exceeded",
                title="Not in plan",
                status=HTTPStatus.FORBIDDEN,
                detail=f"{detail} in the plan {plan.name}.",
                field=field,
                plan=plan.name,
                limit_bytes=limit_bytes,
                limit_s=limit_s,
            )
        )


class RunRequest(Struct, frozen=True, kw_only=True):
    """What a customer asks to have run, checked."""

    code: str
    input: str = ""
    timeout_s: float = DEFAULT_TIMEOUT_S
    callback_url: str | None = None


def parse_run_request(body: bytes, *, content_type: str, allow_local_webhooks: bool = False) -> RunRequest:
    """The request in `body`; `allow_local_webhooks` as in settings.

    Raises InvalidRequestError, TooLargeError or UnsupportedMediaTypeError.
    """
    if not _JSON_TYPE.fullmatch(content_type.strip()):
        raise UnsupportedMediaTypeError
    if len(body) > MAX_BODY_BYTES:
        raise TooLargeError(actual_bytes=len(body), limit_bytes=MAX_BODY_BYTES)
    given = _json_object(body)
    for name in given:
        if name not in FIELDS:
            raise InvalidRequestError(Rule.KNOWN, f"The fields are {', '.join(FIELDS)}.", field=_echo(name))
    code = _text(given, "code", limit_bytes=MAX_CODE_BYTES)
    if code is None:
        raise InvalidRequestError(Rule.REQUIRED, "code is required.", field="code")
    if not code:
        raise InvalidRequestError(Rule.NOT_EMPTY, "code must not be empty.", field="code")
    return RunRequest(
        code=code,
        input=_text(given, "input", limit_bytes=MAX_INPUT_BYTES) or "",
        timeout_s=_timeout_s(given),
        callback_url=_callback_url(given, local=allow_local_webhooks),
    )


def require_in_plan(request: RunRequest, plan: Plan) -> None:
    """Raises NotInPlanError."""
    if request.timeout_s > plan.max_timeout_s:
        detail = f"timeout_s may be at most {plan.max_timeout_s:g}"
        raise NotInPlanError(plan, "timeout_s", detail, limit_s=plan.max_timeout_s)
    if len(request.input.encode()) > plan.max_input_bytes:
        detail = f"input may have at most {plan.max_input_bytes} bytes"
        raise NotInPlanError(plan, "input", detail, limit_bytes=plan.max_input_bytes)


def require_async(wanted: RunRequest, respond_async: bool) -> None:  # noqa: FBT001 - what it is about
    """Raises InvalidRequestError for a callback_url of a request that waits for its result."""
    if wanted.callback_url is not None and not respond_async:
        detail = "callback_url needs the header Prefer: respond-async."
        raise InvalidRequestError(Rule.ASYNC_ONLY, detail, field="callback_url")


def _json_object(body: bytes) -> dict[str, object]:
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequestError(Rule.UTF8, "The body is not UTF-8.") from error
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(Rule.JSON, "The body is not JSON.") from error
    if not isinstance(value, dict):
        raise InvalidRequestError(Rule.OBJECT, "The body must be a JSON object.")
    return value


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    # Parsers disagree which of two wins (RFC 8259, 4), so a proxy may have checked the other one.
    value: dict[str, object] = {}
    for name, member in pairs:
        if name in value:
            raise InvalidRequestError(Rule.UNIQUE, "A name occurs twice in an object.", field=_echo(name))
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
        raise InvalidRequestError(Rule.TYPE, f"{field} must be a string.", field=field)
    try:
        actual_bytes = len(value.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise InvalidRequestError(Rule.UNICODE, f"{field} contains half of a surrogate pair.", field=field) from error
    if actual_bytes > limit_bytes:
        raise TooLargeError(actual_bytes=actual_bytes, limit_bytes=limit_bytes, field=field)
    if "\0" in value:
        raise InvalidRequestError(Rule.NO_NUL, f"{field} must not contain U+0000.", field=field)
    return value


def _timeout_s(given: dict[str, object]) -> float:
    value = given.get("timeout_s")
    if value is None:
        return DEFAULT_TIMEOUT_S
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidRequestError(Rule.TYPE, "timeout_s must be a number.", field="timeout_s")
    if not MIN_TIMEOUT_S <= value <= MAX_TIMEOUT_S:
        raise InvalidRequestError(
            Rule.RANGE, f"timeout_s must be from {MIN_TIMEOUT_S:g} to {MAX_TIMEOUT_S:g}.", field="timeout_s"
        )
    return float(value)


def _callback_url(given: dict[str, object], *, local: bool) -> str | None:
    text = _text(given, "callback_url", limit_bytes=webhook_url.MAX_URL_CHARS)
    if text is not None:
        try:
            webhook_url.parse(text, local=local)
        except webhook_url.CallbackUrlError as error:
            raise InvalidRequestError(Rule.URL, f"callback_url {error}.", field="callback_url") from error
    return text


def _echo(name: str) -> str:
    return name[:MAX_ECHO_CHARS].encode("utf-8", "backslashreplace").decode("utf-8")
