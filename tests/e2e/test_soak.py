"""The parts of `make soak` that need the whole stack, and a check that it counts wrong results."""

import pytest

from tests.load import batches, files, soak
from tests.load.agent_in_memory import agent_in_memory


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


def test_runs_of_batches_are_right_however_long_their_output_is(engine):
    with agent_in_memory(engine) as queue:
        assert batches.wrong_outputs(queue, size=5) == 0
        results = batches.run_batch(queue, batches.LONG_OUTPUT, [""] * 20)
    assert {len(result.stdout) for result in results} == {batches.batch_output_limits(20).stdout_bytes}
