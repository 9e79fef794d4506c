"""Test programs that once behaved differently from plain Python, with the outcome that each must have.

A case of regressions.json has `id`, `code`, `input`, `expect` and perhaps `timeout_s`. `expect` holds members of the
outcome, and `stdout_contains` or `stderr_contains` where only a part matters.
"""

import json
from pathlib import Path

import pytest
from msgspec import to_builtins

CASES = {case["id"]: case for case in json.loads(Path(__file__).with_name("regressions.json").read_text())}


def comparable(outcome, expect):
    """Return the members of an outcome that a case expects, in the form in which it expects them."""
    members = to_builtins(outcome)
    for stream in ("stdout", "stderr"):
        part = expect.get(f"{stream}_contains")
        members[f"{stream}_contains"] = part if part and part in members[stream] else members[stream]
    if "error" in expect and members["error"] is not None:
        members["error"] = {name: members["error"][name] for name in expect["error"]}
    return {name: members[name] for name in expect}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_program_has_expected_outcome(run, case):
    outcome = run(case["code"], case["input"], timeout_s=case.get("timeout_s", 3.0))
    assert comparable(outcome, case["expect"]) == case["expect"]
