"""Routes and HTTP, nothing else: the same under `chalice local` and on Lambda. Import needs no setting."""

import os
import re
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from functools import cache
from http import HTTPStatus
from typing import Any, Final, cast

import msgspec
from chalice.app import Chalice, CloudWatchEvent, CORSConfig, Request, Response, SQSEvent
from msgspec.structs import replace

from chalicelib import components, problems, settings
from chalicelib.access.admission import Caller, collect_presented_keys, require_active_key
from chalicelib.api import prefer_header, queue_events
from chalicelib.api.run_request import (
    RunRequest,
    check_plan_limits,
    check_signing_secret,
    parse_run_request,
    require_async,
)
from chalicelib.components import Service
from chalicelib.contract import Failure, Result
from chalicelib.fleet import health
from chalicelib.jobs import job_view
from chalicelib.jobs.job_table import JobRecord
from chalicelib.jobs.submission import Order
from chalicelib.telemetry import logs, metrics

CORS: Final = CORSConfig(
    allow_origin="*",  # a key is sent by hand, never by the browser itself
    allow_headers=["Content-Type", "X-Api-Key", "Authorization", "Prefer", "Idempotency-Key"],
    expose_headers=[
        "Location",
        "Preference-Applied",
        "RateLimit",
        "RateLimit-Policy",
        "Retry-After",
        "WWW-Authenticate",
    ],
    max_age=600,
)

RETRY_AFTER_S: Final = 1  # of a job that is pending
_JOB_ID: Final = re.compile("[0-9a-f]{32}")
_IDEMPOTENCY_KEY: Final = re.compile("[ -~]{1,255}")

app = Chalice(app_name="python-exec", configure_logs=False)
logs.configure(app.app_name, "chalicelib")

_wiring: Final = threading.Lock()
_rate_limit: ContextVar[problems.Headers] = ContextVar("rate_limit", default=problems.NO_HEADERS)


@app.middleware("http")
def answer(request: Request, get_response: Callable[[Request], Response]) -> Response:
    """Gives every failure one shape and every request one log line."""
    started = time.monotonic()
    logs.begin(request_id=_request_id(request), route=f"{request.method} {request.path}")
    metrics.begin()
    _rate_limit.set(problems.NO_HEADERS)
    problem = None
    try:
        response = _respond(request, get_response)
    except problems.ProblemError as error:
        problem = error.problem.type
        logs.add(problem=problem, code=error.problem.code)
        response = problems.problem_response(error.problem, headers=error.headers)
    except Exception:
        app.log.exception("unhandled_error")
        response = _without_reason(request, HTTPStatus.INTERNAL_SERVER_ERROR)
    response.headers = {
        **CORS.get_access_control_headers(),
        **_rate_limit.get(),
        **response.headers,
        "Cache-Control": "no-store",
    }
    duration_ms = round((time.monotonic() - started) * 1000)
    fields = {"status": int(response.status_code), "duration_ms": duration_ms, **metrics.of_request(problem)}
    app.log.info("request", extra=fields)
    return response


@app.route("/", methods=["POST"], content_types=[], cors=CORS)  # []: Chalice's 415 has another shape than ours
def run() -> Response:
    """Runs a program. 200 says that it ran, whatever came of it; 202 that its result comes later."""
    request = cast("Request", app.current_request)
    caller = service().admission.authenticate(_credentials(request))
    _see(caller)
    is_filling = service().load_shedder.check_capacity()
    preference = prefer_header.parse(_values(request, "prefer"))
    body = cast("bytes", request.raw_body)  # annotated str | bytes, never str
    try:
        idempotency_key = _idempotency_key(request)
        wanted = _wanted(request, body, caller, is_async=preference.respond_async)
    except problems.ProblemError:
        _admit(caller)  # what is refused has been paid for (docs/decisions/007)
        raise
    if preference.respond_async and wanted.callback_url is not None:
        preference = replace(preference, wait_s=None)  # whoever is called back does not wait
    order = Order(
        request=wanted,
        key_id=caller.record.key_id,
        plan=caller.plan,
        wait_s=preference.wait_s or service().default_wait_s,
        is_async=preference.respond_async and preference.wait_s is None,
        is_counted=is_filling,
        idempotency_key=idempotency_key,
        body=body,
    )
    reply = service().jobs.submit(order, admit=lambda runs: _admit(caller, runs=runs))
    if isinstance(reply, JobRecord):
        if reply.reply is None or order.is_async:
            here = str(request.context.get("path", "/")).rstrip("/")  # of the gateway: with its stage
            return _pending(reply, {"Location": f"{here}/jobs/{reply.job_id}", **preference.applied()})
        reply = job_view.reply_of(reply)
    if isinstance(reply, Failure):
        raise problems.job_failed(reply.id, reply.reason)
    return _ran(reply, preference.applied())


@app.route("/jobs/{job_id}", methods=["GET", "DELETE"], content_types=[], cors=CORS)
def job(job_id: str) -> Response:
    """A job that was promised: its result, or 202 until there is one. DELETE forgets it."""
    request = cast("Request", app.current_request)
    caller = service().admission.authenticate(_credentials(request))
    _see(caller)
    require_active_key(caller)
    if not _JOB_ID.fullmatch(job_id):
        raise problems.ProblemError(problems.JOB_NOT_FOUND)
    logs.add(job_id=job_id)
    if request.method == "DELETE":
        service().results.forget(job_id, key_id=caller.record.key_id)
        return Response(body="", status_code=HTTPStatus.NO_CONTENT)
    record = service().results.get(job_id, key_id=caller.record.key_id)
    if record.reply is None:
        service().replies.look_for(job_id)
        record = service().results.get(job_id, key_id=caller.record.key_id)
    if record.reply is None:
        return _pending(record, problems.NO_HEADERS)
    return _json(job_view.of_record(record))


@app.route("/usage", methods=["GET"], content_types=[], cors=CORS)
def usage() -> Response:
    """What the key may do and has left. Costs it nothing."""
    admission = service().admission
    caller = admission.authenticate(_credentials(cast("Request", app.current_request)), bypass_cache=True)
    _see(caller)
    return _json(admission.usage(caller))


@app.route("/health", methods=["GET"], content_types=[], cors=CORS)
def is_up() -> Response:
    """That the API is up, without asking anybody; with an operator's key, how queue and hosts do."""
    given = _credentials(cast("Request", app.current_request))
    if not given:
        return _json(health.OK_RESPONSE)
    caller = service().admission.authenticate(given)
    _see(caller)
    require_active_key(caller)
    return _json(service().health.report() if caller.plan.name == health.OPERATOR_PLAN else health.OK_RESPONSE)


@app.on_sqs_message(queue="python-exec-results", batch_size=10)
def store_results(event: SQSEvent) -> dict[str, Any]:
    """What hosts finished when nobody waited for it."""
    return queue_events.each(
        event.to_dict(), lambda record: queue_events.store_result(record, service().results, service().hosts)
    )


@app.on_sqs_message(queue="python-exec-jobs-dead", batch_size=10)
def fail_dead_lettered_jobs(event: SQSEvent) -> dict[str, Any]:
    """Jobs that no host finished, as often as they were tried."""
    return queue_events.each(event.to_dict(), lambda record: queue_events.answer_dead_letter(record, service().results))


@app.on_sqs_message(queue="python-exec-webhooks", batch_size=1)  # one attempt may take ten seconds
def deliver_webhooks(event: SQSEvent) -> dict[str, Any]:
    """Results that their customers want to be sent."""
    return queue_events.each(event.to_dict(), lambda record: service().webhooks.deliver(record["body"]))


@app.schedule("rate(1 minute)")
def clean_up_reply_queues(event: CloudWatchEvent) -> None:  # noqa: ARG001 - Chalice passes it
    """What processes left behind that are gone."""
    logs.begin()
    service().housekeeping.run()


def service() -> Service:
    """The one of this process, made by the first request. Raises settings.SettingsError."""
    with _wiring:
        return _service()


@cache
def _service() -> Service:
    made = components.service(settings.load(os.environ))
    app.log.info("cold_start", extra=metrics.of_process())
    return made


def _admit(caller: Caller, *, runs: int = 1) -> None:
    """Whether the caller may have a program run now."""
    _see(service().admission.charge(caller, runs=runs))


def _wanted(request: Request, body: bytes, caller: Caller, *, is_async: bool) -> RunRequest:
    content_type = request.headers.get("content-type", "")
    wanted = parse_run_request(body, content_type=content_type, allow_local_webhooks=service().allow_local_webhooks)
    check_plan_limits(wanted, caller.plan)
    require_async(wanted, respond_async=is_async)
    check_signing_secret(wanted, caller.record)
    return wanted


def _idempotency_key(request: Request) -> str | None:
    given = _values(request, "idempotency-key")
    if not given:
        return None
    if len(given) > 1 or not _IDEMPOTENCY_KEY.fullmatch(given[0]):
        raise problems.ProblemError(problems.INVALID_IDEMPOTENCY_KEY)
    return given[0]


def _see(caller: Caller) -> None:
    """From now on each log line names the key, and the answer tells what it has left."""
    logs.add(key_id=caller.record.key_id, plan=caller.plan.name)
    _rate_limit.set(caller.quota_status.headers())


def _credentials(request: Request) -> list[str]:
    return collect_presented_keys(_values(request, "x-api-key"), _values(request, "authorization"))


def _values(request: Request, name: str) -> list[str]:
    """All values of a header: of one that is repeated API Gateway has only the last among `headers`."""
    repeated = request.to_original_event().get("multiValueHeaders") or {}
    found = [value for key, values in repeated.items() if key.lower() == name for value in values]
    if not found and name in request.headers:
        return [request.headers[name]]  # chalice local has no multiValueHeaders
    return found


def _ran(result: Result, headers: problems.Headers) -> Response:
    logs.add(job_status=result.status)
    return _json(job_view.of_result(result), headers=headers)


def _pending(record: JobRecord, headers: problems.Headers) -> Response:
    logs.add(job_status=job_view.PENDING)
    shown = {"id": record.job_id, "status": job_view.PENDING}
    return _json(shown, status=HTTPStatus.ACCEPTED, headers={"Retry-After": str(RETRY_AFTER_S), **headers})


def _json(body: object, *, status: int = HTTPStatus.OK, headers: problems.Headers = problems.NO_HEADERS) -> Response:
    text = msgspec.json.encode(body).decode()
    return Response(body=text, headers={**headers, "Content-Type": "application/json"}, status_code=status)


def _respond(request: Request, get_response: Callable[[Request], Response]) -> Response:
    if "transfer-encoding" in request.headers and not request.raw_body:
        raise problems.ProblemError(problems.LENGTH_REQUIRED)
    response = get_response(request)
    if response.status_code < HTTPStatus.BAD_REQUEST:
        return response
    # Chalice's own: an unknown method, or an exception in a route, which it has logged.
    return _without_reason(request, response.status_code, headers=response.headers)


def _without_reason(request: Request, status: int, *, headers: problems.Headers = problems.NO_HEADERS) -> Response:
    problem = problems.problem_for_status(status, instance=f"urn:uuid:{_request_id(request)}")
    return problems.problem_response(problem, headers=headers)


def _request_id(request: Request) -> str:
    return str(cast("Any", request.lambda_context).aws_request_id)
