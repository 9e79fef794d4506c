"""Describes the headers and parameters of requests, and the headers of responses, for the OpenAPI document."""

from typing import Any, Final

from chalicelib import problems
from chalicelib.api import prefer_header
from chalicelib.api.mcp import ENVELOPE_VERSIONS, HANDSHAKE_VERSIONS
from chalicelib.api.openapi_examples import JOB_ID
from chalicelib.api.responses import CORS
from chalicelib.api.static_files import SECURITY_HEADERS
from chalicelib.problems import PROBLEM_TYPES
from chalicelib.settings import MAX_WAIT_S, MIN_WAIT_S

Schema = dict[str, Any]

PARAMETERS: Final[dict[str, Schema]] = {
    "Prefer": {
        "in": "header",
        "description": f"`wait=5` waits up to this many seconds for the result, {MIN_WAIT_S:g} to {MAX_WAIT_S:g}. "
        "`respond-async` returns 202 immediately, or after the wait if both are sent. "
        "Unknown preferences are ignored (RFC 7240).",
        "schema": {"type": "string"},
        "examples": {name: {"value": name} for name in prefer_header.EXAMPLES},
    },
    "Idempotency-Key": {
        "in": "header",
        # No example, because the reference page would send it with each request, and the second would be a replay.
        "description": "Identifies this request, so that it can be retried safely, for example with a random UUID.",
        "schema": {
            "type": "string",
            "minLength": 1,
            "maxLength": problems.MAX_IDEMPOTENCY_KEY_CHARS,
            "pattern": "^[!-~]([ -~]*[!-~])?$",
        },
    },
    "Mcp-Protocol-Version": {
        "in": "header",
        "description": "The negotiated version of the Model Context Protocol.",
        "schema": {"enum": [*HANDSHAKE_VERSIONS, *ENVELOPE_VERSIONS]},
    },
    "Mcp-Method": {
        "in": "header",
        "description": f"The method of the message; from version {ENVELOPE_VERSIONS[0]} on.",
        "schema": {"type": "string"},
    },
    "Mcp-Name": {
        "in": "header",
        "description": f"The name of the tool that is called; from version {ENVELOPE_VERSIONS[0]} on.",
        "schema": {"type": "string"},
    },
    "If-None-Match": {
        "in": "header",
        "description": "The ETag of an earlier response.",
        "schema": {"type": "string"},
    },
    "job_id": {
        "in": "path",
        "description": "The id of a job.",
        "schema": {"type": "string", "minLength": 1, "examples": [JOB_ID]},
    },
    "name": {
        "in": "path",
        "description": "The name of a file that a page refers to.",
        "schema": {"type": "string", "minLength": 1},
    },
    "slug": {
        "in": "path",
        "description": f"The `type` of a problem without `{problems.TYPE_PREFIX}`.",
        "schema": {"type": "string", "minLength": 1, "examples": [each.slug for each in PROBLEM_TYPES[:1]]},
    },
}

_LISTS: Final = {
    "RateLimit": "What is left of each limit (`r`) and after how many seconds more is available (`t`).",
    "RateLimit-Policy": "The limits of the key: `q` requests or runs in `w` seconds.",
}
HEADERS: Final[dict[str, Schema]] = {
    **{name: {"description": text, "schema": {"type": "string"}} for name, text in _LISTS.items()},
    **{
        name: {"description": "Lets scripts of other origins read the response.", "schema": {"const": str(value)}}
        for name, value in CORS.get_access_control_headers().items()
    },
    **{
        name: {"description": "What a browser may do with the page.", "schema": {"type": "string"}}
        for name in SECURITY_HEADERS
    },
    "Accept-Post": {"description": "The accepted media type.", "schema": {"const": "application/json"}},
    "Allow": {"description": "The methods of the route.", "schema": {"type": "string"}},
    "Cache-Control": {"description": "How long the response may be cached.", "schema": {"type": "string"}},
    "Connection": {"description": "The connection is closed.", "schema": {"const": "close"}},
    "ETag": {"description": "Identifies the version.", "schema": {"type": "string", "pattern": '^W/"[0-9a-f]{16}"$'}},
    "Link": {
        "description": "The page about the problem type, as `rel=help`.",
        "schema": {"type": "string", "pattern": '^<.*/problems/[a-z:-]+>; rel="help"$'},
    },
    "Location": {
        "description": "Where to poll for the result.",
        "schema": {"type": "string", "pattern": "/jobs/[0-9a-f]{32}$"},
    },
    "Preference-Applied": {"description": "The preferences that were applied.", "schema": {"type": "string"}},
    "Retry-After": {
        "description": "Seconds to wait before the next request.",
        "schema": {"type": "integer", "minimum": 0},
    },
    "Vary": {"description": "The request headers that select the response.", "schema": {"type": "string"}},
    "WWW-Authenticate": {"description": "How to authenticate.", "schema": {"type": "string"}},
}
COMMON_HEADERS: Final = ("Cache-Control", *CORS.get_access_control_headers())
KEY_HEADERS: Final = ("RateLimit", "RateLimit-Policy")  # of every response to a valid key
# A response has all others that it documents.
OPTIONAL_HEADERS: Final = (*KEY_HEADERS, *SECURITY_HEADERS, "Preference-Applied")
