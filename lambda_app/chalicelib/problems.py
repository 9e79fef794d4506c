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
    cause: str = ""  # for GET /problems/{type}
    remedy: str = ""

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


INVALID_REQUEST: Final = ProblemType(
    "invalid-request", 400, "Invalid request",
    cause="The body is not a valid request. `code` names the fault and `field` the place.",
    remedy="Correct the field. The same request will never succeed.",
)  # fmt: skip
INVALID_IDEMPOTENCY_KEY: Final = ProblemType(
    "invalid-idempotency-key", 400, "Invalid Idempotency-Key",
    f"Send one Idempotency-Key of 1 to {MAX_IDEMPOTENCY_KEY_CHARS} printable ASCII characters.",
    cause="The Idempotency-Key is sent twice, is empty, is too long or is not printable ASCII.",
    remedy="Send the header once, for example with a random UUID.",
)  # fmt: skip
UNAUTHORIZED: Final = ProblemType(
    "unauthorized", 401, "Unauthorized", "Provide exactly one valid API key, in X-Api-Key or as a Bearer token.",
    headers={"WWW-Authenticate": 'Bearer realm="python-exec"'},
    cause="The API key is missing, duplicated or invalid. The response does not say which.",
    remedy="Send the key that your operator issued in one of the two headers, not in both.",
)  # fmt: skip
KEY_REVOKED: Final = ProblemType(
    "key-revoked", 403, "API key rejected", "This key was revoked.",
    cause="The operator has revoked the key.",
    remedy="Ask your operator for a new key.",
)  # fmt: skip
KEY_EXPIRED: Final = ProblemType(
    "key-expired", 403, "API key rejected", "This key has expired.",
    cause="The key was issued until a date that has passed.",
    remedy="Ask your operator for a new key.",
)  # fmt: skip
PLAN_LIMIT_EXCEEDED: Final = ProblemType(
    "plan-limit-exceeded", 403, "Plan limit exceeded",
    cause="The request is valid, but `field` exceeds the limit of your plan.",
    remedy="Stay within `limit_s` or `limit_bytes`, or ask your operator for a larger plan.",
)  # fmt: skip
NO_SIGNING_SECRET: Final = ProblemType(
    "no-signing-secret", 403, "No signing secret",
    "This key has no signing secret. Ask your operator to rotate the signing secret, or omit callback_url.",
    cause="The request has a callback_url, but webhooks of this key cannot be signed.",
    remedy="Ask your operator to rotate the signing secret of the key, or poll for the result instead.",
)  # fmt: skip
NOT_FOUND: Final = ProblemType(
    "not-found", 404, "Not found", "There is no page or file of that name.",
    cause="The URL names a page, a file or a problem type that does not exist in this version.",
    remedy="Load the page that refers to it again.",
)  # fmt: skip
JOB_NOT_FOUND: Final = ProblemType(
    "job-not-found", 404, "Job not found", "This key has no job with that id.",
    cause="The job was never accepted, or it belongs to another key.",
    remedy="Use the Location of the 202 response, with the key that sent the request.",
)  # fmt: skip
JOB_EXPIRED_OR_DELETED: Final = ProblemType(
    "job-expired-or-deleted", 410, "Job expired or deleted",
    "The job was deleted, or its result is no longer retained.",
    cause="Its result was deleted by a request or is older than the time for which results are retained.",
    remedy="Run the program again, with another Idempotency-Key if it had one.",
)  # fmt: skip
LENGTH_REQUIRED: Final = ProblemType(  # chalice local would read a chunked body as the connection's next request
    "length-required", 411, "Length required", "Send the body with a Content-Length instead of Transfer-Encoding.",
    headers={"Connection": "close"},
    cause="The body is sent in chunks.",
    remedy="Send the whole body with a Content-Length.",
)  # fmt: skip
TOO_LARGE: Final = ProblemType(
    "too-large", 413, "Too large",
    cause="The body, or the part of it that `field` names, has `actual_bytes` and may have `limit_bytes`.",
    remedy="Send less, or split the work into several requests.",
)  # fmt: skip
UNSUPPORTED_MEDIA_TYPE: Final = ProblemType(
    "unsupported-media-type", 415, "Unsupported media type", "Content-Type must be application/json.",
    headers={"Accept-Post": "application/json"},
    cause="The Content-Type is missing or is not application/json.",
    remedy="Send the header Content-Type: application/json.",
)  # fmt: skip
IDEMPOTENCY_KEY_REUSED: Final = ProblemType(
    "idempotency-key-reused", 422, "Idempotency-Key reused", "This Idempotency-Key was used with a different body.",
    cause="Requests with the same Idempotency-Key return the same job, so they must have the same body.",
    remedy="Use a new Idempotency-Key for each new request, and repeat the body exactly when you retry.",
)  # fmt: skip
RATE_LIMITED: Final = ProblemType(
    "rate-limited", 429, "Rate limit exceeded",
    cause="The key has sent more requests per second than its plan allows.",
    remedy="Wait for the seconds in Retry-After. The RateLimit header of every response says what is left.",
)  # fmt: skip
QUOTA_EXCEEDED: Final = ProblemType(
    "quota-exceeded", 429, "Monthly quota exceeded",
    cause="The key has used all runs of this calendar month.",
    remedy="Wait for the seconds in Retry-After, or ask your operator for a larger plan.",
)  # fmt: skip
TOO_MANY_PENDING_JOBS: Final = ProblemType(
    "too-many-pending-jobs", 429, "Too many pending jobs", retry_after_s=5,
    cause="As many jobs of the key are waiting for a result as its plan allows.",
    remedy="Wait until some of them have finished.",
)  # fmt: skip
JOB_STORE_UNAVAILABLE: Final = ProblemType(
    "job-store-unavailable", 503, "Job store unavailable", "Jobs cannot be looked up at the moment. Retry the request.",
    retry_after_s=2,  # DynamoDB outages are short
    cause="The table of jobs does not respond.",
    remedy="Retry the request, with the same Idempotency-Key if it had one.",
)  # fmt: skip
AUTHENTICATION_UNAVAILABLE: Final = ProblemType(
    "authentication-unavailable", 503, "Authentication unavailable",
    "API keys cannot be checked at the moment. Retry the request.",
    retry_after_s=2,
    cause="The table of keys does not respond.",
    remedy="Retry the request.",
)  # fmt: skip
OVERLOADED: Final = ProblemType(
    "overloaded", 503, "Overloaded", "The service is at capacity. This request used no run; retry later.",
    retry_after_s=5,  # by then the queue depth has been read again
    cause="More jobs are queued than the hosts can clear in time.",
    remedy="Retry the request later, each time after a longer pause.",
)  # fmt: skip
JOB_QUEUE_UNAVAILABLE: Final = ProblemType(
    "job-queue-unavailable", 503, "Job queue unavailable", "The job was not accepted. Retry the request.",
    retry_after_s=2,  # SQS outages are short
    cause="The job could not be sent to the hosts.",
    remedy="Retry the request, with the same Idempotency-Key if it had one.",
)  # fmt: skip
PAYLOAD_STORE_UNAVAILABLE: Final = ProblemType(
    "payload-store-unavailable", 503, "Payload store unavailable",
    "Large jobs and results cannot be stored or read at the moment. Retry the request.",
    cause="The job or its result has more than 256 KiB, and the payload store does not respond.",
    remedy="Retry the request, with the same Idempotency-Key if it had one.",
    retry_after_s=2,  # S3 outages are short
)  # fmt: skip
HEALTH_CHECK_FAILED: Final = ProblemType(
    "health-check-failed", 503, "Health check failed", "The API is up, but its queue or its table does not respond.",
    retry_after_s=5,
    cause="The report about jobs and hosts could not be read.",
    remedy="Look at the runbook if it persists.",
)  # fmt: skip
RESULT_TIMEOUT: Final = ProblemType(
    "result-timeout", 504, "Result timeout",
    "The result was not ready in time, and the job could not be saved for later. "
    "Retry with the same Idempotency-Key, if the request had one.",
    cause="The program may have run, but its result is lost for this request.",
    remedy="Retry with the same Idempotency-Key, if the request had one; it returns the result of the same job.",
)  # fmt: skip
JOB_FAILED: Final = {
    reason: ProblemType(f"job-failed:{reason}", status, "Job failed", detail, cause=cause, remedy=remedy)
    for reason, status, detail, cause, remedy in (
        (
            FailureReason.HOST_LOST, 502, "The host running this job was lost on every attempt.",
            "Each host that received the job stopped before it reported a result.",
            "Retry with another Idempotency-Key. If it happens again, tell your operator the job id.",
        ),
        (
            FailureReason.SANDBOX_ERROR, 502, "The job failed because of an internal error, not because of your code.",
            "The sandbox broke on every attempt.",
            "Retry with another Idempotency-Key. If it happens again, tell your operator the job id.",
        ),
        (
            FailureReason.PAYLOAD_LOST, 502, "The stored job or its result could not be read.",
            "The job or its result has more than 256 KiB, and its copy in the payload store is missing or damaged.",
            "Retry with another Idempotency-Key. If it happens again, tell your operator the job id.",
        ),
        (
            FailureReason.START_TIMEOUT, 504, "No host was free in time. The program was not run.",
            "All hosts were busy, or none was running, until the start deadline of the job.",
            "Retry later with another Idempotency-Key.",
        ),
    )
}  # fmt: skip

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
