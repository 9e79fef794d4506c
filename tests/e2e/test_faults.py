"""`make faults` in short: each fault once, in one stream of jobs and a stack of its own."""

import contextlib

import pytest

from tests import faults
from tests.fault_world import World


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with contextlib.ExitStack() as resources:
        yield World(resources, tmp_path_factory.mktemp("f"))


@pytest.mark.parametrize("fault", faults.FAULTS)
def test_every_job_has_one_result_whatever_dies(world, fault, monkeypatch):
    monkeypatch.setattr(faults, "AFTER_S", 0.5)
    row = faults.suffer(world, fault, 1)
    assert row.is_good, faults.table([row])


def test_job_that_kills_its_agents_is_answered_as_a_dead_letter(world):
    at_once = {"VisibilityTimeout": "2"}  # make faults waits the 15 s that it really takes, three times
    world.sqs.set_queue_attributes(QueueUrl=world.settings["JOB_QUEUE_URL"], Attributes=at_once)
    row = faults.poison(world)
    assert row.is_good, faults.table([row])
