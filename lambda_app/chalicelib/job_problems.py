"""What may be wrong with a job, as problems. Raised by submit.py and the routes."""

from http import HTTPStatus
from typing import Final

from chalicelib.contract import FailureReason
from chalicelib.problems import TYPE_PREFIX, Problem, ProblemError

RETRY_AFTER_S: Final = 2  # DynamoDB outages are short
MAX_IDEMPOTENCY_KEY_CHARS: Final = 255


class UnknownJobError(ProblemError):
    """The key has no such job; whether another one has is not told."""

    def __init__(self) -> None:
        super().__init__(
            Problem(
                type=TYPE_PREFIX + "job-not-found",
                title="Unknown job",
                status=HTTPStatus.NOT_FOUND,
                detail="This key has no such job.",
            )
        )


class JobGoneError(ProblemError):
    """There was such a job, but its result is no longer kept."""

    def __init__(self) -> None:
        super().__init__(
            Problem(
                type=TYPE_PREFIX + "job-expired-or-deleted",
                title="Job gone",
                status=HTTPStatus.GONE,
                detail="The job was deleted, or its result is no longer kept.",
            )
        )


class InvalidIdempotencyKeyError(ProblemError):
    """The Idempotency-Key is not what we take."""

    def __init__(self) -> None:
        super().__init__(
            Problem(
                type=TYPE_PREFIX + "invalid-idempotency-key",
                title="Invalid Idempotency-Key",
                status=HTTPStatus.BAD_REQUEST,
                detail=f"Send one Idempotency-Key of 1 to {MAX_IDEMPOTENCY_KEY_CHARS} printable ASCII characters.",
            )
        )


class IdempotencyKeyReusedError(ProblemError):
    """The Idempotency-Key belongs to a request with another body."""

    def __init__(self) -> None:
        super().__init__(
            Problem(
                type=TYPE_PREFIX + "idempotency-key-reused",
                title="Idempotency-Key reused",
                status=HTTPStatus.UNPROCESSABLE_ENTITY,
                detail="This Idempotency-Key was sent before, with another body.",
            )
        )


class JobsUnavailableError(ProblemError):
    """The jobs table does not answer."""

    def __init__(self) -> None:
        super().__init__(
            Problem(
                type=TYPE_PREFIX + "job-store-unavailable",
                title="Temporarily unavailable",
                status=HTTPStatus.SERVICE_UNAVAILABLE,
                detail="Jobs cannot be looked up at the moment. Send the request again.",
            ),
            headers={"Retry-After": str(RETRY_AFTER_S)},
        )


class NoReplyError(ProblemError):
    """The job has no result yet, and that its customer will ask for it could not be written down."""

    def __init__(self, job_id: str) -> None:
        super().__init__(
            Problem(
                type=TYPE_PREFIX + "result-timeout",
                title="No result in time",
                status=HTTPStatus.GATEWAY_TIMEOUT,
                detail="The job was accepted, but its result did not come in time.",
                job_id=job_id,
            )
        )


class JobFailedError(ProblemError):
    """The job has no result and will have none."""

    def __init__(self, job_id: str, reason: FailureReason) -> None:
        """504 for a job that found no host in time, 502 for one that our side could not run."""
        status, detail = _FAILURES[reason]
        super().__init__(
            Problem(
                type=f"{TYPE_PREFIX}job-failed:{reason}",
                title="Job failed",
                status=status,
                detail=detail,
                job_id=job_id,
            )
        )


_FAILURES: Final = {
    FailureReason.START_TIMEOUT: (HTTPStatus.GATEWAY_TIMEOUT, "The job found no free host in time and was not run."),
    FailureReason.SANDBOX_ERROR: (HTTPStatus.BAD_GATEWAY, "The job could not be run. The code is not to blame."),
    FailureReason.HOST_LOST: (HTTPStatus.BAD_GATEWAY, "The hosts that took the job were lost, each time."),
}
