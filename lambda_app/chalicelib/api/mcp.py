"""Serves the Model Context Protocol over stateless streamable HTTP: one plain JSON response for each POST.

Versions up to 2025-11-25 begin with an `initialize` request, of which nothing needs to be remembered. Later versions
carry the version and the client's capabilities in each request (https://modelcontextprotocol.io/specification).
"""

import json
import time
from http import HTTPStatus
from typing import Any, Final, cast

from chalice.app import Request, Response

from chalicelib.access.admission import Caller
from chalicelib.api import mcp_tools, model_output
from chalicelib.api.headers import header_values
from chalicelib.api.mcp_tools import ToolContext, UnknownToolError
from chalicelib.api.request_fields import check_json_body, reject_nan_and_infinity
from chalicelib.api.responses import json_response
from chalicelib.components import Components
from chalicelib.jobs.response_size import MAX_BODY_BYTES, escaped_bytes

HANDSHAKE_VERSIONS: Final = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
ENVELOPE_VERSIONS: Final = ("2026-07-28",)
BATCH_VERSIONS: Final = HANDSHAKE_VERSIONS[:2]
MAX_BATCH_MESSAGES: Final = 16
MAX_ID_CHARS: Final = 256
MAX_REPLACEMENT_BYTES: Final = 7 * MAX_ID_CHARS + 512  # of an answer whose result is replaced
LIST_TTL_MS: Final = 3_600_000  # a new version of the API may change its tools

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
HEADER_MISMATCH: Final = -32020
UNSUPPORTED_VERSION: Final = -32022

_KEY_PREFIX: Final = "io.modelcontextprotocol/"
VERSION_KEY: Final = f"{_KEY_PREFIX}protocolVersion"
CAPABILITIES_KEY: Final = f"{_KEY_PREFIX}clientCapabilities"
SERVER_INFO: Final = {"name": "python-exec", "version": "0.1.0"}
CAPABILITIES: Final[dict[str, Any]] = {"tools": {}}

_Message = dict[str, Any]


class _RpcError(Exception):
    def __init__(self, code: int, message: str, **data: object) -> None:
        super().__init__(message)
        self.error = {"code": code, "message": message, **({"data": data} if data else {})}


def respond(request: Request, caller: Caller, components: Components) -> Response:
    """Return the response to a POST. Raise ProblemError for a request that no JSON-RPC error can answer."""
    body = cast("bytes", request.raw_body)  # annotated str | bytes, never str
    check_json_body(body, content_type=request.headers.get("content-type", ""))
    deadline = time.monotonic() + components.default_wait_s
    context = ToolContext(caller=caller, components=components, deadline=deadline)
    try:
        message = _decode(body)
        _check_version_header(request)
    except _RpcError as error:
        components.admission.charge_read(caller)
        return _error_response(error)
    messages = message if isinstance(message, list) else [message]
    if not any(map(_runs_program, messages)):
        components.admission.charge_read(caller)
    if isinstance(message, list):
        return _respond_to_batch(messages, request, context)
    answer = _answer(message, request, context)
    if answer is None:
        return Response(body="", status_code=HTTPStatus.ACCEPTED)
    return json_response(answer, status=_status(answer, request))


def _decode(body: bytes) -> object:
    try:
        return json.loads(body, parse_constant=reject_nan_and_infinity)
    except (ValueError, RecursionError) as error:
        raise _RpcError(PARSE_ERROR, "The body is not JSON.") from error


def _respond_to_batch(messages: list[Any], request: Request, context: ToolContext) -> Response:
    if (_version(request) or BATCH_VERSIONS[-1]) not in BATCH_VERSIONS:  # without the header, 2025-03-26 is assumed
        return _error_response(_RpcError(INVALID_REQUEST, "This protocol version has no batches."))
    if not 1 <= len(messages) <= MAX_BATCH_MESSAGES:
        return _error_response(_RpcError(INVALID_REQUEST, f"A batch has 1 to {MAX_BATCH_MESSAGES} messages."))
    answers = [answer for message in messages if (answer := _answer(message, request, context)) is not None]
    return json_response(_fit(answers)) if answers else Response(body="", status_code=HTTPStatus.ACCEPTED)


def _fit(answers: list[_Message]) -> list[_Message]:
    """Replace each result that does not fit into a response with those before it."""
    room, fitting = MAX_BODY_BYTES - len(answers) * MAX_REPLACEMENT_BYTES, []
    for answer in answers:
        size = escaped_bytes(answer)
        fits = size <= room
        room -= size if fits else 0
        fitting.append(answer if fits else {**answer, "result": model_output.TOO_LARGE})
    return fitting


def _answer(message: object, request: Request, context: ToolContext) -> _Message | None:
    """Return the answer to a message; None for a notification, and for a response, which nothing asked for."""
    message_id = message.get("id") if isinstance(message, dict) else None
    try:
        checked = _check_message(message)
        if "id" not in checked or "method" not in checked:
            return None
        return {"jsonrpc": "2.0", "id": message_id, "result": _result(checked, request, context)}
    except _RpcError as error:
        return {"jsonrpc": "2.0", "id": message_id if _is_id(message_id) else None, "error": error.error}


def _check_message(message: object) -> _Message:
    if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
        raise _RpcError(INVALID_REQUEST, "A message must be a JSON-RPC 2.0 object.")
    is_response = "method" not in message and ("result" in message or "error" in message)
    if not is_response and not isinstance(message.get("method"), str):
        raise _RpcError(INVALID_REQUEST, "A request needs a method.")
    if not is_response and "id" in message and not _is_id(message["id"]):
        raise _RpcError(INVALID_REQUEST, f"An id must be an integer or a string of at most {MAX_ID_CHARS} characters.")
    return message


def _is_id(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= MAX_ID_CHARS
    return isinstance(value, int) and not isinstance(value, bool)


def _result(message: _Message, request: Request, context: ToolContext) -> _Message:
    params = message.get("params", {})
    if not isinstance(params, dict):
        raise _RpcError(INVALID_PARAMS, "params must be an object.")
    meta = params.get("_meta")
    has_envelope = _version(request) in ENVELOPE_VERSIONS or (isinstance(meta, dict) and VERSION_KEY in meta)
    if not has_envelope:
        return _handshake_result(message["method"], params, context)
    _check_envelope(message["method"], params, request)
    result = _envelope_result(message["method"], params, context)
    return {**result, "resultType": "complete", "_meta": {f"{_KEY_PREFIX}serverInfo": SERVER_INFO}}


def _handshake_result(method: str, params: _Message, context: ToolContext) -> _Message:
    match method:
        case "initialize":
            version = params.get("protocolVersion")
            return {
                "protocolVersion": version if version in HANDSHAKE_VERSIONS else HANDSHAKE_VERSIONS[-1],
                "capabilities": CAPABILITIES,
                "serverInfo": SERVER_INFO,
                "instructions": mcp_tools.INSTRUCTIONS,
            }
        case "ping":
            return {}
        case "tools/list":
            return {"tools": mcp_tools.list_tools()}
        case _:
            return _call_tool(method, params, context)


def _envelope_result(method: str, params: _Message, context: ToolContext) -> _Message:
    caching = {"ttlMs": LIST_TTL_MS, "cacheScope": "public"}
    match method:
        case "server/discover":
            return {
                "supportedVersions": list(ENVELOPE_VERSIONS),
                "capabilities": CAPABILITIES,
                "instructions": mcp_tools.INSTRUCTIONS,
                **caching,
            }
        case "tools/list":
            return {"tools": mcp_tools.list_tools(), **caching}
        case _:
            return _call_tool(method, params, context)


def _call_tool(method: str, params: _Message, context: ToolContext) -> _Message:
    if method != "tools/call":
        raise _RpcError(METHOD_NOT_FOUND, "There is no such method.")
    arguments = params.get("arguments") or {}
    if not isinstance(arguments, dict):
        raise _RpcError(INVALID_PARAMS, "arguments must be an object.")
    try:
        return mcp_tools.call(params.get("name"), arguments, context)
    except UnknownToolError as error:
        raise _RpcError(INVALID_PARAMS, f"There is no such tool. Tools: {', '.join(mcp_tools.NAMES)}.") from error


def _check_version_header(request: Request) -> None:
    version = _version(request)
    supported = (*HANDSHAKE_VERSIONS, *ENVELOPE_VERSIONS)
    if version is not None and version not in supported:
        raise _RpcError(
            UNSUPPORTED_VERSION, "Unsupported protocol version", supported=list(supported), requested=version
        )


def _check_envelope(method: str, params: _Message, request: Request) -> None:
    meta = params.get("_meta")
    if not isinstance(meta, dict) or VERSION_KEY not in meta or CAPABILITIES_KEY not in meta:
        raise _RpcError(INVALID_PARAMS, f"params._meta must have {VERSION_KEY} and {CAPABILITIES_KEY}.")
    expected = {"mcp-protocol-version": meta[VERSION_KEY], "mcp-method": method}
    if method == "tools/call":
        expected["mcp-name"] = params.get("name")
    for name, value in expected.items():
        if header_values(request, name) != [value]:
            raise _RpcError(HEADER_MISMATCH, f"The header {name} does not match the body.")


def _version(request: Request) -> str | None:
    return next(iter(header_values(request, "mcp-protocol-version")), None)


def _runs_program(message: object) -> bool:
    """Return whether a message will be charged as a run, or may be: the tool decides."""
    params = message.get("params") if isinstance(message, dict) else None
    return isinstance(params, dict) and params.get("name") == mcp_tools.RUN_PYTHON


def _status(answer: _Message, request: Request) -> HTTPStatus:
    """Return the status of a single answer; older clients read an error only from a 200 response."""
    error = answer.get("error")
    if error is None:
        return HTTPStatus.OK
    if error["code"] in {INVALID_REQUEST, HEADER_MISMATCH, UNSUPPORTED_VERSION}:
        return HTTPStatus.BAD_REQUEST
    if _version(request) not in ENVELOPE_VERSIONS:
        return HTTPStatus.OK
    return HTTPStatus.NOT_FOUND if error["code"] == METHOD_NOT_FOUND else HTTPStatus.BAD_REQUEST


def _error_response(error: _RpcError) -> Response:
    return json_response({"jsonrpc": "2.0", "id": None, "error": error.error}, status=HTTPStatus.BAD_REQUEST)
