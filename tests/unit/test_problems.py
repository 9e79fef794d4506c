import json

import pytest

from chalicelib import job_problems, problems
from chalicelib.access import admission, load_shedding, rate_limits
from chalicelib.access.api_keys import new_key
from chalicelib.access.plans import PLANS
from chalicelib.api import run_request
from chalicelib.api.run_request import Rule
from chalicelib.contract import FailureReason
from chalicelib.jobs import dispatcher
from tests.support.records import make_key_record

NOW_US = 1_700_000_000 * rate_limits.SECOND_US
USED_UP = {
    "rate": make_key_record(new_key(), tat_us=2 * NOW_US),
    "quota": make_key_record(new_key(), month=202311, runs=100_000),
}
STANDINGS = {name: rate_limits.standing(record, PLANS["pro"], now_us=NOW_US) for name, record in USED_UP.items()}

ERRORS = {
    "unauthorized": admission.UnauthorizedError(),
    "revoked": admission.KeyRefusedError(admission.Refusal.REVOKED, "This key was revoked.", headers={}),
    "not_in_plan": run_request.NotInPlanError(PLANS["free"], "timeout_s", "timeout_s may be at most 3", limit_s=3),
    "rate_limited": admission.LimitedError(STANDINGS["rate"]),
    "quota_exceeded": admission.LimitedError(STANDINGS["quota"]),
    "admission_unavailable": admission.AdmissionUnavailableError(),
    "overloaded": load_shedding.OverloadedError(),
    "length_required": problems.LengthRequiredError(),
    "invalid": run_request.InvalidRequestError(Rule.RANGE, "timeout_s must be from 0.1 to 10.", field="timeout_s"),
    "too_large": run_request.TooLargeError(field="code", limit_bytes=1, actual_bytes=2),
    "media_type": run_request.UnsupportedMediaTypeError(),
    "job-queue-unavailable": dispatcher.QueueUnavailableError(),
    "no_reply": job_problems.NoReplyError("0" * 32),
    "expired": job_problems.JobFailedError("0" * 32, FailureReason.START_TIMEOUT),
    "sandbox": job_problems.JobFailedError("0" * 32, FailureReason.SANDBOX_ERROR),
}


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_problem_response_repeats_status_and_media_type(error):
    response = problems.response(error.problem, headers=error.headers)
    assert response.headers["Content-Type"] == "application/problem+json"
    assert json.loads(response.body)["status"] == response.status_code == error.problem.status


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_problem_has_type_title_and_detail(error):
    assert error.problem.type.startswith("urn:python-exec:problem:")
    assert error.problem.title
    assert error.problem.detail.endswith(".")


def test_problem_types_are_distinct():
    assert len({error.problem.type for error in ERRORS.values()}) == len(ERRORS)


def test_absent_members_are_omitted():
    body = json.loads(problems.response(ERRORS["no_reply"].problem).body)
    assert body == {
        "type": "urn:python-exec:problem:result-timeout",
        "title": "No result in time",
        "status": 504,
        "detail": "The job was accepted, but its result did not come in time.",
        "job_id": "0" * 32,
    }


def test_status_only_problem_is_about_blank():
    body = json.loads(problems.response(problems.of_status(405)).body)
    assert body == {"type": "about:blank", "title": "Method Not Allowed", "status": 405}
