"""Serves `GET /`: the playground to browsers, and a list of the endpoints to other clients."""

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from chalice.app import Request, Response
from msgspec import Struct

from chalicelib.api import static_files
from chalicelib.api.headers import header_values
from chalicelib.api.responses import base_path

# Stricter than that of other pages: images are static files, or raster images that a program returned.
CONTENT_SECURITY_POLICY: Final = static_files.CONTENT_SECURITY_POLICY.replace(
    "img-src 'self' data: blob:", "img-src 'self' blob:"
)
VARY: Final = "Accept, Accept-Encoding"

_HTML_TYPE: Final = re.compile(r"\s*text/html\s*(?:;(?!\s*q=0(?:\.0*)?\s*(?:;|$)).*)?", re.IGNORECASE)


class Endpoint(Struct, frozen=True):
    """One operation of the API."""

    method: str
    path: str
    purpose: str


class Index(Struct, frozen=True):
    """The body of the response to clients that are not browsers."""

    name: str
    documentation: str  # a path
    endpoints: tuple[Endpoint, ...]


def index_response(request: Request, name: str, routes: Mapping[str, Mapping[str, Any]]) -> Response:
    """Return the playground if the client accepts HTML, and otherwise the endpoints. `routes` are those of the app."""
    if _accepts_html(request):
        headers = {"Content-Security-Policy": CONTENT_SECURITY_POLICY, "Vary": VARY}
        return static_files.page_response("playground.html", request, headers=headers)
    endpoints = tuple(
        Endpoint(method, path, str(entry.view_function.__doc__).splitlines()[0])
        for path, methods in routes.items()
        for method, entry in methods.items()
    )
    index = Index(name=name, documentation=f"{base_path(request)}/docs", endpoints=endpoints)
    return static_files.cacheable_response(
        msgspec.json.encode(index).decode(),
        request,
        media_type="application/json",
        cache_control=static_files.REVALIDATE,
        headers={"Vary": VARY},
    )


def _accepts_html(request: Request) -> bool:
    """Return whether the client names HTML; `*/*` is what curl and HTTP libraries send."""
    types = ",".join(header_values(request, "accept")).split(",")
    return any(_HTML_TYPE.fullmatch(media_type) for media_type in types)
