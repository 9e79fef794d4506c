import json

import pytest

from chalicelib import contract
from chalicelib.access.plans import PLANS
from chalicelib.api.batch_request import FIELDS, RUN_FIELDS, parse_batch_request
from chalicelib.api.request_fields import parse_body
from chalicelib.api.run_request import check_plan_limits
from chalicelib.contract import InputFile, Run, batch_output_limits
from chalicelib.jobs.expectations import output_digest
from chalicelib.problems import ProblemError


def parse(value):
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return parse_batch_request(parse_body(body, content_type="application/json"))


def problem_of(value):
    with pytest.raises(ProblemError) as error:
        parse(value)
    return error.value.problem


def with_run(**run):
    return {"code": "c", "runs": [{}, run]}


def test_every_field_is_parsed():
    request = parse(
        {
            "code": "c",
            "runs": [{"input": "i\0", "args": ["a"], "expected_output": "o"}, {}],
            "files": [{"path": "a/b", "content": "f"}],
            "timeout_s": 2,
            "runtime": "python",
            "stop_on_failure": True,
            "callback_url": "https://example.com/",
        }
    )
    assert request.runs == (Run(input="i\0", args=("a",)), Run())
    assert request.files == (InputFile(path="a/b", content=b"f"),)
    assert request.expectations.digests == (output_digest("o"), None)
    assert request.expectations.stop_on_failure
    assert (request.code, request.timeout_s, request.runtime) == ("c", 2.0, "python")
    assert (request.callback_url, request.run_count) == ("https://example.com/", 2)


def test_null_is_an_absent_field():
    nulls = dict.fromkeys(set(FIELDS) - {"code", "runs"})
    request = parse({"code": "c", "runs": [dict.fromkeys(RUN_FIELDS)], **nulls})
    assert request == parse({"code": "c", "runs": [{}]})


INVALID = {
    "file_without_path": ({"code": "c", "runs": [{}], "files": [{"content": ""}]}, "files[0].path", "missing"),
    "artifacts": ({"code": "c", "runs": [{}], "artifacts": ["*"]}, "artifacts", "unknown_field"),
    "no_code": ({"runs": [{}]}, "code", "missing"),
    "no_runs": ({"code": "c"}, "runs", "missing"),
    "runs_empty": ({"code": "c", "runs": []}, "runs", "empty"),
    "runs_object": ({"code": "c", "runs": {}}, "runs", "wrong_type"),
    "runs_too_many": ({"code": "c", "runs": [{}] * (contract.MAX_BATCH_RUNS + 1)}, "runs", "too_many"),
    "run_null": ({"code": "c", "runs": [None]}, "runs[0]", "wrong_type"),
    "run_unknown_field": (with_run(code="c"), "runs[1].code", "unknown_field"),
    "run_input_type": (with_run(input=1), "runs[1].input", "wrong_type"),
    "run_input_size": (with_run(input="x" * (contract.MAX_INPUT_BYTES + 1)), "runs[1].input", "too_large"),
    "run_input_surrogate": (with_run(input="\ud800"), "runs[1].input", "lone_surrogate"),
    "run_args_type": (with_run(args="a"), "runs[1].args", "wrong_type"),
    "run_args_count": (with_run(args=["a"] * (contract.MAX_ARGS + 1)), "runs[1].args", "too_many"),
    "run_arg_nul": (with_run(args=["a", "\0"]), "runs[1].args[1]", "contains_nul"),
    "run_args_size": (with_run(args=["x" * contract.MAX_ARGS_BYTES, "x"]), "runs[1].args", "too_large"),
    "run_expected_type": (with_run(expected_output=["o"]), "runs[1].expected_output", "wrong_type"),
    "stop_on_failure_number": ({"code": "c", "runs": [{}], "stop_on_failure": 1}, "stop_on_failure", "wrong_type"),
    "input": ({"code": "c", "runs": [{}], "input": "i"}, "input", "unknown_field"),
    "timeout": ({"code": "c", "runs": [{}], "timeout_s": 11}, "timeout_s", "out_of_range"),
    "duplicate_name": (b'{"code": "c", "runs": [{"input": "a", "input": "b"}]}', "input", "duplicate_name"),
}  # fmt: skip


@pytest.mark.parametrize(("value", "field", "code"), INVALID.values(), ids=INVALID)
def test_invalid_batch_is_rejected(value, field, code):
    problem = problem_of(value)
    assert (problem.field, problem.code) == (field, code)


@pytest.mark.parametrize("runs", [1, contract.MAX_RUNS_WITH_LONG_OUTPUT, contract.MAX_RUNS_WITH_LONG_OUTPUT + 1])
def test_expected_output_may_be_as_long_as_what_is_returned(runs):
    limit_bytes = batch_output_limits(runs).stdout_bytes
    others = [{}] * (runs - 1)
    assert parse({"code": "c", "runs": [{"expected_output": "x" * limit_bytes}, *others]})
    problem = problem_of({"code": "c", "runs": [{"expected_output": "x" * (limit_bytes + 1)}, *others]})
    assert (problem.field, problem.limit_bytes) == ("runs[0].expected_output", limit_bytes)


def test_number_of_runs_is_limited_by_the_plan():
    plan = PLANS["free"]
    check_plan_limits(parse({"code": "c", "runs": [{}] * plan.max_batch_runs}), plan)
    with pytest.raises(ProblemError) as error:
        check_plan_limits(parse({"code": "c", "runs": [{}] * (plan.max_batch_runs + 1)}), plan)
    problem = error.value.problem
    assert (problem.field, problem.plan, problem.limit_items) == ("runs", "free", plan.max_batch_runs)


def test_input_of_each_run_is_limited_by_the_plan():
    plan = PLANS["free"]
    with pytest.raises(ProblemError) as error:
        check_plan_limits(parse(with_run(input="x" * (plan.max_input_bytes + 1))), plan)
    assert error.value.problem.field == "runs[1].input"
