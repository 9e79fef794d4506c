"""Declares what each route accepts and returns. For openapi.py; tests compare it with the responses of the API."""

from collections.abc import Mapping
from enum import StrEnum
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Final

from msgspec import Struct

from chalicelib import problems
from chalicelib.access.usage import KeyUsage
from chalicelib.api.endpoints import Index
from chalicelib.api.request_schema import RUN_BATCH, RUN_PROGRAM, RpcMessage
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


class Success(Struct, frozen=True, kw_only=True):
    """A response that is not a problem; `headers` are names in HEADERS."""

    description: str
    content: MappingProxyType[str, Any] = MappingProxyType({})  # media type -> a type, or several in a tuple
    headers: tuple[str, ...] = ()


class Operation(Struct, frozen=True, kw_only=True):
    """A method of a route. Its summary is the docstring of its function in app.py."""

    tag: str
    successes: MappingProxyType[int, Success]
    problems: tuple[ProblemType, ...] = ()
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
CACHED: Final = ("ETag", "Vary")
PAGE: Final = (*CACHED, *SECURITY_HEADERS)


def _json(body: Any) -> MappingProxyType[str, Any]:  # noqa: ANN401 - a type, or several in a tuple
    return MappingProxyType({"application/json": body})


def _cached(
    description: str, content: Mapping[str, Any], *, headers: tuple[str, ...]
) -> MappingProxyType[int, Success]:
    """Return the responses of a route that static_files.cacheable_response answers."""
    return MappingProxyType(
        {
            HTTPStatus.OK: Success(description=description, content=MappingProxyType(dict(content)), headers=headers),
            HTTPStatus.NOT_MODIFIED: Success(description="The client has the current version.", headers=headers),
        }
    )


def _submitted(description: str, result: type) -> MappingProxyType[int, Success]:
    """Return the responses of a route that runs code."""
    return MappingProxyType(
        {
            HTTPStatus.OK: Success(description=description, content=_json(result), headers=("Preference-Applied",)),
            HTTPStatus.ACCEPTED: Success(
                description="The result comes later, at `Location`.",
                content=_json(PendingJob),
                headers=("Location", "Retry-After", "Preference-Applied"),
            ),
        }
    )


OPERATIONS: Final = MappingProxyType(
    {
        ("POST", "/"): Operation(
            tag="Programs",
            body=RUN_PROGRAM,
            parameters=("Prefer", "Idempotency-Key"),
            successes=_submitted("The program ran; `status` says how it ended.", Result),
            problems=(*AUTHENTICATION, *SUBMISSION),
        ),
        ("POST", "/batch"): Operation(
            tag="Programs",
            body=RUN_BATCH,
            parameters=("Prefer", "Idempotency-Key"),
            successes=_submitted("The batch has ended; each run has its own `status`.", BatchView),
            problems=(*AUTHENTICATION, *SUBMISSION),
        ),
        ("GET", "/"): Operation(
            tag="Service",
            access=Access.PUBLIC,
            parameters=("If-None-Match",),
            successes=_cached("The page, or the index.", {"text/html": str, "application/json": Index}, headers=PAGE),
        ),
        ("POST", "/mcp"): Operation(
            tag="Model Context Protocol",
            body=RpcMessage,
            parameters=("Mcp-Protocol-Version", "Mcp-Method", "Mcp-Name"),
            successes=MappingProxyType(
                {
                    HTTPStatus.OK: Success(description="The answer.", content=_json((RpcAnswer, list[RpcAnswer]))),
                    HTTPStatus.ACCEPTED: Success(description="The message needs no answer."),
                    HTTPStatus.BAD_REQUEST: Success(description="The message is invalid.", content=_json(RpcAnswer)),
                    HTTPStatus.NOT_FOUND: Success(description="There is no such method.", content=_json(RpcAnswer)),
                }
            ),
            problems=(*AUTHENTICATION, problems.TOO_LARGE, problems.UNSUPPORTED_MEDIA_TYPE),
        ),
        **{
            (method, "/mcp"): Operation(
                tag="Model Context Protocol",
                access=Access.PUBLIC,
                successes=MappingProxyType(
                    {
                        HTTPStatus.METHOD_NOT_ALLOWED: Success(
                            description="There is no event stream and no session.",
                            content=MappingProxyType({"application/problem+json": Problem}),
                            headers=("Allow",),
                        )
                    }
                ),
            )
            for method in ("GET", "DELETE")
        },
        ("GET", "/jobs/{job_id}"): Operation(
            tag="Jobs",
            parameters=("job_id",),
            successes=MappingProxyType(
                {
                    HTTPStatus.OK: Success(
                        description="The job has ended, with a result or without one.",
                        content=_json((StoredResult, StoredBatch, FailedStoredJob)),
                    ),
                    HTTPStatus.ACCEPTED: Success(
                        description="The job is pending.",
                        content=_json(PendingStoredJob),
                        headers=("Retry-After",),
                    ),
                }
            ),
            problems=(*AUTHENTICATION, *LOOKUP),
        ),
        ("DELETE", "/jobs/{job_id}"): Operation(
            tag="Jobs",
            parameters=("job_id",),
            successes=MappingProxyType({HTTPStatus.NO_CONTENT: Success(description="The job is deleted.")}),
            problems=(*AUTHENTICATION, *LOOKUP),
        ),
        ("GET", "/usage"): Operation(
            tag="Keys",
            successes=MappingProxyType(
                {HTTPStatus.OK: Success(description="The plan and what is left of it.", content=_json(KeyUsage))}
            ),
            problems=AUTHENTICATION,
        ),
        ("GET", "/health"): Operation(
            tag="Service",
            access=Access.OPTIONAL,
            successes=MappingProxyType(
                {HTTPStatus.OK: Success(description="The API is up.", content=_json(HealthReport))}
            ),
            problems=(*AUTHENTICATION, problems.HEALTH_CHECK_FAILED),
        ),
        ("GET", "/runtimes"): Operation(
            tag="Programs",
            access=Access.PUBLIC,
            successes=MappingProxyType(
                {HTTPStatus.OK: Success(description="The runtimes.", content=_json(RuntimeList))}
            ),
        ),
        ("GET", "/openapi.json"): Operation(
            tag="Documentation",
            access=Access.PUBLIC,
            parameters=("If-None-Match",),
            successes=_cached("The document.", {"application/json": dict[str, Any]}, headers=CACHED),
        ),
        ("GET", "/docs"): Operation(
            tag="Documentation",
            access=Access.PUBLIC,
            parameters=("If-None-Match",),
            successes=_cached("The page.", {"text/html": str}, headers=PAGE),
        ),
        ("GET", "/problems/{slug}"): Operation(
            tag="Documentation",
            access=Access.PUBLIC,
            parameters=("slug", "If-None-Match"),
            successes=_cached("The page.", {"text/html": str}, headers=PAGE),
            problems=(problems.NOT_FOUND,),
        ),
        ("GET", "/assets/{name}"): Operation(
            tag="Documentation",
            access=Access.PUBLIC,
            parameters=("name", "If-None-Match"),
            successes=_cached(
                "The file.", {"text/*": str, "image/*": str}, headers=(*CACHED, "X-Content-Type-Options")
            ),
            problems=(problems.NOT_FOUND,),
        ),
    }
)
