"""Gives every error one shape, every response its common headers, and every request one log line."""

import logging
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final, cast

from chalice.app import Request, Response

from chalicelib import problems
from chalicelib.api import problem_pages
from chalicelib.api.responses import CORS
from chalicelib.problems import NO_HEADERS, Headers, ProblemError
from chalicelib.telemetry import metrics, request_context

logger: Final = logging.getLogger(__name__)

GetResponse = Callable[[Request], Response]


def handle_request(request: Request, get_response: GetResponse) -> Response:
    """Serve a request. Never raise."""
    started_at = time.monotonic()
    request_context.start(request_id=_request_id(request), route=f"{request.method} {request.path}")
    problem_type = None
    try:
        response = _call_route(request, get_response)
    except ProblemError as error:
        problem_type = error.problem.type
        request_context.bind(problem=problem_type, code=error.problem.code)
        help_link = {"Link": problem_pages.help_link(error.problem, request)}
        response = problems.problem_response(error.problem, headers={**help_link, **error.headers})
    except Exception:
        logger.exception("unhandled_error")
        response = _generic_problem_response(request, HTTPStatus.INTERNAL_SERVER_ERROR)
    response.headers = {
        **CORS.get_access_control_headers(),
        **request_context.current().headers,
        "Cache-Control": "no-store",
        **response.headers,
    }
    duration_ms = round((time.monotonic() - started_at) * 1000)
    fields = {"status": int(response.status_code), "duration_ms": duration_ms}
    logger.info("request", extra={**fields, **metrics.request_fields(problem_type)})
    return response


def _call_route(request: Request, get_response: GetResponse) -> Response:
    if "transfer-encoding" in request.headers and not request.raw_body:
        raise ProblemError(problems.LENGTH_REQUIRED)
    response = get_response(request)
    if response.status_code < HTTPStatus.BAD_REQUEST or isinstance(response.body, str):
        return response
    # An error of Chalice itself, whose body is a dictionary: an unknown method, or an exception that it has logged.
    return _generic_problem_response(request, response.status_code, headers=response.headers)


def _generic_problem_response(request: Request, status: int, *, headers: Headers = NO_HEADERS) -> Response:
    problem = problems.problem_for_status(status, instance=f"urn:uuid:{_request_id(request)}")
    return problems.problem_response(problem, headers=headers)


def _request_id(request: Request) -> str:
    return str(cast("Any", request.lambda_context).aws_request_id)
