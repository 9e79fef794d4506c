"""`make faults` in short: each fault once, in one stream of jobs and a stack of its own."""

import contextlib

import pytest

from tests.faults import run
from tests.faults.stack import World

# make faults waits as long as messages are really hidden; here just longer than the heartbeat.
HIDDEN_S = 6
POISON_HIDDEN_S = 2


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with contextlib.ExitStack() as resources:
        world = World(resources, tmp_path_factory.mktemp("f"))
        world.hide_messages_for(HIDDEN_S, "JOB_QUEUE_URL", "RESULTS_QUEUE_URL", "WEBHOOK_QUEUE_URL")
        yield world


@pytest.mark.parametrize("fault", run.FAULTS)
def test_every_job_has_exactly_one_result_under_faults(world, fault, monkeypatch):
    monkeypatch.setattr(run, "AFTER_S", 0.5)
    row = run.suffer(world, fault, 1)
    assert row.is_good, "\n".join([*run.table([row]), *row.complaints])


def test_job_that_crashes_hosts_is_dead_lettered(world):
    world.hide_messages_for(POISON_HIDDEN_S, "JOB_QUEUE_URL")
    row = run.poison(world, pauses_s=[0] * run.KILLS, is_alone=True)
    assert row.is_good, "\n".join([*run.table([row]), *row.complaints])
