import pytest
from msgspec.structs import replace

from chalicelib.contract import Status, Truncated
from chalicelib.jobs import expectations
from chalicelib.jobs.batch_view import batch_body
from chalicelib.jobs.expectations import Expectations, output_digest
from tests.support.records import make_batch_result, make_run_result

ANSWER = make_run_result(stdout="42\n")


def expect(*outputs, stop_on_failure=False):
    digests = tuple(None if output is None else output_digest(output) for output in outputs)
    return Expectations(digests=digests, stop_on_failure=stop_on_failure)


def body_of(*runs, expected):
    return batch_body(make_batch_result("id", runs=runs), expected)


EQUAL = {
    "same": ("1\n2\n", "1\n2\n"),
    "final_newline": ("1\n2", "1\n2\n"),
    "final_newlines": ("1\n2\n\n\n", "1\n2"),
    "white_space_of_lines": ("1 \t\n2\r\n", "1\n2"),
    "last_line_of_white_space": ("1\n  \n", "1"),
    "nothing": ("", "\n"),
}
DIFFERENT = {
    "leading_space": ("1", " 1"),
    "empty_line": ("1\n\n2", "1\n2"),
    "first_newline": ("\n1", "1"),
    "case": ("yes", "YES"),
    "inner_space": ("1  2", "1 2"),
    "more": ("1\n2", "1"),
}


@pytest.mark.parametrize(("output", "expected"), EQUAL.values(), ids=EQUAL)
def test_equal_output_passes(output, expected):
    assert expect(expected).passed(0, make_run_result(stdout=output)) is True


@pytest.mark.parametrize(("output", "expected"), DIFFERENT.values(), ids=DIFFERENT)
def test_different_output_fails(output, expected):
    assert expect(expected).passed(0, make_run_result(stdout=output)) is False


def test_run_without_expected_output_has_no_verdict():
    assert expect(None).passed(0, ANSWER) is None


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.OK])
def test_run_with_another_status_fails_whatever_it_wrote(status):
    assert expect("42").passed(0, replace(ANSWER, status=status)) is False


def test_truncated_output_fails():
    assert expect("42").passed(0, replace(ANSWER, truncated=Truncated(stdout=True))) is False


def test_runs_are_counted_by_verdict():
    error = replace(ANSWER, status=Status.ERROR)
    body = body_of(ANSWER, ANSWER, ANSWER, error, None, expected=expect("42", "43", None, None, "42"))
    assert [run.passed for run in body["runs"]] == [True, False, None, None, None]
    assert [run.status for run in body["runs"]] == ["ok", "ok", "ok", "error", "not_run"]
    assert (body["passed"], body["failed"], body["not_run"]) == (1, 2, 1)


def test_stop_on_failure_hides_the_runs_after_the_first_failure():
    expected = expect("42", "43", "42", stop_on_failure=True)
    body = body_of(ANSWER, ANSWER, ANSWER, expected=expected)
    assert [run.status for run in body["runs"]] == ["ok", "ok", "not_run"]
    assert (body["passed"], body["failed"], body["not_run"]) == (1, 1, 1)
    assert body["runs"][2].stdout == ""


def test_usage_is_that_of_all_runs():
    usage = body_of(ANSWER, ANSWER, None, expected=None)["usage"]
    one = ANSWER.usage
    assert (usage.duration_ms, usage.cpu_ms) == (2 * one.duration_ms, 2 * one.cpu_ms)
    assert (usage.memory_bytes, usage.queued_ms) == (one.memory_bytes, 4)


def test_expectations_of_a_record_contain_no_output():
    stored = expectations.dump(expect("secret", None, stop_on_failure=True))
    assert b"secret" not in stored
    assert expectations.load(stored) == expect("secret", None, stop_on_failure=True)


def test_other_jobs_have_no_expectations():
    assert expectations.load(expectations.dump(None)) is None
