"""Compare responses with the OpenAPI document: nothing in them may be undocumented."""

import copy
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import app as api
from jsonschema import Draft202012Validator

# Of HTTP itself, not of the API.
TRANSPORT_HEADERS = {"connection", "content-encoding", "content-length", "content-type", "date", "server", "allow"}


@cache
def document() -> dict[str, Any]:
    """Return the document of the API without a stage."""
    parsed: dict[str, Any] = json.loads(api.openapi_document(""))
    return parsed


@cache
def _closed_components() -> dict[str, Any]:
    """Return the schemas, changed so that they accept no undocumented member."""
    schemas = copy.deepcopy(document()["components"]["schemas"])
    for schema in schemas.values():
        if "properties" in schema:
            schema["additionalProperties"] = False
    return {"schemas": schemas}


@cache
def _operation(method: str, path: str) -> dict[str, Any] | None:
    """Return the operation of a request; None for a path or a method without a route."""
    for template, methods in document()["paths"].items():
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", re.escape(template).replace(r"\{", "{").replace(r"\}", "}")), path):
            operation: dict[str, Any] | None = methods.get(method.lower())
            return operation
    return None


def violations(method: str, path: str, status: int, headers: Mapping[str, str], body: Any) -> Iterator[str]:
    """Yield each difference between a response and the document; `body` is the parsed JSON, or text."""
    operation = _operation(method, path.partition("?")[0])
    if operation is None:
        return
    response = operation["responses"].get(str(status))
    if response is None:
        yield f"{method} {path}: status {status} is not documented"
        return
    yield from _header_violations(response, headers)
    media_type = headers.get("Content-Type", headers.get("content-type", "")).partition(";")[0]
    content = response.get("content", {})
    media = content.get(media_type) or content.get(re.sub("/.*", "/*", media_type))
    if not content:
        if body:
            yield f"{method} {path}: {status} has a body"
    elif media is None:
        yield f"{method} {path}: {status} has the media type {media_type}"
    else:
        validator = Draft202012Validator({**media["schema"], "components": _closed_components()})
        yield from (f"{method} {path}: {error.json_path} {error.message}" for error in validator.iter_errors(body))


def _header_violations(response: dict[str, Any], headers: Mapping[str, str]) -> Iterator[str]:
    values = {name.lower(): value for name, value in headers.items()}
    documented = {}
    for name, header in response["headers"].items():
        shared = header.get("$ref", "").rpartition("/")[2]
        documented[name.lower()] = document()["components"]["headers"][shared] if shared else header
    yield from (f"header {name} is not documented" for name in values.keys() - documented.keys() - TRANSPORT_HEADERS)
    for name, header in documented.items():
        if name not in values:
            if header["required"]:
                yield f"header {name} is missing"
            continue
        value: str | int = values[name]
        if header["schema"].get("type") == "integer":
            value = int(value)
        yield from (f"{name}: {error.message}" for error in Draft202012Validator(header["schema"]).iter_errors(value))
