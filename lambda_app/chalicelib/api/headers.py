"""Reads the headers of a request, each with all its values."""

import re
from typing import Final

from chalice.app import Request

from chalicelib import problems
from chalicelib.problems import ProblemError

_IDEMPOTENCY_KEY: Final = re.compile(rf"[ -~]{{1,{problems.MAX_IDEMPOTENCY_KEY_CHARS}}}")


def header_values(request: Request, name: str) -> list[str]:
    """Return every value of a header; of a repeated one, API Gateway puts only the last into `headers`."""
    multi_value_headers = request.to_original_event().get("multiValueHeaders") or {}
    values = [value for key, values in multi_value_headers.items() if key.lower() == name for value in values]
    if not values and name in request.headers:
        return [request.headers[name]]  # chalice local has no multiValueHeaders
    return values


def presented_keys(request: Request) -> list[str]:
    """Return every API key in X-Api-Key and Authorization, and an empty one for another authorization scheme."""
    bearer_tokens = map(_bearer_token, header_values(request, "authorization"))
    return [*header_values(request, "x-api-key"), *bearer_tokens]


def idempotency_key(request: Request) -> str | None:
    """Return the Idempotency-Key. Raise ProblemError if it is repeated or malformed."""
    match header_values(request, "idempotency-key"):
        case []:
            return None
        case [value] if _IDEMPOTENCY_KEY.fullmatch(value):
            return value
        case _:
            raise ProblemError(problems.INVALID_IDEMPOTENCY_KEY)


def _bearer_token(authorization: str) -> str:
    scheme, _, token = authorization.strip().partition(" ")
    return token if scheme.lower() == "bearer" else ""  # RFC 9110 11.1: case does not matter
