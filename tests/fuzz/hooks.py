"""Extend Schemathesis, which loads this module: let requests succeed, and find what the document does not describe."""

import json
from typing import Any
from urllib.parse import urlsplit

import schemathesis
from schemathesis import Case, CheckContext, HookContext, Response

from chalicelib.contract import MAX_FILES
from tests.support import openapi_contract


@schemathesis.hook
def before_call(context: HookContext, case: Case, kwargs: dict[str, Any]) -> None:
    """Change what a schema cannot describe: a callback_url needs a header, and paths of files differ."""
    if not isinstance(case.body, dict):
        return
    if isinstance(case.body.get("callback_url"), str):
        case.body["callback_url"] = None
    if isinstance(case.body.get("files"), list) and len(case.body["files"]) <= MAX_FILES:
        case.body["files"] = case.body["files"][:1]


@schemathesis.check
def undocumented_parts(ctx: CheckContext, response: Response, case: Case) -> None:
    """Fail if a response has a status, a header, a media type or a member that the document does not have."""
    headers = {name: values[-1] for name, values in response.headers.items()}
    text = response.content.decode()
    body = json.loads(text or "null") if "json" in headers.get("content-type", "") else text
    path = urlsplit(response.request.url).path
    violations = list(openapi_contract.violations(case.method, path, response.status_code, headers, body))
    assert violations == [], violations
