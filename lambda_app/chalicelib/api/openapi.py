"""Generates the OpenAPI document from the routes, the message types, the problem types and the plans."""

import inspect
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cache
from http import HTTPStatus
from typing import Any, Final

import msgspec

from chalicelib import problems
from chalicelib.access.plans import PLANS
from chalicelib.api.openapi_examples import JOB_ID, example
from chalicelib.api.openapi_headers import COMMON_HEADERS, HEADERS, KEY_HEADERS, OPTIONAL_HEADERS, PARAMETERS
from chalicelib.api.operations import AUTHENTICATION, OPERATIONS, Access, Operation, Success
from chalicelib.api.portable_schema import portable
from chalicelib.api.request_fields import RequestErrorCode
from chalicelib.api.response_schema import FailedJob
from chalicelib.contract import Artifact, Result
from chalicelib.jobs.batch_view import BatchView
from chalicelib.problems import Problem, ProblemType

Schema = dict[str, Any]
Routes = Mapping[str, Mapping[str, Any]]  # path -> method -> Chalice's route

OPENAPI_VERSION: Final = "3.1.0"
API_VERSION: Final = "0.1.0"  # executor_host.__version__
REF_TEMPLATE: Final = "#/components/schemas/{name}"
PROBLEM_MEDIA_TYPE: Final = "application/problem+json"
WEBHOOK_BODY: Final = (Result, BatchView, FailedJob)
WEBHOOK_HEADERS: Final = {
    "webhook-id": "The id of the job, the same for each attempt.",
    "webhook-timestamp": "The time of the attempt, in seconds since the epoch.",
    "webhook-signature": "`v1,` and the base64-encoded HMAC-SHA-256 of `{webhook-id}.{webhook-timestamp}.{body}`.",
}
DESCRIPTION: Final = """\
Runs untrusted Python, each request in its own hardened container. A 200 response means that the program ran; its
`status` says how it ended. Errors are problem details (RFC 9457): compare their `type` and `code`.
"""
# Members of a message between the API and its hosts that are not public; no other type has the first.
_TAG: Final = "kind"
_PRIVATE_MEMBERS: Final = (_TAG, "version")


def render(routes: Routes, *, base_path: str) -> str:
    """Return the JSON of an API whose URLs begin with `base_path`. Raise KeyError for an undeclared route."""
    document: Schema = {
        "openapi": OPENAPI_VERSION,
        "info": {
            "title": "python-exec",
            "version": API_VERSION,
            "description": DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": base_path or "/"}],
        "paths": {
            path: {
                method.lower(): _operation(OPERATIONS[method, path], inspect.getdoc(route.view_function) or "")
                for method, route in methods.items()
            }
            for path, methods in routes.items()
        },
        "webhooks": {"jobFinished": {"post": _webhook()}},
        "components": {
            "schemas": _components(),
            "parameters": {
                name: {"name": name, "required": parameter["in"] == "path", **parameter}
                for name, parameter in PARAMETERS.items()
            },
            "headers": {name: {**HEADERS[name], "required": name not in OPTIONAL_HEADERS} for name in HEADERS},
            "securitySchemes": {
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
        "x-plans": dict(PLANS),
    }
    return msgspec.json.encode(document).decode()


def _operation(operation: Operation, docstring: str) -> Schema:
    summary, _, description = docstring.partition("\n\n")
    security: list[Schema] = [{"apiKey": []}, {"bearer": []}]
    rendered: Schema = {
        "summary": summary,
        **({"description": description} if description else {}),
        "tags": [operation.tag],
        "security": {
            Access.REQUIRED: security,
            Access.OPTIONAL: [{}, *security],
            Access.PUBLIC: [],
        }[operation.access],
        "parameters": [{"$ref": f"#/components/parameters/{name}"} for name in operation.parameters],
        "responses": _responses(operation),
    }
    if operation.body is not None:
        content = {"application/json": {"schema": _reference(operation.body), "example": _example(operation.body)}}
        rendered["requestBody"] = {"required": True, "content": content}
    return rendered


def _responses(operation: Operation) -> Schema:
    responses = {
        str(int(status)): _success(success, access=operation.access) for status, success in operation.successes.items()
    }
    by_status: defaultdict[int, list[ProblemType]] = defaultdict(list)
    of_key = () if operation.access is Access.PUBLIC else AUTHENTICATION
    for problem_type in (*of_key, *operation.problems, problems.LENGTH_REQUIRED):
        by_status[problem_type.status].append(problem_type)
    for status, problem_types in sorted(by_status.items()):
        responses[str(status)] = _problem(problem_types, access=operation.access)
    internal_error = problems.problem_for_status(HTTPStatus.INTERNAL_SERVER_ERROR)
    responses["500"] = {
        "description": internal_error.title,
        "headers": _headers((), access=Access.OPTIONAL),
        "content": {PROBLEM_MEDIA_TYPE: {"schema": _reference(Problem), "example": internal_error}},
    }
    return responses


def _success(success: Success, *, access: Access) -> Schema:
    rendered: Schema = {"description": success.description, "headers": _headers(success.headers, access=access)}
    for media_type, body in success.content.items():
        media: Schema = {"schema": _reference(body)}
        if media_type == "application/json":
            media["example"] = _example(body)
        rendered.setdefault("content", {})[media_type] = media
    return rendered


def _problem(problem_types: Iterable[ProblemType], *, access: Access) -> Schema:
    rows = list(problem_types)
    names = dict.fromkeys(name for row in rows for name in _header_names(row))
    return {
        "description": "; ".join(dict.fromkeys(row.title for row in rows)),
        "headers": _headers(("Link", *names), access=access),
        "content": {
            PROBLEM_MEDIA_TYPE: {
                "schema": {
                    "allOf": [_reference(Problem)],
                    "properties": {"type": {"enum": [row.uri for row in rows]}},
                },
                "examples": {row.slug: {"summary": row.cause, "value": _example_problem(row)} for row in rows},
            }
        },
    }


def _example_problem(row: ProblemType) -> Schema:
    members = {"type": row.uri, "title": row.title, "status": row.status, "detail": row.detail or row.cause}
    return {**members, "job_id": JOB_ID} if row in problems.JOB_FAILED.values() else members


def _header_names(row: ProblemType) -> tuple[str, ...]:
    says_when = row.retry_after_s is not None or row.status == HTTPStatus.TOO_MANY_REQUESTS
    return (*row.headers, "Retry-After") if says_when else tuple(row.headers)


def _headers(names: Iterable[str], *, access: Access) -> Schema:
    of_key = () if access is Access.PUBLIC else KEY_HEADERS
    return {name: {"$ref": f"#/components/headers/{name}"} for name in (*COMMON_HEADERS, *of_key, *names)}


def _webhook() -> Schema:
    return {
        "summary": "Receive the result of a job with a callback_url.",
        "description": "Follows https://www.standardwebhooks.com/. Any 2xx response within 10 s is a success.",
        "security": [],
        "parameters": [
            {"name": name, "in": "header", "required": True, "description": text, "schema": {"type": "string"}}
            for name, text in WEBHOOK_HEADERS.items()
        ],
        "requestBody": {"required": True, "content": {"application/json": {"schema": _reference(WEBHOOK_BODY)}}},
        "responses": {"2XX": {"description": "The webhook is delivered."}},
    }


def _reference(body: Any) -> Schema:  # noqa: ANN401 - a type, or several in a tuple
    schemas, _ = msgspec.json.schema_components(_types(body), ref_template=REF_TEMPLATE)
    return schemas[0] if len(schemas) == 1 else {"anyOf": list(schemas)}


def _types(body: Any) -> tuple[Any, ...]:  # noqa: ANN401
    return body if isinstance(body, tuple) else (body,)


def _example(body: Any) -> Any:  # noqa: ANN401 - a type, and a value of it
    return example(_reference(body), _components())


@cache
def _components() -> Schema:
    requests = [operation.body for operation in OPERATIONS.values() if operation.body is not None]
    contents = [success.content for each in OPERATIONS.values() for success in each.successes.values()]
    responses = [body for content in contents for bodies in content.values() for body in _types(bodies)]
    _, of_requests = msgspec.json.schema_components(requests, ref_template=REF_TEMPLATE)
    _, of_responses = msgspec.json.schema_components([*responses, *WEBHOOK_BODY, Problem], ref_template=REF_TEMPLATE)
    for name, schema in of_responses.items():
        if name != Problem.__name__ and "properties" in schema:
            _describe_complete_object(schema)
    artifact = of_responses[Artifact.__name__]
    artifact["properties"]["size"] = {"type": "integer", "minimum": 0}  # job_view.result_body adds it
    artifact["required"].append("size")
    of_responses[Problem.__name__]["properties"]["code"] = {"enum": list(RequestErrorCode)}
    schemas: Schema = portable({**of_requests, **of_responses})
    return schemas


def _describe_complete_object(schema: Schema) -> None:
    """Require every member that has a default, since responses contain it all the same."""
    properties = schema["properties"]
    if _TAG in properties:
        for name in _PRIVATE_MEMBERS:
            del properties[name]
    required = {name for name in schema["required"] if name in properties}
    schema["required"] = [name for name in properties if name in required or "default" in properties[name]]
    for member in properties.values():
        member.pop("default", None)
