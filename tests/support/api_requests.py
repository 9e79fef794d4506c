"""Send requests to the API in this process, as API Gateway does."""

import json
from collections.abc import Mapping
from typing import Any

import app as api
from chalice.config import Config
from chalice.local import LambdaContext, LocalGateway

from chalicelib.jobs.response_size import MAX_RESPONSE_BYTES
from tests.support import openapi_contract
from tests.support.records import KEY

BODY = json.dumps({"code": "1"})


def send(
    headers: Mapping[str, str] | None = None,
    *,
    method: str = "POST",
    path: str = "/",
    body: str = BODY,
    key: str | None = str(KEY),
    repeated: Mapping[str, list[str]] | None = None,
    stage_path: str | None = None,
    event: Mapping[str, object] | None = None,
) -> tuple[int, dict[str, str], Any]:
    """Return the status, headers and body of the response, parsed if it is JSON.

    Fail if it is not as documented, or larger than what Lambda can return.

    `repeated` are headers with several values, `stage_path` is the path with API Gateway's stage, and `event` has other
    members of Lambda's event.
    """
    sent = {"Content-Type": "application/json", **({"X-Api-Key": key} if key is not None else {}), **(headers or {})}
    generated = LocalGateway(api.app, Config.create())._generate_lambda_event(method, path, sent, body.encode())
    generated["requestContext"]["path"] = stage_path or path
    changes = {"multiValueHeaders": repeated, **(event or {})}
    response = api.app(generated | changes, LambdaContext("run", 512))
    assert len(json.dumps(response, ensure_ascii=False).encode()) <= MAX_RESPONSE_BYTES
    status: int = response["statusCode"]
    response_headers: dict[str, str] = response["headers"]
    text = response["body"]
    answer = (
        text if response_headers.get("Content-Type", "").startswith(("text/", "image/")) else json.loads(text or "null")
    )
    violations = list(openapi_contract.violations(method, path, status, response_headers, answer))
    assert violations == [], violations
    return status, response_headers, answer


def preflight(path: str) -> tuple[int, dict[str, str]]:
    """Return the status and headers of the response to a CORS preflight request."""
    gateway = LocalGateway(api.app, Config.create())
    response = gateway.handle_request("OPTIONS", path, {"Origin": "http://x.test"}, None)
    return response["statusCode"], response["headers"]
