"""Turns an untrusted POST request into a submission that is safe to send to the hosts."""

from collections.abc import Callable
from typing import Any, Final, cast

from chalice.app import Request

from chalicelib import problems
from chalicelib.access.admission import Caller
from chalicelib.access.api_keys import KeyRecord
from chalicelib.access.plans import Plan
from chalicelib.api import request_fields
from chalicelib.api.headers import idempotency_key
from chalicelib.api.prefer_header import Preference
from chalicelib.api.request_fields import RequestErrorCode, invalid_field
from chalicelib.api.request_files import parse_artifacts, parse_files
from chalicelib.contract import MAX_INPUT_BYTES
from chalicelib.jobs.submission import RunRequest, Submission
from chalicelib.problems import ProblemError

FIELDS: Final = ("code", "input", "args", "timeout_s", "runtime", "files", "artifacts", "callback_url")


def parse_submission(
    request: Request,
    caller: Caller,
    *,
    preference: Preference,
    default_wait_s: float,
    local_webhook_ports: frozenset[int],
    parse: Callable[..., RunRequest],
) -> Submission:
    """Parse and validate a request to run code, whose fields `parse` reads. Raise ProblemError for an invalid one."""
    key = idempotency_key(request)
    body = cast("bytes", request.raw_body)  # annotated str | bytes, never str
    fields = request_fields.parse_body(body, content_type=request.headers.get("content-type", ""))
    run_request = parse(fields, local_webhook_ports=local_webhook_ports)
    check_plan_limits(run_request, caller.plan)
    check_callback(run_request, caller.record, preference=preference)
    # A request with a callback_url never waits: its result is delivered.
    is_async = preference.respond_async and (preference.wait_s is None or run_request.callback_url is not None)
    return Submission(
        request=run_request,
        caller=caller,
        wait_s=preference.wait_s or default_wait_s,
        is_async=is_async,
        idempotency_key=key,
        body=body,
    )


def parse_run_request(fields: dict[str, object], *, local_webhook_ports: frozenset[int] = frozenset()) -> RunRequest:
    """Parse the fields of a body; `local_webhook_ports` as in the settings. Raise ProblemError if one is invalid."""
    request_fields.reject_unknown_fields(fields, allowed=FIELDS)
    return RunRequest(
        code=request_fields.parse_code(fields),
        input=request_fields.parse_string(fields, "input", limit_bytes=MAX_INPUT_BYTES, allow_nul=True) or "",
        args=request_fields.parse_args(fields),
        timeout_s=request_fields.parse_timeout_s(fields),
        runtime=request_fields.parse_runtime(fields),
        files=parse_files(fields),
        artifacts=parse_artifacts(fields),
        callback_url=request_fields.parse_callback_url(fields, local_ports=local_webhook_ports),
    )


def check_plan_limits(request: RunRequest, plan: Plan) -> None:
    """Raise ProblemError if the request asks for more than the plan allows."""
    if request.timeout_s > plan.max_timeout_s:
        raise _plan_limit(plan, "timeout_s", f"{plan.max_timeout_s:g} s", limit_s=plan.max_timeout_s)
    if len(request.runs) > plan.max_batch_runs:
        raise _plan_limit(plan, "runs", f"{plan.max_batch_runs} items", limit_items=plan.max_batch_runs)
    inputs = {f"runs[{number}].input": run.input for number, run in enumerate(request.runs)}
    sizes = [
        (field, len(text.encode()), plan.max_input_bytes)
        for field, text in (inputs or {"input": request.input}).items()
    ]
    sizes.append(("files", sum(len(file.content) for file in request.files), plan.max_files_bytes))
    for field, actual_bytes, limit_bytes in sizes:
        if actual_bytes > limit_bytes:
            raise _plan_limit(plan, field, f"{limit_bytes} bytes", limit_bytes=limit_bytes)


def _plan_limit(plan: Plan, field: str, limit: str, **members: Any) -> ProblemError:  # noqa: ANN401 - of the problem
    detail = f"{field} exceeds the limit of {limit} for plan {plan.name}."
    return ProblemError(problems.PLAN_LIMIT_EXCEEDED, detail=detail, field=field, plan=plan.name, **members)


def check_callback(request: RunRequest, key: KeyRecord, *, preference: Preference) -> None:
    """Raise ProblemError for a callback_url without Prefer: respond-async, or with a key without a signing secret."""
    if request.callback_url is None:
        return
    if not preference.respond_async:
        fault = "requires the header Prefer: respond-async"
        raise invalid_field("callback_url", RequestErrorCode.REQUIRES_RESPOND_ASYNC, fault)
    if not key.signing_secret:
        raise ProblemError(problems.NO_SIGNING_SECRET)
