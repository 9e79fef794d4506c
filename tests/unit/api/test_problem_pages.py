"""The pages that explain the types of problems."""

import html
import re

import app as api
import pytest

from chalicelib import problems
from chalicelib.problems import PROBLEM_TYPES
from tests.support.api_requests import send

each_type = pytest.mark.parametrize("problem_type", PROBLEM_TYPES, ids=[each.slug for each in PROBLEM_TYPES])


def get_page(slug):
    return send(method="GET", path=f"/problems/{slug}", body="", key=None)


@each_type
def test_page_describes_cause_and_remedy(problem_type):
    status, headers, page = get_page(problem_type.slug)
    text = html.unescape(page)
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert problem_type.cause.endswith(".")
    assert problem_type.remedy.endswith(".")
    assert {problem_type.cause in text, problem_type.remedy in text, problem_type.uri in text} == {True}


@pytest.mark.parametrize("slug", ["x", "about:blank", "urn:python-exec:problem:overloaded", "<script>"])
def test_unknown_type_returns_404(slug):
    assert get_page(slug)[2]["type"] == problems.NOT_FOUND.uri


@pytest.mark.parametrize("stage", ["", "/api"])
def test_problem_links_to_its_page(monkeypatch, jobs, stage):
    _, headers, problem = send(key=None, stage_path=f"{stage}/")
    path, relation = re.fullmatch(r'<(.*)>; rel="(.*)"', headers["Link"]).groups()
    assert (path, relation) == (f"{stage}/problems/unauthorized", "help")
    assert problem["type"] == problems.UNAUTHORIZED.uri
    monkeypatch.setattr(api, "components", None)
    assert get_page(path.removeprefix(f"{stage}/problems/"))[0] == 200
