"""Declares what each route accepts and returns. For openapi.py; tests compare it with the responses of the API."""

from collections.abc import Mapping
from enum import StrEnum
from http import HTTPStatus
from typing import Any, Final

from msgspec import Struct

from chalicelib import problems
from chalicelib.access.usage import KeyUsage
from chalicelib.api.endpoints import Index
from chalicelib.api.request_schema import RpcMessage, RunBatch, RunProgram
from chalicelib.api.response_schema import (
    FailedStoredJob,
    HealthReport,
    PendingJob,
    PendingStoredJob,
    RpcAnswer,
    RuntimeList,
    StoredBatch,
    StoredResult,
)
from chalicelib.api.static_files import SECURITY_HEADERS
from chalicelib.contract import Result
from chalicelib.jobs.batch_view import BatchView
from chalicelib.problems import JOB_FAILED, Problem, ProblemType


class Access(StrEnum):
    """Whether a route needs an API key."""

    REQUIRED = "required"
    OPTIONAL = "optional"
    PUBLIC = "public"


class Success(Struct, frozen=True):
    """A response that is not a problem; `headers` are names in HEADERS."""

    description: str
    content: Mapping[str, Any] = {}  # media type -> a type, or several in a tuple
    headers: tuple[str, ...] = ()


class Operation(Struct, frozen=True, kw_only=True):
    """A method of a route. Its summary is the docstring of its function in app.py."""

    tag: str
    successes: Mapping[int, Success]
    problems: tuple[ProblemType, ...] = ()  # without AUTHENTICATION, which `access` adds
    parameters: tuple[str, ...] = ()  # names in PARAMETERS
    body: Any = None  # a type
    access: Access = Access.REQUIRED


AUTHENTICATION: Final = (
    problems.UNAUTHORIZED,
    problems.KEY_REVOKED,
    problems.KEY_EXPIRED,
    problems.AUTHENTICATION_UNAVAILABLE,
    problems.RATE_LIMITED,
)
LOOKUP: Final = (
    problems.JOB_NOT_FOUND,
    problems.JOB_EXPIRED_OR_DELETED,
    problems.JOB_STORE_UNAVAILABLE,
    problems.PAYLOAD_STORE_UNAVAILABLE,
)
SUBMISSION: Final = (
    problems.INVALID_REQUEST,
    problems.INVALID_IDEMPOTENCY_KEY,
    problems.PLAN_LIMIT_EXCEEDED,
    problems.NO_SIGNING_SECRET,
    problems.JOB_EXPIRED_OR_DELETED,
    problems.TOO_LARGE,
    problems.UNSUPPORTED_MEDIA_TYPE,
    problems.IDEMPOTENCY_KEY_REUSED,
    problems.QUOTA_EXCEEDED,
    problems.TOO_MANY_PENDING_JOBS,
    problems.OVERLOADED,
    problems.JOB_QUEUE_UNAVAILABLE,
    problems.PAYLOAD_STORE_UNAVAILABLE,
    problems.JOB_STORE_UNAVAILABLE,
    problems.RESULT_TIMEOUT,
    *JOB_FAILED.values(),
)
JSON: Final = "application/json"
CACHED: Final = ("ETag", "Vary")
PAGE: Final = (*CACHED, *SECURITY_HEADERS)


def _submission(body: type, description: str, result: type) -> Operation:
    """Return a route that runs code."""
    return Operation(
        tag="Programs",
        body=body,
        parameters=("Prefer", "Idempotency-Key"),
        successes={
            HTTPStatus.OK: Success(description, {JSON: result}, ("Preference-Applied",)),
            HTTPStatus.ACCEPTED: Success(
                "The result comes later, at `Location`.",
                {JSON: PendingJob},
                ("Location", "Retry-After", "Preference-Applied"),
            ),
        },
        problems=SUBMISSION,
    )


def _cached(description: str, content: Mapping[str, Any], headers: tuple[str, ...]) -> dict[int, Success]:
    """Return the responses of a route that static_files.cacheable_response answers."""
    return {
        HTTPStatus.OK: Success(description, content, headers),
        HTTPStatus.NOT_MODIFIED: Success("The client has the current version.", headers=headers),
    }


def _documentation(
    description: str, content: Mapping[str, Any], headers: tuple[str, ...], *, parameter: str | None = None
) -> Operation:
    """Return a route with a page or a file, of which `parameter` selects one."""
    return Operation(
        tag="Documentation",
        access=Access.PUBLIC,
        parameters=(parameter, "If-None-Match") if parameter else ("If-None-Match",),
        successes=_cached(description, content, headers),
        problems=(problems.NOT_FOUND,) if parameter else (),
    )


NO_SESSION: Final = Operation(
    tag="Model Context Protocol",
    access=Access.PUBLIC,
    successes={
        HTTPStatus.METHOD_NOT_ALLOWED: Success(
            "There is no event stream and no session.", {"application/problem+json": Problem}, ("Allow",)
        )
    },
)
OPERATIONS: Final[Mapping[tuple[str, str], Operation]] = {
    ("POST", "/"): _submission(RunProgram, "The program ran; `status` says how it ended.", Result),
    ("POST", "/batch"): _submission(RunBatch, "The batch has ended; each run has its own `status`.", BatchView),
    ("GET", "/"): Operation(
        tag="Service",
        access=Access.PUBLIC,
        parameters=("If-None-Match",),
        successes=_cached("The page, or the index.", {"text/html": str, JSON: Index}, PAGE),
    ),
    ("POST", "/mcp"): Operation(
        tag="Model Context Protocol",
        body=RpcMessage,
        parameters=("Mcp-Protocol-Version", "Mcp-Method", "Mcp-Name"),
        successes={
            HTTPStatus.OK: Success("The answer.", {JSON: (RpcAnswer, list[RpcAnswer])}),
            HTTPStatus.ACCEPTED: Success("The message needs no answer."),
            HTTPStatus.BAD_REQUEST: Success("The message is invalid.", {JSON: RpcAnswer}),
            HTTPStatus.NOT_FOUND: Success("There is no such method.", {JSON: RpcAnswer}),
        },
        problems=(problems.TOO_LARGE, problems.UNSUPPORTED_MEDIA_TYPE),
    ),
    ("GET", "/mcp"): NO_SESSION,
    ("DELETE", "/mcp"): NO_SESSION,
    ("GET", "/jobs/{job_id}"): Operation(
        tag="Jobs",
        parameters=("job_id",),
        successes={
            HTTPStatus.OK: Success(
                "The job has ended, with a result or without one.", {JSON: (StoredResult, StoredBatch, FailedStoredJob)}
            ),
            HTTPStatus.ACCEPTED: Success("The job is pending.", {JSON: PendingStoredJob}, ("Retry-After",)),
        },
        problems=LOOKUP,
    ),
    ("DELETE", "/jobs/{job_id}"): Operation(
        tag="Jobs",
        parameters=("job_id",),
        successes={HTTPStatus.NO_CONTENT: Success("The job is deleted.")},
        problems=LOOKUP,
    ),
    ("GET", "/usage"): Operation(
        tag="Keys",
        successes={HTTPStatus.OK: Success("The plan and what is left of it.", {JSON: KeyUsage})},
    ),
    ("GET", "/health"): Operation(
        tag="Service",
        access=Access.OPTIONAL,
        successes={HTTPStatus.OK: Success("The API is up.", {JSON: HealthReport})},
        problems=(problems.HEALTH_CHECK_FAILED,),
    ),
    ("GET", "/runtimes"): Operation(
        tag="Programs",
        access=Access.PUBLIC,
        successes={HTTPStatus.OK: Success("The runtimes.", {JSON: RuntimeList})},
    ),
    ("GET", "/openapi.json"): _documentation("The document.", {JSON: dict[str, Any]}, CACHED),
    ("GET", "/docs"): _documentation("The page.", {"text/html": str}, PAGE),
    ("GET", "/problems/{slug}"): _documentation("The page.", {"text/html": str}, PAGE, parameter="slug"),
    ("GET", "/assets/{name}"): _documentation(
        "The file.", {"text/*": str, "image/*": str}, (*CACHED, "X-Content-Type-Options"), parameter="name"
    ),
}
