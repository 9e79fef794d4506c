"""Serves pages and the static files that they load: ours in web/, and those of the wheels in static-requirements.txt.

A page names its files as {{asset:NAME}}, and a module in web/ imports another as "./NAME". The URL of each contains a
hash of its content, so browsers may cache it forever.
"""

import hashlib
import html
import importlib.util
import re
from collections.abc import Mapping
from functools import cache
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType
from typing import Final

from chalice.app import Request, Response
from msgspec import Struct

from chalicelib import problems
from chalicelib.api.headers import header_values
from chalicelib.api.responses import base_path
from chalicelib.problems import NO_HEADERS, Headers, ProblemError

WEB: Final = Path(__file__).with_name("web")
MEDIA_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_OURS: Final = sorted(path.name for path in WEB.iterdir() if path.suffix in {".css", ".js", ".svg"})
# By the name in a URL: the path in web/, or in the wheel of that package. Text only: API Gateway corrupts binary files.
STATIC_FILES: Final = {
    **{name: name for name in _OURS},
    "ace.css": "django_ace/static/django_ace/ace/css/ace.css",
    "ace.js": "django_ace/static/django_ace/ace/ace.js",
    "ace-mode-python.js": "django_ace/static/django_ace/ace/mode-python.js",
    "swagger-ui.css": "flask_swagger_ui/dist/swagger-ui.css",
    "swagger-ui-bundle.js": "flask_swagger_ui/dist/swagger-ui-bundle.js",
}
# By package; must be distributed with the files. The wheel of django_ace lacks that of Ace.
LICENSES: Final = {"django_ace": "ace-license.txt", "flask_swagger_ui": "flask_swagger_ui/dist/LICENSE"}
FOREVER: Final = "public, max-age=31536000, immutable"
REVALIDATE: Final = "public, no-cache"  # a browser asks with If-None-Match each time
# https://www.w3.org/TR/CSP3/
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS: Final = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

NO_VALUES: Final[Mapping[str, object]] = MappingProxyType({})
_HASH_CHARS: Final = 16
_URL_NAME: Final = re.compile(rf"([a-z0-9-]+)\.([0-9a-f]{{{_HASH_CHARS}}})(\.[a-z]+)")
_IMPORT: Final = re.compile(r'(?<= from "\./)[a-z0-9-]+\.js(?=";$)', re.MULTILINE)
_PLACEHOLDER: Final = re.compile(r"\{\{(?:asset:([a-z0-9.-]+)|([a-z_]+))\}\}")


class StaticFile(Struct, frozen=True):
    """The text of a file and its name in URLs, which contains a hash of the text."""

    text: str
    url_name: str


@cache
def static_file(name: str) -> StaticFile:
    """Return a file of STATIC_FILES. Raise KeyError for another name."""
    text = locate(STATIC_FILES[name]).read_text("utf-8")
    if name in _OURS:
        text = _IMPORT.sub(lambda match: static_file(match[0]).url_name, text)
    stem, suffix = name.rsplit(".", 1)
    return StaticFile(text, f"{stem}.{_hash(text)}.{suffix}")


def wheel_files() -> list[str]:
    """Return the paths of the files, and of their licenses, in the wheels of static-requirements.txt."""
    return [path for path in (*STATIC_FILES.values(), *LICENSES.values()) if "/" in path]


def locate(path: str) -> Path:
    """Return the place of a file in web/ or in a wheel. Does not import the package of the wheel."""
    package, _, rest = path.partition("/")
    if not rest:
        return WEB / path
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(path)
    return Path(next(iter(spec.submodule_search_locations)), rest)


def file_response(url_name: str, request: Request) -> Response:
    """Return a static file. Raise ProblemError unless the name has the hash of a file that a current page loads."""
    match = _URL_NAME.fullmatch(url_name)
    name = f"{match[1]}{match[3]}" if match else ""
    if name not in STATIC_FILES or static_file(name).url_name != url_name:
        raise ProblemError(problems.NOT_FOUND)
    suffix = f".{name.rpartition('.')[2]}"
    return cacheable_response(
        static_file(name).text,
        request,
        media_type=MEDIA_TYPES[suffix],
        cache_control=FOREVER,
        headers={"X-Content-Type-Options": "nosniff"},
    )


def page_response(
    name: str, request: Request, *, values: Mapping[str, object] = NO_VALUES, headers: Headers = NO_HEADERS
) -> Response:
    """Return a page of web/ with `values` for its other placeholders. `headers` override SECURITY_HEADERS."""
    return cacheable_response(
        _page(name, {**values, "base": base_path(request)}),
        request,
        media_type=MEDIA_TYPES[".html"],
        cache_control=REVALIDATE,
        headers={**SECURITY_HEADERS, **headers},
    )


def cacheable_response(
    text: str, request: Request, *, media_type: str, cache_control: str, headers: Headers = NO_HEADERS
) -> Response:
    """Return a response with an ETag, or 304 if the client has it."""
    etag = f'W/"{_hash(text)}"'  # weak: API Gateway compresses it for clients that accept that
    caching = {"ETag": etag, "Cache-Control": cache_control, "Vary": "Accept-Encoding", **headers}
    if _is_cached(request, etag):
        return Response(body="", status_code=HTTPStatus.NOT_MODIFIED, headers=caching)
    return Response(body=text, headers={**caching, "Content-Type": media_type})


@cache
def _page_source(name: str) -> str:
    return (WEB / name).read_text("utf-8")


def _page(name: str, values: Mapping[str, object]) -> str:
    def value(placeholder: re.Match[str]) -> str:
        asset, other = placeholder.groups()
        return html.escape(f"{values['base']}/assets/{static_file(asset).url_name}" if asset else str(values[other]))

    return _PLACEHOLDER.sub(value, _page_source(name))


def _is_cached(request: Request, etag: str) -> bool:
    tags = ",".join(header_values(request, "if-none-match"))
    return tags.strip() == "*" or etag in (tag.strip() for tag in tags.split(","))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_HASH_CHARS]
