"""Pages and the files that they load."""

import re

import app as api
import pytest
from chalice.config import Config
from chalice.local import LocalGateway

from chalicelib import problems
from chalicelib.api import static_files
from infra import template
from infra.server import gateway
from tests.support.api_requests import send
from tests.support.problems import raises_problem

PLACEHOLDER = re.compile(r"\{\{([a-z_]+)\}\}")
PAGES = sorted(path.name for path in static_files.WEB.glob("*.html"))
HASHES = {name: static_files.static_file(name).url_name for name in static_files.STATIC_FILES}
TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
MODIFIED = {
    "no_hash": "docs.js",
    "other_hash": re.sub(r"\.[0-9a-f]{16}\.", f".{'0' * 16}.", HASHES["docs.js"]),
    "other_suffix": HASHES["docs.js"].replace(".js", ".css"),
    "unlisted": f"index.{'0' * 16}.html",
    "parent": "..%2Fstatic_files.py",
    "suffix_added": f"{HASHES['docs.js']}.js",
    "newline": f"{HASHES['docs.js']}\n",
}


@pytest.fixture
def request_for():
    """Return a function that returns the request that a route gets."""

    def build(path="/", stage="", **sent):
        event = LocalGateway(api.app, Config.create())._generate_lambda_event("GET", path, sent, None)
        event["requestContext"]["path"] = f"{stage}{path}"
        return api.Request(event)

    return build


def get_file(url_name, **headers):
    return send(headers, method="GET", path=f"/assets/{url_name}", body="", key=None)


def page(name, request):
    """Return a page with hostile values."""
    values = PLACEHOLDER.findall((static_files.WEB / name).read_text())
    return static_files.page_response(name, request, values=dict.fromkeys(values, '"><script>alert(1)</script>'))


@pytest.mark.parametrize("name", HASHES)
def test_file_is_served_with_its_type_and_cached_forever(name):
    status, headers, body = get_file(HASHES[name])
    assert (status, body) == (200, static_files.static_file(name).text)
    assert headers["Content-Type"] == TYPES[name.rpartition(".")[2]]
    assert headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("url_name", MODIFIED.values(), ids=MODIFIED)
def test_other_name_raises_not_found(request_for, url_name):
    with raises_problem(problems.NOT_FOUND):
        static_files.file_response(url_name, request_for())


def test_unknown_file_returns_404_that_is_not_cached():
    status, headers, problem = get_file("x.js")
    assert (status, problem["type"]) == (404, problems.NOT_FOUND.uri)
    assert headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("tags", ["{}", 'W/"x", {}', "*"])
def test_known_etag_returns_304_without_body(tags):
    etag = get_file(HASHES["docs.js"])[1]["ETag"]
    status, headers, body = get_file(HASHES["docs.js"], **{"If-None-Match": tags.format(etag)})
    assert (status, headers["ETag"], body) == (304, etag, None)


def test_unknown_etag_returns_file():
    assert get_file(HASHES["docs.js"], **{"If-None-Match": 'W/"x"'})[0] == 200


def test_files_need_no_components(monkeypatch):
    monkeypatch.setattr(api, "components", None)
    assert get_file(HASHES["docs.js"])[0] == 200


@pytest.mark.parametrize("name", PAGES)
def test_page_runs_only_scripts_of_its_own_files(request_for, name):
    response = page(name, request_for())
    assert re.findall(r"<(?:script|style)(?![^>]*\bsrc=)[^>]*>|\son\w+=|\sstyle=|javascript:", response.body) == []
    assert re.findall(r"""(?:src|href)=["']?(?:https?:)?//""", response.body) == []
    assert "'unsafe" not in response.headers["Content-Security-Policy"]
    assert response.headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self';")


@pytest.mark.parametrize("stage", ["", "/api"])
@pytest.mark.parametrize("name", PAGES)
def test_page_refers_to_served_files(request_for, name, stage):
    body = page(name, request_for(stage=stage)).body
    urls = re.findall(r'(?:src|href)="([^"]*/assets/[^"]*)"', body)
    assert urls
    assert {url.removeprefix(f"{stage}/assets/") for url in urls} <= set(HASHES.values())
    assert "{{" not in body


def test_page_changes_its_etag_with_its_base_path(request_for):
    pages = [static_files.page_response("docs.html", request_for(stage=stage)) for stage in ("", "/api")]
    assert pages[0].headers["ETag"] != pages[1].headers["ETag"]


def test_missing_wheel_raises_file_not_found():
    with pytest.raises(FileNotFoundError):
        static_files.locate("no_such_package/file.js")


def test_files_of_wheels_come_with_their_licenses():
    packages = {path.split("/")[0] for path in static_files.STATIC_FILES.values() if "/" in path}
    assert set(static_files.LICENSES) == packages
    assert all(static_files.locate(path).is_file() for path in static_files.LICENSES.values())


def test_local_server_compresses_as_api_gateway():
    rest_api = template.load(template.PATH.read_text())["Resources"]["RestAPI"]
    assert rest_api["Properties"]["MinimumCompressionSize"] == gateway.MIN_COMPRESSED_BYTES
