"""GET /health of the local stack, whose agent sends host reports."""

import json
import os
import urllib.request

from chalicelib import settings
from chalicelib.components import build_components
from executor_host import __version__
from tests.support.polling import eventually


def health(stack, key=None):
    request = urllib.request.Request(f"{stack.url}/health", headers={"X-Api-Key": key} if key else {})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read())


def test_public_health_is_minimal(stack):
    assert health(stack) == {"status": "ok"}


def test_operator_sees_the_host_that_reports(stack):
    eventually(lambda: health(stack, stack.api_key)["status"] == "ok", timeout_s=60, every_s=0.5)
    report = health(stack, stack.api_key)
    (host,) = report["hosts"]
    assert (host["version"], host["isolation"]) == (__version__, "passed")
    assert {name: set(jobs) for name, jobs in report["jobs"].items()} == {
        name: {"waiting", "running"} for name in ("python", "data")
    }
    assert set(host["runtimes"]) == {"python", "data"}


def test_canary_runs_in_every_runtime(stack, monkeypatch):
    for name, value in stack.environment.items():
        monkeypatch.setenv(name, value)
    canary = build_components(settings.load(os.environ)).canary
    assert eventually(canary.run, timeout_s=60)
