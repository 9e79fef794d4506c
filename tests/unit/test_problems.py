import json
from http import HTTPStatus

import pytest

from chalicelib import problems
from chalicelib.problems import PROBLEM_TYPES, ProblemError, ProblemType

each_type = pytest.mark.parametrize("problem_type", PROBLEM_TYPES, ids=[each.slug for each in PROBLEM_TYPES])


@each_type
def test_problem_response_repeats_status_and_media_type(problem_type):
    error = ProblemError(problem_type)
    response = problems.problem_response(error.problem, headers=error.headers)
    assert response.headers["Content-Type"] == "application/problem+json"
    assert json.loads(response.body)["status"] == response.status_code == problem_type.status


@each_type
def test_problem_has_type_title_and_detail(problem_type):
    problem = ProblemError(problem_type, detail=problem_type.detail or "What went wrong.").problem
    assert problem.type == f"urn:python-exec:problem:{problem_type.slug}"
    assert problem.title
    assert problem.detail.endswith(".")


@each_type
def test_unavailable_service_says_when_to_retry(problem_type):
    says_when = "Retry-After" in ProblemError(problem_type).headers
    assert says_when or problem_type.status != HTTPStatus.SERVICE_UNAVAILABLE


def test_problem_types_are_distinct():
    assert len({problem_type.slug for problem_type in PROBLEM_TYPES}) == len(PROBLEM_TYPES)


def test_every_problem_type_is_in_the_table():
    constants = [value for value in vars(problems).values() if isinstance(value, ProblemType)]
    assert all(value in PROBLEM_TYPES for value in (*constants, *problems.JOB_FAILED.values()))


def test_absent_members_are_omitted():
    body = json.loads(problems.problem_response(ProblemError(problems.RESULT_TIMEOUT, job_id="0" * 32).problem).body)
    assert list(body) == ["type", "title", "status", "detail", "job_id"]


def test_explicit_headers_override_those_of_the_table():
    error = ProblemError(problems.OVERLOADED, headers={"Retry-After": "9"})
    assert error.headers["Retry-After"] == "9"


def test_status_only_problem_is_about_blank():
    body = json.loads(problems.problem_response(problems.problem_for_status(405)).body)
    assert body == {"type": "about:blank", "title": "Method Not Allowed", "status": 405}
