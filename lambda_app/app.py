"""The routes and event handlers of the API. Importing this module needs no settings."""

import os
import re
import threading
from collections.abc import Callable
from functools import cache
from http import HTTPStatus
from typing import Any, Final, cast

from chalice.app import Chalice, CloudWatchEvent, Request, Response, SQSEvent
from msgspec.structs import replace

from chalicelib import problems, settings
from chalicelib.access.admission import Caller
from chalicelib.access.usage import key_usage
from chalicelib.api import (
    endpoints,
    headers,
    middleware,
    prefer_header,
    problem_pages,
    queue_events,
    responses,
    runtime_list,
    static_files,
)
from chalicelib.api.batch_request import parse_batch_request
from chalicelib.api.responses import CORS, base_path, json_response
from chalicelib.api.run_request import parse_run_request, parse_submission
from chalicelib.components import Components, build_components
from chalicelib.fleet import health
from chalicelib.jobs.submission import RunRequest
from chalicelib.problems import ProblemError
from chalicelib.telemetry import logs, metrics, request_context

_JOB_ID: Final = re.compile("[0-9a-f]{32}")

app = Chalice(app_name="python-exec", configure_logs=False)
logs.configure(app.app_name, "chalicelib")
app.register_middleware(middleware.handle_request, "http")

_components_lock: Final = threading.Lock()


@app.route("/", methods=["POST"], content_types=[], cors=CORS)  # []: middleware gives a 415 the shape of the others
def run_code() -> Response:
    """Run a program: 200 with its result, whatever the program did, or 202 if the result comes later."""
    return submit(parse_run_request)


@app.route("/batch", methods=["POST"], content_types=[], cors=CORS)
def run_batch() -> Response:
    """Run a program on many inputs, each in a fresh process: 200 with all results, or 202 if they come later."""
    return submit(parse_batch_request)


@app.route("/", methods=["GET"], content_types=[], cors=CORS)
def get_index() -> Response:
    """Show the playground to a browser, and list the endpoints to other clients."""
    return endpoints.index_response(current_request(), app.app_name, app.routes)


@app.route("/jobs/{job_id}", methods=["GET"], content_types=[], cors=CORS)
def get_job(job_id: str) -> Response:
    """Return the result of a job, or 202 while it is pending."""
    caller = admit_read_of_job(job_id)
    record = components().results.get(job_id, key_id=caller.record.key_id)
    if record.reply is None:
        components().reply_queues.poll_for_late_reply(job_id)
        record = components().results.get(job_id, key_id=caller.record.key_id)
    return responses.job_response(record, components().results.read_reply(record))


@app.route("/jobs/{job_id}", methods=["DELETE"], content_types=[], cors=CORS)
def delete_job(job_id: str) -> Response:
    """Delete a job and its result. If the job is still running, its result will be discarded."""
    caller = admit_read_of_job(job_id)
    components().results.delete(job_id, key_id=caller.record.key_id)
    return Response(body="", status_code=HTTPStatus.NO_CONTENT)


@app.route("/usage", methods=["GET"], content_types=[], cors=CORS)
def get_usage() -> Response:
    """Return the plan of the key, and what is left of it. Uses no run."""
    return json_response(key_usage(admit_read()))


@app.route("/health", methods=["GET"], content_types=[], cors=CORS)
def get_health() -> Response:
    """Report liveness without calling AWS. With an operator's key, also report the queue depth and the hosts."""
    if not headers.presented_keys(current_request()):
        return json_response(health.OK_RESPONSE)
    caller = admit_read()
    is_operator = caller.plan.name == health.OPERATOR_PLAN
    return json_response(components().health.report() if is_operator else health.OK_RESPONSE)


@app.route("/mcp", methods=["POST"], content_types=[], cors=CORS)
def call_mcp() -> Response:
    """Answer a message of the Model Context Protocol, whose tools run programs."""
    from chalicelib.api import mcp  # noqa: PLC0415 - as for openapi below

    request = current_request()
    return mcp.respond(request, authenticate(request), components())


@app.route("/mcp", methods=["GET", "DELETE"], content_types=[], cors=CORS)  # API Gateway would return 403
def reject_mcp_session() -> Response:
    """Refuse to open an event stream or to end a session, which this stateless server does not have."""
    problem = problems.problem_for_status(HTTPStatus.METHOD_NOT_ALLOWED)
    return problems.problem_response(problem, headers={"Allow": "POST"})


@app.route("/openapi.json", methods=["GET"], content_types=[], cors=CORS)
def get_openapi() -> Response:
    """Return this description of the API as an OpenAPI document."""
    request = current_request()
    text = openapi_document(base_path(request))
    return static_files.cacheable_response(
        text, request, media_type="application/json", cache_control=static_files.REVALIDATE
    )


@app.route("/docs", methods=["GET"], content_types=[], cors=CORS)
def get_docs() -> Response:
    """Return a page that renders the OpenAPI document."""
    return static_files.page_response("docs.html", current_request())


@app.route("/problems/{slug}", methods=["GET"], content_types=[], cors=CORS)
def get_problem_type(slug: str) -> Response:
    """Return a page about a type of problem: its cause and its remedy."""
    return problem_pages.page_response(slug, current_request())


@app.route("/assets/{name}", methods=["GET"], content_types=[], cors=CORS)
def get_asset(name: str) -> Response:
    """Return a static file that a page loads."""
    return static_files.file_response(name, current_request())


@app.route("/runtimes", methods=["GET"], content_types=[], cors=CORS)
def get_runtimes() -> Response:
    """Return the runtimes with their packages and limits. Needs no key."""
    return json_response(runtime_list.RUNTIME_LIST)


@app.on_sqs_message(queue="python-exec-results", batch_size=10)
def store_results(event: SQSEvent) -> dict[str, Any]:
    """Store results that no request waited for, and the reports of hosts."""
    return queue_events.process_batch(
        event.to_dict(),
        lambda message: queue_events.store_result(message, components().results, components().hosts),
    )


@app.on_sqs_message(queue="python-exec-jobs-dead", batch_size=10)
def fail_dead_lettered_jobs(event: SQSEvent) -> dict[str, Any]:
    """Fail jobs that no host finished in any attempt."""
    return queue_events.process_batch(
        event.to_dict(), lambda message: queue_events.fail_dead_lettered_job(message, components().results)
    )


@app.on_sqs_message(queue="python-exec-webhooks", batch_size=1)  # one attempt may take ten seconds
def deliver_webhooks(event: SQSEvent) -> dict[str, Any]:
    """Deliver results to the callback URLs of their customers."""
    return queue_events.process_batch(event.to_dict(), lambda message: components().webhooks.deliver(message["body"]))


@app.schedule("rate(1 minute)")
def clean_up_reply_queues(event: CloudWatchEvent) -> None:  # noqa: ARG001 - Chalice passes it
    """Clean up reply queues of API processes that have exited."""
    request_context.start()
    components().reply_queue_cleanup.run()


@app.lambda_function(name="run_canary")  # infra/template.yaml has its schedule; a local stack runs none
def run_canary(event: object, context: object) -> None:  # noqa: ARG001 - Lambda passes them
    """Run a program of the service's own in each runtime and report whether that worked."""
    request_context.start()
    passed = components().canary.run()
    app.log.info("canary_completed", extra=metrics.fields({"CanaryPassed": int(passed)}))


def submit(parse: Callable[..., RunRequest]) -> Response:
    """Serve a request to run code, whose fields `parse` reads."""
    request = current_request()
    caller = authenticate(request)
    has_idempotency_key = bool(headers.header_values(request, "idempotency-key"))
    components().admission.reject_if_limited(caller, runs=0 if has_idempotency_key else 1)
    preference = prefer_header.parse(headers.header_values(request, "prefer"))
    try:
        submission = parse_submission(
            request,
            caller,
            preference=preference,
            default_wait_s=components().default_wait_s,
            local_webhook_ports=components().local_webhook_ports,
            parse=parse,
        )
    except ProblemError:
        components().admission.charge(caller)  # an invalid request counts too (docs/decisions/007)
        raise
    load = components().load_shedders[submission.request.runtime].check_capacity()
    outcome = components().jobs.submit(replace(submission, queue_load=load))
    applied = preference.applied_header(waits=not submission.is_async)
    return responses.outcome_response(outcome, request, headers=applied, expectations=submission.request.expectations)


def components() -> Components:
    """Return the components of this process, built on first use. Raise settings.SettingsError."""
    with _components_lock:
        return _build_components()


@cache
def _build_components() -> Components:
    built = build_components(settings.load(os.environ))
    app.log.info("cold_start", extra=metrics.fields({"ColdStarts": 1}))
    return built


@cache
def openapi_document(base: str) -> str:
    """Return the OpenAPI document of the API at this base path."""
    from chalicelib.api import openapi  # noqa: PLC0415 - few processes need it, and importing it takes time

    return openapi.render(app.routes, base_path=base)


def current_request() -> Request:
    """Return the request that this thread serves."""
    return cast("Request", app.current_request)


def authenticate(request: Request) -> Caller:
    """Return the caller of a request. Raise ProblemError if its API key is missing or invalid."""
    return components().admission.authenticate(headers.presented_keys(request))


def admit_read() -> Caller:
    """Charge the current request to the rate of reads and return its caller. Raise ProblemError."""
    return components().admission.charge_read(authenticate(current_request()))


def admit_read_of_job(job_id: str) -> Caller:
    """Charge the current request and return its caller. Also raise ProblemError if the id is malformed."""
    caller = admit_read()
    if not _JOB_ID.fullmatch(job_id):
        raise ProblemError(problems.JOB_NOT_FOUND)
    request_context.bind(job_id=job_id)
    return caller
