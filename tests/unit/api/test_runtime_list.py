"""GET /runtimes."""

import app as api
import pytest

from chalicelib.runtimes import RUNTIMES
from tests.support.api_requests import send


def test_runtimes_need_no_key_and_no_aws(monkeypatch):
    monkeypatch.setattr(api, "components", lambda: pytest.fail("components were built"))
    status, _, body = send(method="GET", path="/runtimes", body="", key=None)
    assert (status, [runtime["name"] for runtime in body["runtimes"]]) == (200, list(RUNTIMES))


def test_runtime_lists_its_memory_and_preloaded_modules(jobs):
    (python,) = [
        runtime
        for runtime in send(method="GET", path="/runtimes", body="")[2]["runtimes"]
        if runtime["name"] == "python"
    ]
    assert (python["python_version"], python["limits"]["memory_bytes"]) == ("3.13", 256 * 1024 * 1024)
    assert {"json", "re", "math"} <= set(python["preloaded"])
