"""The OpenAPI document, and that it says what the API does."""

import json

import app as api
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from chalicelib.access.plans import PLANS
from chalicelib.api import batch_request, headers, openapi, request_files, run_request
from chalicelib.api.operations import OPERATIONS
from chalicelib.api.run_request import parse_run_request
from chalicelib.problems import PROBLEM_TYPES, ProblemError
from executor_host import __version__
from tests.support import openapi_contract
from tests.support.api_requests import send

DOCUMENT = openapi_contract.document()
SCHEMAS = DOCUMENT["components"]["schemas"]
REQUEST = Draft202012Validator({"$ref": "#/components/schemas/RunProgram", "components": DOCUMENT["components"]})
LIMITS = {name: member for name, member in SCHEMAS["RunProgram"]["properties"].items() if name != "callback_url"}
REQUIRED = {"code": "1"}
BOUNDARIES = [  # field, value, whether it is valid
    ("code", "", False),
    ("code", "x" * 262_144, True),
    ("code", "x" * 262_145, False),
    ("code", "\0", False),
    ("code", None, False),
    ("input", "\0", True),
    ("input", "x" * 1_048_577, False),
    ("input", None, True),
    ("args", ["x"] * 64, True),
    ("args", ["x"] * 65, False),
    ("args", ["\0"], False),
    ("args", [1], False),
    ("args", "x", False),
    ("timeout_s", 0.1, True),
    ("timeout_s", 0.09, False),
    ("timeout_s", 10, True),
    ("timeout_s", 10.1, False),
    ("timeout_s", "1", False),
    ("timeout_s", True, False),
    ("runtime", "python", True),
    ("runtime", "ruby", False),
    ("runtime", 1, False),
    ("runtime", None, True),
    ("files", [{"path": "a/b.txt", "content": "text"}], True),
    ("files", [{"path": "a.bin", "content_base64": "AAE="}], True),
    ("files", [{"path": "a.bin", "content": None, "content_base64": ""}], True),
    ("files", [{"path": "a.bin", "content_base64": "A"}], False),
    ("files", [{"path": "a", "content": "", "content_base64": ""}], False),
    ("files", [{"path": "a"}], False),
    ("files", [{"path": "../a", "content": ""}], False),
    ("files", [{"path": "/a", "content": ""}], False),
    ("files", [{"path": "a//b", "content": ""}], False),
    ("files", [{"path": "main.py", "content": ""}], False),
    ("files", [{"path": "main.pyc", "content": ""}], True),
    ("files", [{"content": ""}], False),
    ("files", [{"path": "a", "content": "", "mode": 1}], False),
    ("files", [{"path": str(number), "content": ""} for number in range(65)], False),
    ("files", None, True),
    ("artifacts", ["*.png", "out/**"], True),
    ("artifacts", ["../x"], False),
    ("artifacts", ["x"] * 17, False),
    ("artifacts", "x", False),
    ("callback_url", "https://example.com", True),
    ("callback_url", "ftp://example.com", False),
    ("stdin", "x", False),
]


def operations():
    return [
        (method, path, operation)
        for path, methods in DOCUMENT["paths"].items()
        for method, operation in methods.items()
    ]


def test_document_is_valid_openapi():
    assert list(OpenAPIV31SpecValidator(DOCUMENT).iter_errors()) == []


def test_document_is_served_and_cacheable():
    status, response_headers, document = send(method="GET", path="/openapi.json", body="", key=None)
    assert (status, document) == (200, DOCUMENT)
    assert response_headers["Cache-Control"] == "public, no-cache"


def test_server_has_the_path_of_the_stage():
    document = send(method="GET", path="/openapi.json", body="", key=None, stage_path="/api/openapi.json")[2]
    assert document["servers"] == [{"url": "/api"}]


def test_document_needs_no_components(monkeypatch):
    monkeypatch.setattr(api, "components", None)
    assert send(method="GET", path="/openapi.json", body="", key=None)[0] == 200


def test_every_route_is_declared():
    routes = {(method, path) for path, methods in api.app.routes.items() for method in methods}
    assert routes == set(OPERATIONS)


def test_every_operation_has_summary_and_tag():
    assert [operation for _, _, operation in operations() if not operation["summary"] or not operation["tags"]] == []


def test_every_problem_type_is_documented():
    types = {
        type_
        for _, _, operation in operations()
        for response in operation["responses"].values()
        for media in response.get("content", {}).values()
        for type_ in media["schema"].get("properties", {}).get("type", {}).get("enum", [])
    }
    assert types == {problem_type.uri for problem_type in PROBLEM_TYPES}


def test_every_component_is_used():
    text = json.dumps(DOCUMENT)
    for kind, components in DOCUMENT["components"].items():
        if kind != "securitySchemes":
            assert [name for name in components if f'"#/components/{kind}/{name}"' not in text] == []


def test_examples_match_their_schemas():
    contents = [
        media
        for _, _, operation in operations()
        for holder in (operation.get("requestBody", {}), *operation["responses"].values())
        for media in holder.get("content", {}).values()
    ]
    for media in contents:
        validator = Draft202012Validator({**media["schema"], "components": DOCUMENT["components"]})
        values = [example["value"] for example in media.get("examples", {}).values()]
        for value in [*values, *([media["example"]] if "example" in media else [])]:
            validator.validate(value)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("RunProgram", run_request.FIELDS),
        ("RunBatch", batch_request.FIELDS),
        ("RequestRun", batch_request.RUN_FIELDS),
        ("RequestFile", request_files.FILE_FIELDS),
    ],
)
def test_documented_fields_are_those_that_the_parser_accepts(name, fields):
    assert tuple(SCHEMAS[name]["properties"]) == fields
    assert SCHEMAS[name]["additionalProperties"] is False


@pytest.mark.parametrize(
    ("field", "value", "is_valid"),
    BOUNDARIES,
    ids=lambda value: str(value)[:16],
)
def test_request_schema_and_parser_agree(field, value, is_valid):
    body = {**REQUIRED, field: value}
    assert REQUEST.is_valid(body) == is_valid
    try:
        parse_run_request(body)
    except ProblemError:
        assert not is_valid
    else:
        assert is_valid


def test_boundaries_cover_every_field():
    assert {field for field, _, _ in BOUNDARIES} >= set(run_request.FIELDS)


def test_idempotency_key_pattern_is_that_of_the_parser():
    validator = Draft202012Validator(DOCUMENT["components"]["parameters"]["Idempotency-Key"]["schema"])
    for key in ("x", "x y", "x" * 255, "x" * 256, "", "ü", "a\tb"):
        assert validator.is_valid(key) == bool(headers._IDEMPOTENCY_KEY.fullmatch(key)), key


def test_plans_are_listed():
    assert {name: plan["max_timeout_s"] for name, plan in DOCUMENT["x-plans"].items()} == {
        name: plan.max_timeout_s for name, plan in PLANS.items()
    }


def test_version_is_that_of_the_product():
    assert __version__ == openapi.API_VERSION


def test_undocumented_parts_of_a_response_are_reported():
    cors = {name: str(value) for name, value in api.CORS.get_access_control_headers().items()}
    ok = {**cors, "Cache-Control": "no-store", "Content-Type": "application/json"}

    def violations(status=200, added=None, body=None, **changes):
        return list(
            openapi_contract.violations(
                "GET", "/health", status, {**ok, **(added or {}), **changes}, body or {"status": "ok"}
            )
        )

    assert violations() == []
    assert violations(status=202) == ["GET /health: status 202 is not documented"]
    assert violations(added={"X-Other": "1"}) == ["header x-other is not documented"]
    assert violations(body={"status": "ok", "other": 1}) != []
    assert violations(added={"Content-Type": "text/plain"}) == ["GET /health: 200 has the media type text/plain"]
