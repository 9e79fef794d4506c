"""Routes and HTTP, nothing else: the same under `chalice local` and on Lambda. Import needs no setting."""

import os
import threading
import time
from collections.abc import Callable
from functools import cache
from http import HTTPStatus
from typing import Any, Final, cast

import boto3
import msgspec
from botocore.config import Config
from chalice.app import Chalice, Request, Response

from chalicelib import logs, problems, settings
from chalicelib.dispatch import Dispatcher
from chalicelib.replies import LONG_POLL_S, ReplyQueue
from chalicelib.validation import parse_run_request

SQS_CONFIG: Final = Config(
    connect_timeout=2,
    read_timeout=LONG_POLL_S + 5,
    retries={"mode": "standard", "total_max_attempts": 2},  # the gateway gives up after 29 s
    max_pool_connections=128,  # chalice local answers each connection in a thread of its own
    tcp_keepalive=True,
)

app = Chalice(app_name="python-exec", configure_logs=False)
logs.configure(app.app_name, "chalicelib")

_wiring: Final = threading.Lock()


@app.middleware("http")
def answer(request: Request, get_response: Callable[[Request], Response]) -> Response:
    """Gives every failure one shape and every request one log line."""
    started = time.monotonic()
    logs.begin(request_id=_request_id(request), route=f"{request.method} {request.path}")
    try:
        response = _respond(request, get_response)
    except problems.ProblemError as error:
        logs.add(problem=error.problem.type, rule=error.problem.rule)
        response = problems.response(error.problem, headers=error.headers)
    except Exception:
        app.log.exception("middleware_failed")
        response = _without_reason(request, HTTPStatus.INTERNAL_SERVER_ERROR)
    response.headers["Cache-Control"] = "no-store"
    duration_ms = round((time.monotonic() - started) * 1000)
    app.log.info("request", extra={"status": int(response.status_code), "duration_ms": duration_ms})
    return response


@app.route("/", methods=["POST"], content_types=[])  # []: Chalice's 415 has another shape than ours
def run() -> Response:
    """Runs a program. 200 says that it ran, whatever came of it."""
    request = cast("Request", app.current_request)
    body = cast("bytes", request.raw_body)  # annotated str | bytes, never str
    wanted = parse_run_request(body, content_type=request.headers.get("content-type", ""))
    result = dispatcher().run(wanted)
    logs.add(job_status=result.status)
    shown = msgspec.structs.asdict(result)
    del shown["version"]
    return Response(body=msgspec.json.encode(shown).decode(), headers={"Content-Type": "application/json"})


def dispatcher() -> Dispatcher:
    """The one of this process, made by the first request. Raises settings.SettingsError."""
    with _wiring:
        return _dispatcher()


@cache
def _dispatcher() -> Dispatcher:
    told = settings.load(os.environ)
    sqs = boto3.client("sqs", config=SQS_CONFIG)
    return Dispatcher(sqs, job_queue_url=told.job_queue_url, replies=ReplyQueue(sqs), reply_wait_s=told.reply_wait_s)


def _respond(request: Request, get_response: Callable[[Request], Response]) -> Response:
    if "transfer-encoding" in request.headers and not request.raw_body:
        raise problems.LengthRequiredError
    response = get_response(request)
    if response.status_code < HTTPStatus.BAD_REQUEST:
        return response
    # Chalice's own: an unknown method, or an exception in a route, which it has logged.
    return _without_reason(request, response.status_code, headers=response.headers)


def _without_reason(request: Request, status: int, *, headers: problems.Headers = problems.NO_HEADERS) -> Response:
    problem = problems.of_status(status, instance=f"urn:uuid:{_request_id(request)}")
    return problems.response(problem, headers=headers)


def _request_id(request: Request) -> str:
    return str(cast("Any", request.lambda_context).aws_request_id)
