"""The parts of `make soak` that need the whole stack, and a check that it counts wrong results."""

import pytest

from tests.load import files, soak


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_output_flood_does_not_grow_agent_memory(stack, stream):
    assert soak.memory_growth_during_flood(stack, stream, 200) <= soak.MAX_GROWTH_BYTES


def test_files_and_artifacts_are_unchanged_and_need_little_memory(stack):
    figures = files.measure(stack, runs=8, clients=4, size=100_000)
    assert (figures.wrong, len(figures.latencies_s)) == (0, 8)
    assert figures.growth_bytes <= files.MAX_GROWTH_BYTES


def test_wrong_answer_is_counted(engine, monkeypatch):
    silent = ("pass", soak.Observed("{token}"))
    monkeypatch.setattr(soak, "SHORT_PROGRAMS", {"print": soak.SHORT_PROGRAMS["print"], "silent": silent})
    assert soak.run_short_programs(engine, 4) == {"silent": 2}
