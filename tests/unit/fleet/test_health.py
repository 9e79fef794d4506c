"""GET /health, and the host reports that it shows."""

import app as api
import msgspec
import pytest

from chalicelib.access.api_keys import KeyStatus
from chalicelib.api import queue_events
from chalicelib.contract import IsolationState, encode
from tests.support.api_requests import send
from tests.support.fakes.sqs import client_error
from tests.support.records import KEY, make_host_report

REPORT = make_host_report()


def get_health(*, key=str(KEY)):
    status, _, body = send(method="GET", path="/health", body="", key=key)
    return status, body


def test_health_without_key_makes_no_aws_calls(monkeypatch):
    monkeypatch.setattr(api, "components", lambda: pytest.fail("components were built"))
    assert get_health(key=None) == (200, {"status": "ok"})


@pytest.mark.usefixtures("jobs")
def test_health_for_operator_includes_queue_and_hosts(sqs, job_queue_url, hosts):
    for _ in range(3):
        sqs.send_message(QueueUrl=job_queue_url, MessageBody="x")
    sqs.receive_message(QueueUrl=job_queue_url)
    hosts.store(REPORT)
    assert get_health() == (
        200,
        {
            "status": "ok",
            "jobs": {"python": {"waiting": 2, "running": 1}, "data": {"waiting": 0, "running": 0}},
            "hosts": [
                {
                    "name": "h1",
                    "version": "0.1.0",
                    "runtimes": {"python": {"ready": 4, "running": 2}},
                    "isolation": "passed",
                }
            ],
        },
    )


@pytest.mark.usefixtures("jobs")
def test_health_without_hosts_reports_no_hosts():
    assert get_health()[1]["status"] == "no_hosts"


@pytest.mark.parametrize("state", [IsolationState.FAILED, IsolationState.PENDING])
@pytest.mark.usefixtures("jobs")
def test_health_with_only_unchecked_hosts_reports_no_hosts(hosts, state):
    hosts.store(msgspec.structs.replace(REPORT, isolation=state))
    _, body = get_health()
    assert (body["status"], body["hosts"][0]["isolation"]) == ("no_hosts", state)


@pytest.mark.usefixtures("jobs")
def test_health_with_one_checked_host_is_ok(hosts):
    hosts.store(msgspec.structs.replace(REPORT, isolation=IsolationState.FAILED))
    hosts.store(msgspec.structs.replace(REPORT, host="h2"))
    assert get_health()[1]["status"] == "ok"


@pytest.mark.usefixtures("jobs")
def test_health_for_customer_matches_anonymous_response(table, sqs):
    table.change(KEY.key_id, plan="pro")
    assert get_health() == (200, {"status": "ok"})
    assert sqs.calls["get_queue_attributes"] == 0


@pytest.mark.usefixtures("jobs")
def test_health_with_invalid_or_revoked_key_is_rejected(table):
    assert get_health(key="pk_x")[0] == 401
    table.change(KEY.key_id, status=KeyStatus.REVOKED)
    assert get_health()[0] == 403


@pytest.mark.parametrize("unavailable", ["queue", "table"])
@pytest.mark.usefixtures("jobs")
def test_health_dependency_failure_returns_503(sqs, hosts, unavailable):
    if unavailable == "queue":
        sqs.failures["get_queue_attributes"] = [client_error("Down")]
    hosts.is_unavailable = unavailable == "table"
    status, problem = get_health()
    assert (status, problem["type"]) == (503, "urn:python-exec:problem:health-check-failed")


def test_host_report_is_stored_and_malformed_message_is_retried(hosts):
    messages = [
        {"messageId": "valid", "body": encode(REPORT), "attributes": {}},
        {"messageId": "malformed", "body": "{", "attributes": {}},
    ]
    response = queue_events.process_batch(
        {"Records": messages}, lambda message: queue_events.store_result(message, None, hosts)
    )
    assert response == {"batchItemFailures": [{"itemIdentifier": "malformed"}]}
    assert hosts.reports == {"h1": REPORT}
