"""What the API answers when it does not answer with a result: application/problem+json, RFC 9457."""

from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Final

import msgspec
from chalice.app import ChaliceUnhandledError, Response
from msgspec import Struct

TYPE_PREFIX: Final = "urn:python-exec:problem:"
Headers = Mapping[str, str | list[str]]

NO_HEADERS: Final[Headers] = MappingProxyType({})


class Problem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """RFC 9457 members, then our own. `type` is stable and what clients should compare."""

    type: str
    title: str
    status: int
    detail: str | None = None
    instance: str | None = None  # the log lines of this request carry the same id
    field: str | None = None  # of the request body
    rule: str | None = None  # a validation.Rule
    limit_bytes: int | None = None
    actual_bytes: int | None = None
    limit_s: float | None = None
    plan: str | None = None
    job_id: str | None = None


class ProblemError(ChaliceUnhandledError):
    """Base of what ends a request with a problem. Chalice lets only its own base class reach middleware."""

    def __init__(self, problem: Problem, *, headers: Headers = NO_HEADERS) -> None:
        super().__init__(problem.title)
        self.problem = problem
        self.headers = headers


class LengthRequiredError(ProblemError):
    """A chunked body, which `chalice local` would read as the next request of the connection."""

    def __init__(self) -> None:
        super().__init__(
            Problem(
                type=TYPE_PREFIX + "length-required",
                title="Length required",
                status=HTTPStatus.LENGTH_REQUIRED,
                detail="Send the body with a Content-Length instead of Transfer-Encoding.",
            ),
            headers={"Connection": "close"},
        )


def of_status(status: int, *, instance: str | None = None) -> Problem:
    """A problem that says no more than its HTTP status does."""
    return Problem(type="about:blank", title=HTTPStatus(status).phrase, status=status, instance=instance)


def response(problem: Problem, *, headers: Headers = NO_HEADERS) -> Response:
    """The problem over HTTP."""
    return Response(
        body=msgspec.json.encode(problem).decode(),
        headers={**headers, "Content-Type": "application/problem+json"},
        status_code=problem.status,
    )
