"""Builds the responses of the routes."""

from http import HTTPStatus
from typing import Any, Final

import msgspec
from chalice.app import CORSConfig, Request, Response

from chalicelib import problems
from chalicelib.contract import Failure, Reply, Result
from chalicelib.jobs import batch_view, job_view
from chalicelib.jobs.expectations import Expectations
from chalicelib.jobs.job_table import JobRecord
from chalicelib.jobs.submit import PendingJob
from chalicelib.problems import NO_HEADERS, Headers
from chalicelib.telemetry import request_context

MCP_HEADERS: Final = ("Mcp-Method", "Mcp-Name", "Mcp-Protocol-Version")  # of its protocol version 2026-07-28
CORS: Final = CORSConfig(
    allow_origin="*",  # browsers never attach an API key by themselves
    allow_headers=["Content-Type", "X-Api-Key", "Authorization", "Prefer", "Idempotency-Key", *MCP_HEADERS],
    expose_headers=[
        "Link",
        "Location",
        "Preference-Applied",
        "RateLimit",
        "RateLimit-Policy",
        "Retry-After",
        "WWW-Authenticate",
    ],
    max_age=600,
)
PENDING_RETRY_AFTER_S: Final = 1


def json_response(body: object, *, status: int = HTTPStatus.OK, headers: Headers = NO_HEADERS) -> Response:
    """Return a JSON response."""
    text = msgspec.json.encode(body).decode()
    return Response(body=text, headers={**headers, "Content-Type": "application/json"}, status_code=status)


def base_path(request: Request) -> str:
    """Return the path of the API without a final slash: empty, or the stage of API Gateway."""
    path = str(request.context.get("path", request.path)).rstrip("/")
    return path.rsplit("/", request.path.rstrip("/").count("/"))[0]


def outcome_response(
    outcome: Reply | PendingJob, request: Request, *, headers: Headers, expectations: Expectations | None = None
) -> Response:
    """Return the response to a submission. Raise ProblemError if the job failed."""
    if isinstance(outcome, Failure):
        raise problems.job_failed(outcome.id, outcome.reason)
    if isinstance(outcome, PendingJob):
        location = {"Location": f"{base_path(request)}/jobs/{outcome.job_id}"}
        return _pending_response(job_view.pending_body(outcome.job_id), {**location, **headers})
    request_context.bind(job_status=outcome.status if isinstance(outcome, Result) else batch_view.FINISHED)
    return json_response(job_view.result_body(outcome, expectations), headers=headers)


def job_response(record: JobRecord, reply: Reply | None) -> Response:
    """Return the response for a job that was accepted earlier, with its reply if there is one."""
    body = job_view.job_body(record, reply)
    return _pending_response(body) if reply is None else json_response(body)


def _pending_response(body: dict[str, Any], headers: Headers = NO_HEADERS) -> Response:
    request_context.bind(job_status=job_view.PENDING)
    headers = {"Retry-After": str(PENDING_RETRY_AFTER_S), **headers}
    return json_response(body, status=HTTPStatus.ACCEPTED, headers=headers)
