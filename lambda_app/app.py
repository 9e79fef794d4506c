"""Routes and HTTP, nothing else: the same under `chalice local` and on Lambda. Import needs no setting."""

import os
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from functools import cache
from http import HTTPStatus
from typing import Any, Final, cast

import boto3
import msgspec
from botocore.config import Config
from chalice.app import Chalice, CORSConfig, Request, Response
from msgspec import Struct

from chalicelib import logs, problems, settings
from chalicelib.admission import Admission, Caller, credentials
from chalicelib.dispatch import Dispatcher
from chalicelib.key_table import KeyTable
from chalicelib.overload import Overload
from chalicelib.replies import LONG_POLL_S, ReplyQueue
from chalicelib.validation import parse_run_request, require_in_plan

SQS_CONFIG: Final = Config(
    connect_timeout=2,
    read_timeout=LONG_POLL_S + 5,
    retries={"mode": "standard", "total_max_attempts": 2},  # the gateway gives up after 29 s
    max_pool_connections=128,  # chalice local answers each connection in a thread of its own
    tcp_keepalive=True,
)
DYNAMODB_CONFIG: Final = Config(
    connect_timeout=1,
    read_timeout=2,  # of the time in which somebody waits for a result
    retries={"mode": "standard", "total_max_attempts": 2},
    max_pool_connections=128,
    tcp_keepalive=True,
)
CORS: Final = CORSConfig(
    allow_origin="*",  # a key is sent by hand, never by the browser itself
    allow_headers=["Content-Type", "X-Api-Key", "Authorization"],
    expose_headers=["RateLimit", "RateLimit-Policy", "Retry-After", "WWW-Authenticate"],
    max_age=600,
)

app = Chalice(app_name="python-exec", configure_logs=False)
logs.configure(app.app_name, "chalicelib")

_wiring: Final = threading.Lock()
_rate_limit: ContextVar[problems.Headers] = ContextVar("rate_limit", default=problems.NO_HEADERS)


class Service(Struct, frozen=True, kw_only=True):
    """What the routes work with; one of each in a process."""

    admission: Admission
    overload: Overload
    dispatcher: Dispatcher


@app.middleware("http")
def answer(request: Request, get_response: Callable[[Request], Response]) -> Response:
    """Gives every failure one shape and every request one log line."""
    started = time.monotonic()
    logs.begin(request_id=_request_id(request), route=f"{request.method} {request.path}")
    _rate_limit.set(problems.NO_HEADERS)
    try:
        response = _respond(request, get_response)
    except problems.ProblemError as error:
        logs.add(problem=error.problem.type, rule=error.problem.rule)
        response = problems.response(error.problem, headers=error.headers)
    except Exception:
        app.log.exception("middleware_failed")
        response = _without_reason(request, HTTPStatus.INTERNAL_SERVER_ERROR)
    response.headers = {
        **CORS.get_access_control_headers(),
        **_rate_limit.get(),
        **response.headers,
        "Cache-Control": "no-store",
    }
    duration_ms = round((time.monotonic() - started) * 1000)
    app.log.info("request", extra={"status": int(response.status_code), "duration_ms": duration_ms})
    return response


@app.route("/", methods=["POST"], content_types=[], cors=CORS)  # []: Chalice's 415 has another shape than ours
def run() -> Response:
    """Runs a program. 200 says that it ran, whatever came of it."""
    request = cast("Request", app.current_request)
    caller = _admit(request)
    body = cast("bytes", request.raw_body)  # annotated str | bytes, never str
    wanted = parse_run_request(body, content_type=request.headers.get("content-type", ""))
    require_in_plan(wanted, caller.plan)
    result = service().dispatcher.run(wanted, key_id=caller.record.key_id)
    logs.add(job_status=result.status)
    shown = msgspec.structs.asdict(result)
    del shown["version"]
    return _json(shown)


@app.route("/usage", methods=["GET"], content_types=[], cors=CORS)
def usage() -> Response:
    """What the key may do and has left. Costs it nothing."""
    admission = service().admission
    caller = admission.identify(_credentials(cast("Request", app.current_request)), fresh=True)
    _see(caller)
    return _json(admission.usage(caller))


def service() -> Service:
    """The one of this process, made by the first request. Raises settings.SettingsError."""
    with _wiring:
        return _service()


@cache
def _service() -> Service:
    told = settings.load(os.environ)
    sqs = boto3.client("sqs", config=SQS_CONFIG)
    dynamodb = boto3.client("dynamodb", config=DYNAMODB_CONFIG)
    return Service(
        admission=Admission(KeyTable(dynamodb, name=told.keys_table)),
        overload=Overload(sqs, job_queue_url=told.job_queue_url, max_depth=told.max_queue_depth),
        dispatcher=Dispatcher(
            sqs, job_queue_url=told.job_queue_url, replies=ReplyQueue(sqs), reply_wait_s=told.reply_wait_s
        ),
    )


def _admit(request: Request) -> Caller:
    """Who may have a program run; what is refused later has been paid for (docs/decisions/007)."""
    admission = service().admission
    caller = admission.identify(_credentials(request))
    _see(caller)
    service().overload.check()
    caller = admission.admit(caller)
    _see(caller)
    return caller


def _see(caller: Caller) -> None:
    """From now on each log line names the key, and the answer tells what it has left."""
    logs.add(key_id=caller.record.key_id, plan=caller.plan.name)
    _rate_limit.set(caller.standing.headers())


def _credentials(request: Request) -> list[str]:
    return credentials(_values(request, "x-api-key"), _values(request, "authorization"))


def _values(request: Request, name: str) -> list[str]:
    """All values of a header: of one that is repeated API Gateway has only the last among `headers`."""
    repeated = request.to_original_event().get("multiValueHeaders") or {}
    found = [value for key, values in repeated.items() if key.lower() == name for value in values]
    if not found and name in request.headers:
        return [request.headers[name]]  # chalice local has no multiValueHeaders
    return found


def _json(body: object) -> Response:
    return Response(body=msgspec.json.encode(body).decode(), headers={"Content-Type": "application/json"})


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
