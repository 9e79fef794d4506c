"""The tools of the Model Context Protocol: what mcp.py lists and calls."""

import time
from functools import cache
from typing import Any, Final

import msgspec
from msgspec import Struct

from chalicelib import contract, problems
from chalicelib.access.admission import Caller
from chalicelib.api import model_output
from chalicelib.api.last_expression import display_last_expression
from chalicelib.api.portable_schema import portable
from chalicelib.api.request_schema import RunProgram
from chalicelib.api.run_request import check_plan_limits, parse_run_request
from chalicelib.api.runtime_list import RUNTIME_LIST
from chalicelib.components import Components
from chalicelib.contract import Failure, Result
from chalicelib.jobs.submission import Submission
from chalicelib.problems import ProblemError
from chalicelib.settings import MIN_WAIT_S
from chalicelib.telemetry import request_context

RUN_PYTHON: Final = "run_python"
LIST_RUNTIMES: Final = "list_runtimes"
NAMES: Final = (RUN_PYTHON, LIST_RUNTIMES)
FIELDS: Final = ("code", "input", "files", "runtime", "artifacts", "timeout_s")  # of RunProgram
INSTRUCTIONS: Final = (
    f"Use {RUN_PYTHON} to compute, to analyze data and to check code instead of guessing. "
    "Each call starts from nothing: send everything that the program needs."
)
DESCRIPTION: Final = f"""\
Run a Python 3.13 program and return what it prints. It also prints the value of a last expression, as a notebook does.
- Each call runs in a new sandbox: no variables, files or modules are kept from earlier calls.
- There is no network, no pip and no shell. The runtime `python` has no packages. `data` has numpy, pandas, matplotlib
  and more, which {LIST_RUNTIMES} names; `plt.show()` returns the figure as an image.
- The program has {contract.DEFAULT_TIMEOUT_S:g} s unless timeout_s allows more, up to {contract.MAX_TIMEOUT_S:g} s.
- Long output is shortened in the middle: print only what you need to see."""
# Problems of the key itself end the whole request; the model could do nothing about them.
_KEY_PROBLEMS: Final = {each.uri for each in (problems.UNAUTHORIZED, problems.KEY_REVOKED, problems.KEY_EXPIRED)}


class UnknownToolError(Exception):
    """Raised when there is no tool of that name."""


class ToolContext(Struct, frozen=True, kw_only=True):
    """Who calls a tool, with what it works, and until when its answer is useful, on the monotonic clock."""

    caller: Caller
    components: Components
    deadline: float


@cache
def list_tools() -> list[dict[str, Any]]:
    """Return the descriptions of the tools."""
    hints = {"readOnlyHint": True, "destructiveHint": False, "openWorldHint": False}
    return [
        {
            "name": RUN_PYTHON,
            "title": "Run Python",
            "description": DESCRIPTION,
            "inputSchema": _input_schema(),
            "annotations": {"title": "Run Python", **hints},
        },
        {
            "name": LIST_RUNTIMES,
            "title": "List runtimes",
            "description": "List the runtimes in which programs can run, with their packages and limits.",
            "inputSchema": {"type": "object", "properties": {}, "additionalProperties": False},
            "annotations": {"title": "List runtimes", **hints},
        },
    ]


def call(name: object, arguments: dict[str, Any], context: ToolContext) -> dict[str, Any]:
    """Return the result of a tool. Raise UnknownToolError, or ProblemError if the key does not allow the call."""
    if name == LIST_RUNTIMES:
        return model_output.runtimes_result(RUNTIME_LIST["runtimes"])
    if name != RUN_PYTHON:
        raise UnknownToolError
    try:
        return _run_python(arguments, context)
    except ProblemError as error:
        if error.problem.type in _KEY_PROBLEMS:
            raise
        request_context.bind(problem=error.problem.type, code=error.problem.code)
        return model_output.problem_result(error.problem)


def _run_python(arguments: dict[str, Any], context: ToolContext) -> dict[str, Any]:
    components, caller = context.components, context.caller
    components.admission.reject_if_limited(caller, runs=1)
    try:
        _check_names(arguments)
        request = parse_run_request(arguments)
        check_plan_limits(request, caller.plan)
    except ProblemError:
        components.admission.charge(caller)  # as for POST /
        raise
    wait_s = context.deadline - time.monotonic()
    if wait_s < MIN_WAIT_S:
        return model_output.text_result("Not run: the other calls of this batch took too long.", is_error=True)
    queue_load = components.load_shedders[request.runtime].check_capacity()
    program = display_last_expression(request.code)
    submission = Submission(
        request=msgspec.structs.replace(request, code=program.code),
        caller=caller,
        wait_s=wait_s,
        queue_load=queue_load,
    )
    outcome = components.jobs.submit(submission)
    if isinstance(outcome, Result):
        request_context.bind(job_status=outcome.status)
        restored = msgspec.structs.replace(outcome, stderr=program.restore_traceback(outcome.stderr))
        return model_output.run_result(restored, timeout_s=request.timeout_s)
    if isinstance(outcome, Failure):
        raise problems.job_failed(outcome.id, outcome.reason)
    return model_output.text_result("No result in time: the service is busy. Call the tool again later.", is_error=True)


def _check_names(arguments: dict[str, Any]) -> None:
    for name in arguments:
        if name not in FIELDS:
            detail = f"There is no such argument. Arguments: {', '.join(FIELDS)}."
            raise ProblemError(problems.INVALID_REQUEST, detail=detail)


def _input_schema() -> dict[str, Any]:
    definitions = portable(msgspec.json.schema(RunProgram)["$defs"])
    program = definitions.pop(RunProgram.__name__)
    return {
        "type": "object",
        "properties": {name: _required(program["properties"][name]) for name in FIELDS},
        "required": program["required"],
        "additionalProperties": False,
        "$defs": definitions,
    }


def _required(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema without the null that means an absent field: models may send it without need."""
    if "anyOf" not in schema:
        return schema
    common = {name: value for name, value in schema.items() if name not in {"anyOf", "default"}}
    (kind,) = [kind for kind in schema["anyOf"] if kind != {"type": "null"}]
    return {**common, **kind}
