"""Generated Prefer headers: no header raises, takes long, or asks for more than the API offers."""

import time

from hypothesis import given, settings
from hypothesis import strategies as st

from chalicelib.api.prefer_header import MAX_WAIT_S, MIN_WAIT_S, Preference, parse

SYNTAX = st.text('",;=\\ \t', min_size=1, max_size=4)
FRAGMENTS = st.sampled_from(["respond-async", "wait", "wait=5", 'a="b, c"', "x=y; z"]) | SYNTAX | st.text(max_size=4)
HEADERS = st.lists(FRAGMENTS, max_size=8).map("".join)
SPACES = st.text(" \t", max_size=2)


@given(st.lists(HEADERS, max_size=3))
def test_arbitrary_header_is_parsed_or_ignored(headers):
    preference = parse(headers)
    assert preference.wait_s is None or MIN_WAIT_S <= preference.wait_s <= MAX_WAIT_S


@given(st.integers(0, 999_999_999), st.booleans(), st.booleans(), st.lists(SPACES, min_size=6, max_size=6))
def test_well_formed_header_is_understood(wait_s, respond_async, quoted, spaces):
    wait = f'{spaces[0]}wait{spaces[1]}={spaces[2]}"{wait_s}"' if quoted else f"wait{spaces[1]}={spaces[2]}{wait_s}"
    members = [wait + spaces[3], *(["respond-async" + spaces[4]] if respond_async else [])]
    clamped = min(max(wait_s, MIN_WAIT_S), MAX_WAIT_S)
    assert parse([f",{spaces[5]}".join(members)]) == Preference(respond_async=respond_async, wait_s=clamped)


@given(HEADERS, HEADERS)
def test_two_headers_equal_one_joined_by_a_comma(first, second):
    if first.count('"') == 0:  # a quotation may span the comma
        assert parse([first, second]) == parse([f"{first},{second}"])


@settings(max_examples=30)
@given(st.lists(FRAGMENTS | SYNTAX, min_size=1, max_size=3).map("".join).filter(bool), HEADERS)
def test_parsing_time_is_linear_for_repeated_text(text, end):
    header = text * (50_000 // len(text)) + end
    started = time.process_time()
    parse([header])
    assert time.process_time() - started < 0.5
