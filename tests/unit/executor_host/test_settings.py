"""Test the settings of the agent."""

import pytest

from executor_host.settings import SettingsError, load

REQUIRED = {"JOB_QUEUE_URL": "q", "RESULTS_QUEUE_URL": "r", "SANDBOX_IMAGE": "i"}


def test_runtimes_set_their_workers():
    assert load(REQUIRED | {"RUNTIMES": "python=3"}).workers == {"python": 3}


@pytest.mark.parametrize(
    "text", ["", "python", "python=0", "python=1000", "python=-1", "python=1,", "python=1,python=2"]
)
def test_invalid_runtimes_are_rejected(text):
    with pytest.raises(SettingsError, match="RUNTIMES"):
        load(REQUIRED | {"RUNTIMES": text})


def test_unknown_runtime_is_named():
    with pytest.raises(SettingsError, match="unknown runtime ruby"):
        load(REQUIRED | {"RUNTIMES": "python=1,ruby=1"})
