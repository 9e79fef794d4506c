import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib import contract
from chalicelib.access.plans import PLANS
from chalicelib.api.batch_request import parse_batch_request
from chalicelib.api.request_fields import MAX_BODY_BYTES
from chalicelib.api.run_request import check_plan_limits, parse_run_request
from chalicelib.contract import InputFile
from chalicelib.jobs.submission import RunRequest
from chalicelib.problems import ProblemError
from tests.support.bad_files import BAD_FILES

MIB = 1024 * 1024


def parse(**members):
    return parse_run_request({"code": "1", **members})


def problem_of(**members):
    with pytest.raises(ProblemError) as caught:
        parse(**members)
    return caught.value.problem


@pytest.mark.parametrize(("body", "field", "code"), BAD_FILES.values(), ids=BAD_FILES)
def test_invalid_files_return_400_with_field_and_code(body, field, code):
    problem = problem_of(**body)
    assert (problem.status, problem.field, problem.code) == (400, field, code)
    assert len(problem.detail) < 100


FILES_OF_A_BATCH = {name: case for name, case in BAD_FILES.items() if "files" in case[0]}


@pytest.mark.parametrize(("body", "field", "code"), FILES_OF_A_BATCH.values(), ids=FILES_OF_A_BATCH)
def test_batch_refuses_the_same_files(body, field, code):
    with pytest.raises(ProblemError) as caught:
        parse_batch_request({"runs": [{}], **body})
    problem = caught.value.problem
    assert (problem.status, problem.field, problem.code) == (400, field, code)


def test_files_and_patterns_are_parsed():
    request = parse(
        files=[
            {"path": "data/\u00fc.csv", "content": "a,b\r\n\0"},
            {"path": "data/b.bin", "content_base64": "/wA=", "content": None},
            {"path": "empty", "content_base64": ""},
            {"path": "...", "content": "", "content_base64": None},
            {"path": "dir/main.py", "content": "x"},
        ],
        artifacts=["*.png", "out/**", "main.py", "[", ".*"],
    )
    assert [(file.path, file.content) for file in request.files] == [
        ("data/\u00fc.csv", b"a,b\r\n\0"),
        ("data/b.bin", b"\xff\0"),
        ("empty", b""),
        ("...", b""),
        ("dir/main.py", b"x"),
    ]
    assert request.artifacts == ("*.png", "out/**", "main.py", "[", ".*")


@pytest.mark.parametrize("members", [{}, {"files": None, "artifacts": None}, {"files": [], "artifacts": []}])
def test_files_and_artifacts_are_optional(members):
    assert parse(**members) == RunRequest(code="1")


def test_most_files_with_longest_paths_are_accepted():
    paths = [f"{number:02}" + "x" * (contract.MAX_PATH_BYTES - 2) for number in range(contract.MAX_FILES)]
    request = parse(files=[{"path": path, "content": ""} for path in paths], artifacts=paths[:16])
    assert [file.path for file in request.files] == paths
    assert request.artifacts == tuple(paths[:16])


@pytest.mark.parametrize("name", ["files[0].path", "artifacts[0]"])
def test_long_path_returns_413(name):
    path = "\u00fc" * 128
    problem = problem_of(files=[{"path": path, "content": ""}]) if "files" in name else problem_of(artifacts=[path])
    assert (problem.status, problem.field, problem.code) == (413, name, "too_large")
    assert (problem.limit_bytes, problem.actual_bytes) == (255, 256)


OVERSIZED = {
    "text": ([{"path": "a", "content": "x" * (3 * MIB + 1)}], "files[0].content", 3 * MIB, 3 * MIB + 1),
    "together": (
        [{"path": "a", "content": "x" * MIB}, {"path": "b", "content": "\u00fc" * MIB}, {"path": "c", "content": "y"}],
        "files", 3 * MIB, 3 * MIB + 1,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("files", "field", "limit_bytes", "actual_bytes"), OVERSIZED.values(), ids=OVERSIZED)
def test_files_above_limit_return_413(files, field, limit_bytes, actual_bytes):
    with pytest.raises(ProblemError) as caught:
        parse(files=files)
    problem = caught.value.problem
    assert (problem.status, problem.field, problem.code) == (413, field, "too_large")
    assert (problem.limit_bytes, problem.actual_bytes) == (limit_bytes, actual_bytes)


def test_largest_files_fit_body_limit_and_lambda_event():
    """Lambda takes 6,291,556 bytes, as JSON in JSON."""
    content = base64.b64encode(bytes(contract.MAX_FILES_BYTES // contract.MAX_FILES)).decode()
    paths = (f"{number:02}" + "x" * (contract.MAX_PATH_BYTES - 2) for number in range(contract.MAX_FILES))
    files = [{"path": path, "content_base64": content} for path in paths]
    body = json.dumps({"code": '"' * contract.MAX_CODE_BYTES, "files": files, "artifacts": ["out/**"]}, indent=4)
    assert len(body) < MAX_BODY_BYTES
    assert len(json.dumps({"body": body})) < 6_000_000


@given(st.binary(max_size=200))
def test_base64_round_trips(content):
    (file,) = parse(files=[{"path": "a", "content_base64": base64.b64encode(content).decode()}]).files
    assert file == InputFile(path="a", content=content)


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_files_above_the_limit_of_the_plan_return_403_with_the_limit(plan):
    half = plan.max_files_bytes // 2
    files = InputFile(path="a", content=bytes(half)), InputFile(path="b", content=bytes(half))
    check_plan_limits(RunRequest(code="1", files=files), plan)
    with pytest.raises(ProblemError) as caught:
        check_plan_limits(RunRequest(code="1", files=(*files, InputFile(path="c", content=b"x"))), plan)
    problem = caught.value.problem
    assert (problem.status, problem.type) == (403, "urn:python-exec:problem:plan-limit-exceeded")
    assert (problem.field, problem.plan, problem.limit_bytes) == ("files", plan.name, plan.max_files_bytes)
