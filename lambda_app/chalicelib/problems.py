"""Errors of the API as RFC 9457 problem details: one table of types, and one exception for all of them."""

from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Final

import msgspec
from chalice.app import ChaliceUnhandledError, Response
from msgspec import Struct

from chalicelib.contract import FailureReason

TYPE_PREFIX: Final = "urn:python-exec:problem:"
MAX_IDEMPOTENCY_KEY_CHARS: Final = 255
Headers = Mapping[str, str | list[str]]

NO_HEADERS: Final[Headers] = MappingProxyType({})


class Problem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The members of a problem body: those of RFC 9457, then extensions. Clients compare `type` and `code`."""

    type: str
    title: str
    status: int
    detail: str | None = None
    instance: str | None = None  # the request id, which the request's log lines carry too
    field: str | None = None  # the request field at fault
    code: str | None = None  # request_fields.RequestErrorCode
    limit_bytes: int | None = None
    actual_bytes: int | None = None
    limit_items: int | None = None
    actual_items: int | None = None
    limit_s: float | None = None
    plan: str | None = None
    job_id: str | None = None


class ProblemType(Struct, frozen=True):
    """A row of the table. `detail` is the default; `retry_after_s` becomes the Retry-After header."""

    slug: str
    status: int
    title: str
    detail: str | None = None
    retry_after_s: int | None = None
    headers: Mapping[str, str] = MappingProxyType({})

    @property
    def uri(self) -> str:
        """Return the value of the problem's `type` member."""
        return TYPE_PREFIX + self.slug


class ProblemError(ChaliceUnhandledError):
    """End the request with a problem. Chalice lets only its own base class reach the middleware."""

    def __init__(
        self,
        problem_type: ProblemType,
        *,
        detail: str | None = None,
        headers: Headers = NO_HEADERS,
        **members: Any,  # noqa: ANN401 - the optional members of Problem
    ) -> None:
        super().__init__(problem_type.title)
        self.problem = Problem(
            type=problem_type.uri,
            title=problem_type.title,
            status=problem_type.status,
            detail=detail or problem_type.detail,
            **members,
        )
        retry_after = {} if problem_type.retry_after_s is None else {"Retry-After": str(problem_type.retry_after_s)}
        self.headers: Headers = {**problem_type.headers, **retry_after, **headers}


INVALID_REQUEST: Final = ProblemType("invalid-request", 400, "Invalid request")
INVALID_IDEMPOTENCY_KEY: Final = ProblemType(
    "invalid-idempotency-key", 400, "Invalid Idempotency-Key",
    f"Send one Idempotency-Key of 1 to {MAX_IDEMPOTENCY_KEY_CHARS} printable ASCII characters.",
)  # fmt: skip
UNAUTHORIZED: Final = ProblemType(
    "unauthorized", 401, "Unauthorized", "Provide exactly one valid API key, in X-Api-Key or as a Bearer token.",
    headers={"WWW-Authenticate": 'Bearer realm="python-exec"'},
)  # fmt: skip
KEY_REVOKED: Final = ProblemType("key-revoked", 403, "API key rejected", "This key was revoked.")
KEY_EXPIRED: Final = ProblemType("key-expired", 403, "API key rejected", "This key has expired.")
PLAN_LIMIT_EXCEEDED: Final = ProblemType("plan-limit-exceeded", 403, "Plan limit exceeded")
NO_SIGNING_SECRET: Final = ProblemType(
    "no-signing-secret", 403, "No signing secret",
    "This key has no signing secret. Ask your operator to rotate the signing secret, or omit callback_url.",
)  # fmt: skip
NOT_FOUND: Final = ProblemType("not-found", 404, "Not found", "There is no page or file of that name.")
JOB_NOT_FOUND: Final = ProblemType("job-not-found", 404, "Job not found", "This key has no job with that id.")
JOB_EXPIRED_OR_DELETED: Final = ProblemType(
    "job-expired-or-deleted", 410, "Job expired or deleted", "The job was deleted, or its result is no longer retained."
)
LENGTH_REQUIRED: Final = ProblemType(  # chalice local would read a chunked body as the connection's next request
    "length-required", 411, "Length required", "Send the body with a Content-Length instead of Transfer-Encoding.",
    headers={"Connection": "close"},
)  # fmt: skip
TOO_LARGE: Final = ProblemType("too-large", 413, "Too large")
UNSUPPORTED_MEDIA_TYPE: Final = ProblemType(
    "unsupported-media-type", 415, "Unsupported media type", "Content-Type must be application/json.",
    headers={"Accept-Post": "application/json"},
)  # fmt: skip
IDEMPOTENCY_KEY_REUSED: Final = ProblemType(
    "idempotency-key-reused", 422, "Idempotency-Key reused", "This Idempotency-Key was used with a different body."
)
RATE_LIMITED: Final = ProblemType("rate-limited", 429, "Rate limit exceeded")
QUOTA_EXCEEDED: Final = ProblemType("quota-exceeded", 429, "Monthly quota exceeded")
TOO_MANY_PENDING_JOBS: Final = ProblemType("too-many-pending-jobs", 429, "Too many pending jobs", retry_after_s=5)
JOB_STORE_UNAVAILABLE: Final = ProblemType(
    "job-store-unavailable", 503, "Job store unavailable", "Jobs cannot be looked up at the moment. Retry the request.",
    retry_after_s=2,  # DynamoDB outages are short
)  # fmt: skip
AUTHENTICATION_UNAVAILABLE: Final = ProblemType(
    "authentication-unavailable", 503, "Authentication unavailable",
    "API keys cannot be checked at the moment. Retry the request.",
    retry_after_s=2,
)  # fmt: skip
OVERLOADED: Final = ProblemType(
    "overloaded", 503, "Overloaded", "The service is at capacity. This request used no run; retry later.",
    retry_after_s=5,  # by then the queue depth has been read again
)  # fmt: skip
JOB_QUEUE_UNAVAILABLE: Final = ProblemType(
    "job-queue-unavailable", 503, "Job queue unavailable", "The job was not accepted. Retry the request.",
    retry_after_s=2,  # SQS outages are short
)  # fmt: skip
HEALTH_CHECK_FAILED: Final = ProblemType(
    "health-check-failed", 503, "Health check failed", "The API is up, but its queue or its table does not respond.",
    retry_after_s=5,
)  # fmt: skip
RESULT_TIMEOUT: Final = ProblemType(
    "result-timeout", 504, "Result timeout",
    "The result was not ready in time, and the job could not be saved for later. "
    "Retry with the same Idempotency-Key, if the request had one.",
)  # fmt: skip
JOB_FAILED: Final = {
    reason: ProblemType(f"job-failed:{reason}", status, "Job failed", detail)
    for reason, status, detail in (
        (FailureReason.HOST_LOST, 502, "The host running this job was lost on every attempt."),
        (FailureReason.SANDBOX_ERROR, 502, "The job failed because of an internal error, not because of your code."),
        (FailureReason.START_TIMEOUT, 504, "No host was free in time. The program was not run."),
    )
}

PROBLEM_TYPES: Final = tuple(value for value in tuple(globals().values()) if isinstance(value, ProblemType)) + tuple(
    JOB_FAILED.values()
)


def job_failed(job_id: str, reason: FailureReason) -> ProblemError:
    """Return the problem of a job that has no result and will have none."""
    return ProblemError(JOB_FAILED[reason], job_id=job_id)


def problem_for_status(status: int, *, instance: str | None = None) -> Problem:
    """Return a problem that says no more than its HTTP status."""
    return Problem(type="about:blank", title=HTTPStatus(status).phrase, status=status, instance=instance)


def problem_response(problem: Problem, *, headers: Headers = NO_HEADERS) -> Response:
    """Return the HTTP response for a problem."""
    return Response(
        body=msgspec.json.encode(problem).decode(),
        headers={**headers, "Content-Type": "application/problem+json"},
        status_code=problem.status,
    )
