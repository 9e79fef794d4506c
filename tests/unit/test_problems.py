import json

import pytest

from chalicelib import dispatch, problems, validation
from chalicelib.contract import FailureReason
from chalicelib.validation import Rule

ERRORS = {
    "length_required": problems.LengthRequiredError(),
    "invalid": validation.InvalidRequestError(Rule.RANGE, "timeout_s must be from 0.1 to 10.", field="timeout_s"),
    "too_large": validation.TooLargeError(field="code", limit_bytes=1, actual_bytes=2),
    "media_type": validation.UnsupportedMediaTypeError(),
    "unavailable": dispatch.QueueUnavailableError(),
    "no_reply": dispatch.NoReplyError("0" * 32),
    "expired": dispatch.JobFailedError("0" * 32, FailureReason.EXPIRED),
    "sandbox": dispatch.JobFailedError("0" * 32, FailureReason.SANDBOX),
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


def test_member_that_does_not_apply_is_left_out():
    body = json.loads(problems.response(ERRORS["no_reply"].problem).body)
    assert body == {
        "type": "urn:python-exec:problem:no-reply",
        "title": "No result in time",
        "status": 504,
        "detail": "The job was accepted, but its result did not come in time.",
        "job_id": "0" * 32,
    }


def test_status_alone_is_about_blank():
    body = json.loads(problems.response(problems.of_status(405)).body)
    assert body == {"type": "about:blank", "title": "Method Not Allowed", "status": 405}
