"""`GET /`: the playground for browsers, and the endpoints for other clients."""

import re

import app as api
import pytest

from chalicelib.api import endpoints, static_files
from tests.support.api_requests import send

CHROMIUM = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"
HTML = {
    "browser": CHROMIUM,
    "only": "text/html",
    "last": "application/json, text/html",
    "weighted": "text/html;level=1;q=0.4",
    "uppercase": "Text/HTML; Q=1",
}
NOT_HTML = {
    "none": None,
    "anything": "*/*",
    "json": "application/json",
    "refused": "text/html;q=0, */*",
    "refused_precisely": "text/html; q=0.000",
    "prefix": "text/htmlx",
    "xml": "application/xhtml+xml",
}
MODULE_IMPORT = re.compile(r' from "\./([a-z0-9-]+\.js)";')


def get_root(accept, **options):
    headers = {} if accept is None else {"Accept": accept}
    return send(headers, method="GET", path="/", body="", key=None, **options)


def imported_modules(name):
    """Return the modules that a module loads, directly or through others."""
    names = MODULE_IMPORT.findall((static_files.WEB / name).read_text())
    return set(names).union(*map(imported_modules, names))


@pytest.mark.parametrize("accept", HTML.values(), ids=HTML)
def test_browser_gets_playground(accept):
    status, headers, body = get_root(accept)
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "<title>Playground" in body


@pytest.mark.parametrize("accept", NOT_HTML.values(), ids=NOT_HTML)
def test_other_client_gets_list_of_endpoints(accept):
    status, headers, body = get_root(accept)
    assert (status, headers["Content-Type"]) == (200, "application/json")
    listed = {(entry["method"], entry["path"]) for entry in body["endpoints"]}
    assert listed == {(method, path) for path, methods in api.app.routes.items() for method in methods}
    assert all(entry["purpose"] for entry in body["endpoints"])


@pytest.mark.parametrize("accept", [CHROMIUM, "*/*"])
def test_response_varies_with_accept(accept):
    assert get_root(accept)[1]["Vary"] == endpoints.VARY


def test_documentation_is_below_the_stage():
    assert get_root("*/*", stage_path="/api/")[2]["documentation"] == "/api/docs"


def test_playground_loads_images_from_no_url_but_its_own():
    policy = get_root(CHROMIUM)[1]["Content-Security-Policy"]
    assert "img-src 'self' blob:;" in policy
    assert policy.replace(" blob:", " data: blob:") == static_files.CONTENT_SECURITY_POLICY


def test_playground_cannot_be_framed():
    assert "frame-ancestors 'none'" in get_root(CHROMIUM)[1]["Content-Security-Policy"]


def test_playground_needs_no_components(monkeypatch):
    monkeypatch.setattr(api, "components", None)
    assert get_root(CHROMIUM)[0] == 200


def test_playground_preloads_every_module():
    page = (static_files.WEB / "playground.html").read_text()
    preloaded = re.findall(r'rel="modulepreload" href="\{\{asset:(.*?)\}\}"', page)
    assert preloaded == sorted(imported_modules("playground.js"))


@pytest.mark.parametrize("name", sorted({"playground.js", *imported_modules("playground.js")}))
def test_module_imports_files_by_their_hash(name):
    text = static_files.static_file(name).text
    source = (static_files.WEB / name).read_text()
    served = re.findall(r' from "\./(.*)";', text)
    assert served == [static_files.static_file(other).url_name for other in MODULE_IMPORT.findall(source)]
    assert len(served) == len(re.findall(r"^(?:import|export)\b.*\bfrom\b", source, re.MULTILINE))


def test_changed_module_changes_the_url_of_its_importers(monkeypatch, tmp_path):
    for path in static_files.WEB.glob("*.js"):
        (tmp_path / path.name).write_text(path.read_text())
    before = static_files.static_file("playground.js").url_name
    monkeypatch.setattr(static_files, "WEB", tmp_path)
    (tmp_path / "base64.js").write_text("// changed\n")
    static_files.static_file.cache_clear()
    try:
        assert static_files.static_file("playground.js").url_name != before
    finally:
        monkeypatch.undo()
        static_files.static_file.cache_clear()
