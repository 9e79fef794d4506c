"""Test the settings of the agent."""

import pytest

from executor_host.settings import SettingsError, load

REQUIRED = {"JOB_QUEUE_URL": "q", "RESULTS_QUEUE_URL": "r", "SANDBOX_IMAGE": "i", "PAYLOAD_STORE_URL": "https://p"}


def test_runtimes_set_their_workers():
    assert load(REQUIRED | {"RUNTIMES": "python=3"}).workers == {"python": 3}


@pytest.mark.parametrize(
    "text", ["", "python", "python=0", "python=1000", "python=-1", "python=1,", "python=1,python=2"]
)
def test_invalid_runtimes_are_rejected(text):
    with pytest.raises(SettingsError, match="RUNTIMES"):
        load(REQUIRED | {"RUNTIMES": text})


STORES = {
    "aws": "https://python-exec-payloadbucket-1.s3.eu-central-1.amazonaws.com",
    "emulator": "http://127.0.0.1:4566/a-bucket",
    "localhost": "http://localhost:4566/a-bucket",
}


@pytest.mark.parametrize("url", STORES.values(), ids=STORES)
def test_payload_store_url_is_accepted(url):
    assert load(REQUIRED | {"RUNTIMES": "python=1", "PAYLOAD_STORE_URL": url}).payload_store_url == url


@pytest.mark.parametrize(
    "url",
    [
        *("", "bucket", "http://bucket.s3.amazonaws.com", "http://169.254.169.254", "https://user@host", "file:///etc"),
        *("https://host/", "https://host/a/b", "https://host?x", "https://host#x", "https://host\n", "https://"),
    ],
)
def test_other_payload_store_url_is_rejected(url):
    with pytest.raises(SettingsError, match="PAYLOAD_STORE_URL"):
        load(REQUIRED | {"PAYLOAD_STORE_URL": url})


def test_settings_of_a_runtime_are_required_only_if_it_is_served():
    served = {
        "RUNTIMES": "data=1",
        "DATA_JOB_QUEUE_URL": "q",
        "DATA_SANDBOX_IMAGE": "i",
        "RESULTS_QUEUE_URL": "r",
        "PAYLOAD_STORE_URL": STORES["aws"],
    }
    assert load(served).job_queue_urls["data"] == "q"
    with pytest.raises(SettingsError, match=r"^DATA_JOB_QUEUE_URL is missing; DATA_SANDBOX_IMAGE is missing$"):
        load(REQUIRED | {"RUNTIMES": "python=1,data=1"})


def test_unknown_runtime_is_named():
    with pytest.raises(SettingsError, match="unknown runtime ruby"):
        load(REQUIRED | {"RUNTIMES": "python=1,ruby=1"})
