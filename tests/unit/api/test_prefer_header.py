"""The Prefer header: what RFC 7240 allows, and what a client may send instead."""

import time

import pytest

from chalicelib.api import prefer_header
from chalicelib.api.prefer_header import Preference, parse

BOTH = Preference(respond_async=True, wait_s=7)
ASYNC = Preference(respond_async=True)
UNDERSTOOD = {
    "wait": (["wait=5"], Preference(wait_s=5)),
    "respond_async": (["respond-async"], ASYNC),
    "several": (["respond-async, wait=7"], BOTH),
    "several_headers": (["wait=7", "respond-async"], BOTH),
    "any_case": (["Respond-Async, WAIT=7"], BOTH),
    "white_space": (["\twait = 7 ,  respond-async "], BOTH),
    "quoted": (['wait="7", respond-async'], BOTH),
    "parameters": (['wait=7; a; b="x, y", respond-async; c=1'], BOTH),
    "empty_members": ([",,wait=7,,respond-async,"], BOTH),
    "others": (['handling=lenient, wait=7, return="x", respond-async'], BOTH),
    "value_that_means_nothing": (["respond-async=no"], ASYNC),
    "first_of_two": (["wait=7, wait=20", "wait=3, respond-async"], BOTH),
    "shortest": (["wait=0"], Preference(wait_s=prefer_header.MIN_WAIT_S)),
    "longest": (["wait=999999999"], Preference(wait_s=prefer_header.MAX_WAIT_S)),
}
IGNORED = {
    "none": [],
    "empty": [""],
    "negative": ["wait=-1"],
    "fraction": ["wait=4.5"],
    "digits_of_another_script": ["wait=\u0664"],
    "no_number": ["wait"],
    "too_many_digits": ["wait=1234567890"],
    "two_words": ["wait=1 2", "respond-async please"],
    "longer_names": ["respond-asynchronously, await=3"],
    "no_token": ["respond-async/x"],
    "in_quotation_marks": ['a="b, respond-async, wait=7"', '"respond-async"'],
    "in_parameters": ["a; respond-async; wait=7"],
    "after_a_quotation_that_does_not_end": ['a="b, respond-async'],
    "after_an_escaped_quotation_mark": [r'a="\", respond-async"'],
}


@pytest.mark.parametrize(("headers", "expected"), UNDERSTOOD.values(), ids=UNDERSTOOD)
def test_valid_prefer_header_is_parsed(headers, expected):
    assert parse(headers) == expected


@pytest.mark.parametrize("headers", IGNORED.values(), ids=IGNORED)
def test_unknown_or_malformed_preference_is_ignored(headers):
    assert parse(headers) == Preference()


@pytest.mark.parametrize("text", ['"\\', '"', '"a",', ",", "a=" + " " * 99, ' "', "=", "a;"], ids=repr)
@pytest.mark.parametrize("end", ["", '"x" y'], ids=repr)
def test_parsing_time_is_linear(text, end):
    hostile = ["a=" + text * (65_536 // len(text)) + end]
    started = time.process_time()
    parse(hostile)
    assert time.process_time() - started < 0.25


@pytest.mark.parametrize(
    ("preference", "applied"),
    [
        (Preference(), {}),
        (Preference(wait_s=7), {"Preference-Applied": "wait=7"}),
        (Preference(respond_async=True), {"Preference-Applied": "respond-async"}),
        (BOTH, {"Preference-Applied": "respond-async, wait=7"}),
    ],
)
def test_preference_applied_header(preference, applied):
    assert preference.applied_header(waits=True) == applied
