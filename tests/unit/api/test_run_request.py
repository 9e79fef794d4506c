import json

import pytest

from chalicelib import contract, problems
from chalicelib.access.api_keys import new_signing_secret
from chalicelib.api import run_request
from chalicelib.api.prefer_header import Preference
from chalicelib.api.request_fields import MAX_BODY_BYTES, RequestErrorCode, parse_body
from chalicelib.api.run_request import RunRequest, parse_run_request
from chalicelib.problems import ProblemError
from tests.support.bad_files import BAD_FILES
from tests.support.problems import raises_problem
from tests.support.records import KEY, UPLOAD_URL, make_key_record

CODE = 256 * 1024
INPUT = 1024 * 1024
ARGS = 8 * 1024


def parse(body, content_type="application/json"):
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
    return parse_run_request(parse_body(body, content_type=content_type))


def problem_of(*args):
    with pytest.raises(ProblemError) as caught:
        parse(*args)
    return caught.value.problem


HOOK = "https://receiver.example/results?of=me"
SIGNING_SECRET = new_signing_secret()
GOOD = {
    "callback_url": ({"code": "1", "callback_url": HOOK}, RunRequest(code="1", callback_url=HOOK)),
    "code_only": ({"code": "1"}, RunRequest(code="1", input="", timeout_s=3.0)),
    "runtime": ({"code": "1", "runtime": "python"}, RunRequest(code="1", runtime="python")),
    "all": ({"code": "1", "input": "a", "timeout_s": 2.5}, RunRequest(code="1", input="a", timeout_s=2.5)),
    "nulls": ({"code": "1", "input": None, "args": None, "timeout_s": None}, RunRequest(code="1")),
    "args": ({"code": "1", "args": ["-n", "", "\u00fc \n"]}, RunRequest(code="1", args=("-n", "", "\u00fc \n"))),
    "args_empty": ({"code": "1", "args": []}, RunRequest(code="1")),
    "args_most": ({"code": "1", "args": ["x" * 128] * 64}, RunRequest(code="1", args=("x" * 128,) * 64)),
    "arg_longest": ({"code": "1", "args": ["\u00fc" * 4096]}, RunRequest(code="1", args=("\u00fc" * 4096,))),
    "input_nul": ({"code": "1", "input": "a\0b"}, RunRequest(code="1", input="a\0b")),
    "whitespace_code": ({"code": " \n"}, RunRequest(code=" \n")),
    "empty_input": ({"code": "1", "input": ""}, RunRequest(code="1")),
    "timeout_integer": ({"code": "1", "timeout_s": 10}, RunRequest(code="1", timeout_s=10.0)),
    "timeout_lowest": ({"code": "1", "timeout_s": 0.1}, RunRequest(code="1", timeout_s=0.1)),
    "timeout_exponent": (b'{"code":"1","timeout_s":1e0}', RunRequest(code="1", timeout_s=1.0)),
    "surrogate_pair": (b'{"code":"\\ud83d\\ude00"}', RunRequest(code="\U0001f600")),
    "raw_utf8": ('{"code":"\U0001f600"}'.encode(), RunRequest(code="\U0001f600")),
    "noncharacter": ({"code": "\ufffe"}, RunRequest(code="\ufffe")),
    "control": ({"code": "\x01"}, RunRequest(code="\x01")),
    "crlf": ({"code": "1\r\n"}, RunRequest(code="1\r\n")),
    "surrounding_space": (b' \r\n{"code":"1"}\t', RunRequest(code="1")),
}


@pytest.mark.parametrize(("body", "expected"), GOOD.values(), ids=GOOD)
def test_valid_body_is_parsed(body, expected):
    assert parse(body) == expected


BAD = {  # body: field, code
    "callback_url_type": ({"code": "1", "callback_url": 1}, "callback_url", "wrong_type"),
    "callback_url_http": ({"code": "1", "callback_url": "http://receiver.example"}, "callback_url", "invalid_url"),
    "callback_url_empty": ({"code": "1", "callback_url": ""}, "callback_url", "invalid_url"),
    "callback_url_private": ({"code": "1", "callback_url": "https://10.0.0.1"}, "callback_url", "invalid_url"),
    "empty": (b"", None, "invalid_json"),
    "space": (b" ", None, "invalid_json"),
    "text": (b"print(1)", None, "invalid_json"),
    "cut": (b'{"code":"1"', None, "invalid_json"),
    "trailing": (b'{"code":"1"}{}', None, "invalid_json"),
    "trailing_comma": (b'{"code":"1",}', None, "invalid_json"),
    "single_quotes": (b"{'code':'1'}", None, "invalid_json"),
    "raw_newline": (b'{"code":"a\nb"}', None, "invalid_json"),
    "raw_nul": (b'{"code":"a\x00b"}', None, "invalid_json"),
    "bom": (b'\xef\xbb\xbf{"code":"1"}', None, "invalid_json"),
    "nan": (b'{"code":"1","timeout_s":NaN}', None, "invalid_json"),
    "infinity": (b'{"code":"1","timeout_s":-Infinity}', None, "invalid_json"),
    "digits": (b'{"code":"1","timeout_s":' + b"9" * 5000 + b"}", None, "invalid_json"),
    "deep_arrays": (b"[" * MAX_BODY_BYTES, None, "invalid_json"),
    "deep_objects": (b'{"a":' * 100_000, None, "invalid_json"),
    "deep_field": (b'{"code":' + b"[" * 100_000 + b"]" * 100_000 + b"}", None, "invalid_json"),
    "latin1": (b'{"code":"\xfc"}', None, "invalid_utf8"),
    "utf16": ('{"code":"1"}'.encode("utf-16"), None, "invalid_utf8"),
    "utf8_surrogate": (b'{"code":"\xed\xa0\x80"}', None, "invalid_utf8"),
    "null": (b"null", None, "not_an_object"),
    "array": ([{"code": "1"}], None, "not_an_object"),
    "string": ("1", None, "not_an_object"),
    "number": (1, None, "not_an_object"),
    "duplicate": (b'{"code":"1","code":"2"}', "code", "duplicate_name"),
    "nested_duplicate": (b'{"code":{"a":1,"a":2}}', "a", "duplicate_name"),
    "unknown": ({"code": "1", "stdin": ""}, "stdin", "unknown_field"),
    "unknown_case": ({"Code": "1"}, "Code", "unknown_field"),
    "unknown_null": ({"code": "1", "stdin": None}, "stdin", "unknown_field"),
    "unknown_empty": ({"code": "1", "": 1}, "", "unknown_field"),
    "unknown_long": ({"code": "1", "x" * 100_000: 1}, "x" * 64, "unknown_field"),
    "unknown_surrogate": (b'{"code":"1","\\ud800":1}', "\\ud800", "unknown_field"),
    "code_missing": ({}, "code", "missing"),
    "code_null": ({"code": None}, "code", "missing"),
    "code_empty": ({"code": ""}, "code", "empty"),
    "code_number": ({"code": 5}, "code", "wrong_type"),
    "code_bool": ({"code": True}, "code", "wrong_type"),
    "code_array": ({"code": ["1"]}, "code", "wrong_type"),
    "code_object": ({"code": {}}, "code", "wrong_type"),
    "code_high_surrogate": (b'{"code":"\\ud800"}', "code", "lone_surrogate"),
    "code_low_surrogate": (b'{"code":"\\udc00"}', "code", "lone_surrogate"),
    "code_swapped_surrogates": (b'{"code":"\\udc00\\ud800"}', "code", "lone_surrogate"),
    "code_nul": ({"code": "a\0b"}, "code", "contains_nul"),
    "input_number": ({"code": "1", "input": 5}, "input", "wrong_type"),
    "input_false": ({"code": "1", "input": False}, "input", "wrong_type"),
    "input_array": ({"code": "1", "input": []}, "input", "wrong_type"),
    "input_surrogate": (b'{"code":"1","input":"\\udfff"}', "input", "lone_surrogate"),
    "args_text": ({"code": "1", "args": "-n"}, "args", "wrong_type"),
    "args_object": ({"code": "1", "args": {"0": "-n"}}, "args", "wrong_type"),
    "args_false": ({"code": "1", "args": False}, "args", "wrong_type"),
    "args_many": ({"code": "1", "args": [""] * 65}, "args", "too_many"),
    "args_many_numbers": ({"code": "1", "args": [1] * 1000}, "args", "too_many"),
    "arg_number": ({"code": "1", "args": ["-n", 3]}, "args[1]", "wrong_type"),
    "arg_null": ({"code": "1", "args": [None]}, "args[0]", "wrong_type"),
    "arg_array": ({"code": "1", "args": ["", "", "", []]}, "args[3]", "wrong_type"),
    "arg_surrogate": (b'{"code":"1","args":["a","\\ud800"]}', "args[1]", "lone_surrogate"),
    "arg_nul": ({"code": "1", "args": ["a\0"]}, "args[0]", "contains_nul"),
    "callback_url_nul": ({"code": "1", "callback_url": "https://a.example/\0"}, "callback_url", "contains_nul"),
    "runtime_unknown": ({"code": "1", "runtime": "Python"}, "runtime", "unknown_runtime"),
    "runtime_number": ({"code": "1", "runtime": 3}, "runtime", "wrong_type"),
    "timeout_text": ({"code": "1", "timeout_s": "3"}, "timeout_s", "wrong_type"),
    "timeout_bool": ({"code": "1", "timeout_s": True}, "timeout_s", "wrong_type"),
    "timeout_array": ({"code": "1", "timeout_s": [3]}, "timeout_s", "wrong_type"),
    "timeout_zero": ({"code": "1", "timeout_s": 0}, "timeout_s", "out_of_range"),
    "timeout_negative": ({"code": "1", "timeout_s": -1}, "timeout_s", "out_of_range"),
    "timeout_low": ({"code": "1", "timeout_s": 0.0999}, "timeout_s", "out_of_range"),
    "timeout_high": ({"code": "1", "timeout_s": 10.0001}, "timeout_s", "out_of_range"),
    "timeout_overflow": (b'{"code":"1","timeout_s":1e999}', "timeout_s", "out_of_range"),
    "timeout_huge_integer": (b'{"code":"1","timeout_s":1' + b"0" * 4000 + b"}", "timeout_s", "out_of_range"),
}


@pytest.mark.parametrize(("body", "field", "code"), BAD.values(), ids=BAD)
def test_invalid_body_returns_400_with_field_and_code(body, field, code):
    problem = problem_of(body)
    assert (problem.status, problem.type) == (400, "urn:python-exec:problem:invalid-request")
    assert (problem.field, problem.code) == (field, code)


@pytest.mark.parametrize("body", [body for body, _, _ in BAD.values()], ids=BAD)
def test_problem_size_is_bounded(body):
    assert len(problem_of(body).detail) < 100


def test_every_code_is_covered():
    tested = {code for _, _, code in (BAD | BAD_FILES).values()}
    tested |= {"unsupported_content_type", "too_large", "requires_respond_async"}
    assert tested == set(RequestErrorCode)


@pytest.mark.parametrize("filler", ["x", "\x01", "ü", "\ufffe", "\U0001f600"], ids=ascii)
@pytest.mark.parametrize(("field", "limit_bytes"), [("code", CODE), ("input", INPUT)])
def test_field_cap_counts_utf8_bytes(filler, field, limit_bytes):
    text = filler * (limit_bytes // len(filler.encode()))
    if filler == "\x01" and field == "input":
        text = "x" * (limit_bytes - 1) + filler  # six bytes of JSON each would exceed the limit of the body
    assert getattr(parse({"code": "1", field: text}), field) == text
    problem = problem_of({"code": "1", field: text + filler})
    assert (problem.status, problem.field, problem.code) == (413, field, "too_large")
    assert (problem.limit_bytes, problem.actual_bytes) == (limit_bytes, len((text + filler).encode()))


def test_field_limits_match_contract():
    assert (contract.MAX_CODE_BYTES, contract.MAX_INPUT_BYTES, contract.MAX_ARGS_BYTES) == (CODE, INPUT, ARGS)


OVERSIZED_ARGS = {
    "together": (["x" * 4096, "\u00fc" * 2048, "y"], "args", ARGS + 1),
    "one": (["", "\u00fc" * 4097], "args[1]", 2 * 4097),
}


@pytest.mark.parametrize(("args", "field", "actual_bytes"), OVERSIZED_ARGS.values(), ids=OVERSIZED_ARGS)
def test_args_above_limit_return_413(args, field, actual_bytes):
    problem = problem_of({"code": "1", "args": args})
    assert (problem.status, problem.field, problem.code) == (413, field, "too_large")
    assert (problem.limit_bytes, problem.actual_bytes) == (ARGS, actual_bytes)


def test_too_many_args_report_the_limit():
    problem = problem_of({"code": "1", "args": [""] * 65})
    assert (problem.limit_items, problem.actual_items) == (contract.MAX_ARGS, 65)
    assert problem.detail == "args has 65 items; the limit is 64."


@pytest.mark.parametrize("filler", ["x", '"', "\\", "\n", "\u00fc", "\U0001f600"], ids=ascii)
def test_largest_fields_fit_body_limit_and_lambda_event(filler):
    """Only control characters that JSON escapes as six bytes do not. Lambda takes 6 MB, as JSON in JSON."""
    code, text = filler * (CODE // len(filler.encode())), filler * (INPUT // len(filler.encode()))
    body = json.dumps({"code": code, "input": text, "timeout_s": 3}, indent=4)
    assert parse(body.encode()).input == text
    assert len(json.dumps({"body": body})) < 6_000_000


def test_valid_request_produces_valid_job():
    run_request = parse({"code": "\x01" * CODE, "input": "\ufffd" * (INPUT // 3), "timeout_s": 10})
    job = contract.Job(
        id="0" * 32,
        code=run_request.code,
        input=run_request.input,
        timeout_s=run_request.timeout_s,
        reply_to="http://sqs",
        reply_upload_url=UPLOAD_URL,
        submitted_at=0,
        reply_by=0,
        start_deadline=0,
    )
    assert contract.decode_job(contract.encode(job)) == contract.unpack_job(contract.pack(job)) == job


def test_long_callback_url_returns_413():
    url = "https://receiver.example/" + "x" * 2023
    assert parse({"code": "1", "callback_url": url}).callback_url == url
    problem = problem_of({"code": "1", "callback_url": url + "x"})
    assert (problem.status, problem.field, problem.limit_bytes) == (413, "callback_url", 2048)


def test_local_webhooks_allow_loopback_callback_url():
    fields = {"code": "1", "callback_url": "http://127.0.0.1:9000/"}
    run_request = parse_run_request(fields, local_webhook_ports=frozenset({9000}))
    assert run_request.callback_url == "http://127.0.0.1:9000/"


def test_callback_url_without_respond_async_is_rejected():
    with raises_problem(problems.INVALID_REQUEST) as raised:
        check_callback(HOOK, respond_async=False)
    problem = raised.value.problem
    assert (problem.status, problem.field, problem.code) == (400, "callback_url", "requires_respond_async")


def test_callback_url_without_signing_secret_returns_403():
    with raises_problem(problems.NO_SIGNING_SECRET) as raised:
        check_callback(HOOK, respond_async=True, signing_secret="")
    assert raised.value.problem.status == 403


@pytest.mark.parametrize(("url", "respond_async"), [(HOOK, True), (None, True), (None, False)])
@pytest.mark.parametrize("signing_secret", ["", SIGNING_SECRET], ids=["without_secret", "with_secret"])
def test_other_requests_are_accepted(url, respond_async, signing_secret):
    check_callback(url, respond_async=respond_async, signing_secret=signing_secret if url is None else SIGNING_SECRET)


def check_callback(url, *, respond_async, signing_secret=SIGNING_SECRET):
    key = make_key_record(KEY, signing_secret=signing_secret)
    request = RunRequest(code="1", callback_url=url)
    run_request.check_callback(request, key, preference=Preference(respond_async=respond_async))


def test_oversized_body_is_rejected_before_parsing():
    problem = problem_of(b"{" * (MAX_BODY_BYTES + 1))
    assert (problem.status, problem.field, problem.code) == (413, None, "too_large")
    assert (problem.limit_bytes, problem.actual_bytes) == (MAX_BODY_BYTES, MAX_BODY_BYTES + 1)


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "APPLICATION/JSON",
        " application/json ",
        "application/json;charset=utf-8",
        "application/json; charset=UTF-8",
        'application/json ; charset="utf-8" ',
    ],
)
def test_json_content_type_is_accepted(content_type):
    assert parse({"code": "1"}, content_type) == RunRequest(code="1")


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonp",
        "application/json-patch+json",
        "application/problem+json",
        "application/json; charset=latin-1",
        "application/json, text/plain",
        "text/plain; application/json",
    ],
)
def test_unsupported_content_type_returns_415(content_type):
    problem = problem_of({"code": "1"}, content_type)
    assert (problem.status, problem.code) == (415, "unsupported_content_type")
    assert problem.type == "urn:python-exec:problem:unsupported-media-type"
