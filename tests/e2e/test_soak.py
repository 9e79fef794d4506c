"""`make soak` for some seconds, and what a flood does to the agent."""

import pytest

from tests.load import soak


def test_short_programs_return_correct_results(engine):
    assert soak.short_programs(engine, 45) == {}


def test_hostile_jobs_do_not_corrupt_results(engine):
    statuses, good = soak.hostile_customers(engine, 6)
    assert (good[True] > 0, good[False]) == (True, 0)
    assert {kind for kind, counts in statuses.items() if counts["no result"] or not counts} == set()


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_output_flood_does_not_grow_agent_memory(stack, stream):
    assert soak.flood_growth(stack, stream, 200) <= soak.MAX_GROWTH_BYTES


def test_wrong_answer_is_counted(engine, monkeypatch):
    monkeypatch.setattr(soak, "SHORT", {"silent": ("pass", soak.Expected("{token}"))})
    assert soak.short_programs(engine, 2) == {"silent": 2}
