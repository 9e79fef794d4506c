"""Every fault of `make faults` once, so that each change is tested: about two minutes instead of fifteen."""

import contextlib
import json
import time

import pytest

from tests.faults import clients, injections, report, run
from tests.faults.clients import LARGE_INPUT, LARGE_OUTPUT_CHARS
from tests.faults.stack import FaultStack
from tests.support.http_client import JSON, Client

# make faults keeps the real visibility timeouts; these are just longer than the interval between extensions.
VISIBILITY_TIMEOUT_S = 6
POISON_VISIBILITY_TIMEOUT_S = 2


@pytest.fixture(scope="module")
def fault_stack(tmp_path_factory, emulators):
    with contextlib.ExitStack() as resources:
        logs = tmp_path_factory.mktemp("f")
        endpoints = dict(resources.enter_context(emulators(logs=logs)))
        endpoints.pop("AWS_ENDPOINT_URL_SQS", None)  # fauxqs loses messages of clients that are gone
        stack = FaultStack(resources, logs, endpoints=endpoints)
        stack.set_visibility_timeout(VISIBILITY_TIMEOUT_S, "JOB_QUEUE_URL", "RESULTS_QUEUE_URL", "WEBHOOK_QUEUE_URL")
        yield stack


def assert_no_violations(*reports):
    violations = [f"{each.fault}: {violation}" for each in reports for violation in each.violations]
    assert violations == [], "\n".join([*report.format_table(reports), *violations])


@pytest.mark.timeout(600)
def test_every_job_has_exactly_one_result_under_faults(fault_stack, monkeypatch):
    monkeypatch.setattr(run, "COOLDOWN_S", 0.5)
    # Fewer jobs than those of make faults, and longer ones, so that as many run when a fault happens.
    monkeypatch.setattr(clients, "JOB_S", 0.8)
    monkeypatch.setattr(clients, "PAUSE_S", 2.0)
    assert_no_violations(*run.run_in_turn(fault_stack, injections.FAULTS))


OUTAGES = {
    "before_submission": ("PUT", "jobs", 503),
    "before_the_host_fetches": ("GET", "jobs", 202),
    "at_the_reply": ("PUT", "replies", 202),
    "before_the_reply_is_read": ("GET", "replies", 202),
}


@pytest.mark.parametrize(("method", "folder", "status"), OUTAGES.values(), ids=OUTAGES)
def test_payload_store_outage_loses_nothing(fault_stack, method, folder, status):
    client = Client(f"http://127.0.0.1:{fault_stack.port}", fault_stack.api_key)
    program = f"assert len(input()) == {len(LARGE_INPUT)}; print('\\1' * {LARGE_OUTPUT_CHARS}, end='')"
    request, proxy = json.dumps({"code": program, "input": LARGE_INPUT}), fault_stack.proxy
    hits_before, proxy.unavailable_payloads = proxy.hits, (method, folder)
    try:
        answer = client.send(request, headers={**JSON, "Prefer": "wait=2"})
        assert client.run("print(1)")["stdout"] == "1\n"
    finally:
        proxy.unavailable_payloads = None
    assert (answer.status, proxy.hits > hits_before) == (status, True)
    if status == 503:
        assert answer.body["type"].endswith(":payload-store-unavailable")
        assert answer.headers["Retry-After"] == "2"
        answer = client.send(request)
    deadline = time.monotonic() + 60
    while answer.status == 202 and time.monotonic() < deadline:
        time.sleep(0.1)
        answer = client.send(method="GET", path=f"/jobs/{answer.body['id']}", headers={})
    assert (answer.body["status"], answer.body["stdout"]) == ("ok", "\1" * LARGE_OUTPUT_CHARS)


def test_job_that_crashes_hosts_is_dead_lettered(fault_stack):
    fault_stack.set_visibility_timeout(POISON_VISIBILITY_TIMEOUT_S, "JOB_QUEUE_URL")
    assert_no_violations(run.run_poison_job(fault_stack, pauses_s=[0] * report.KILLS, is_alone=True))
