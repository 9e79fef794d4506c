"""GET /health of the local stack, whose agent sends host reports."""

import json
import urllib.request

from executor_host import __version__
from tests.support.polling import eventually


def health(stack, key=None):
    request = urllib.request.Request(f"{stack.url}/health", headers={"X-Api-Key": key} if key else {})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read())


def test_public_health_is_minimal(stack):
    assert health(stack) == {"status": "ok"}


def test_operator_sees_the_host_that_reports(stack):
    eventually(lambda: health(stack, stack.api_key)["hosts"], timeout_s=30)
    report = health(stack, stack.api_key)
    (host,) = report["hosts"]
    assert (report["status"], host["version"]) == ("ok", __version__)
    assert set(report["jobs"]) == {"waiting", "running"}
