"""GET /health, and the metrics of requests."""

import json

import app as api
import pytest
from chalice.config import Config
from chalice.local import LambdaContext, LocalGateway

from chalicelib.access.api_keys import KeyStatus
from chalicelib.api import queue_events
from chalicelib.contract import HostReport, encode
from chalicelib.telemetry import metrics, request_context
from tests.support.emf import parse_emf_line
from tests.support.fakes.sqs import client_error
from tests.support.records import KEY

REPORT = HostReport(host="h1", agent_version="0.1.0", ready=4, running=2, sent_at=1.0)


def get(path="/health", key=None, method="GET", body=b""):
    """Status and body of the answer."""
    gateway = LocalGateway(api.app, Config.create())
    headers = {"X-Api-Key": key} if key else {}
    event = gateway._generate_lambda_event(method, path, headers, body)
    answer = api.app(event | {"multiValueHeaders": None}, LambdaContext("run", 512))
    return answer["statusCode"], json.loads(answer["body"])


def test_health_without_key_makes_no_aws_calls(monkeypatch):
    monkeypatch.setattr(api, "components", lambda: pytest.fail("it is asked"))
    assert get() == (200, {"status": "ok"})


@pytest.mark.usefixtures("jobs")
def test_health_for_operator_includes_queue_and_hosts(sqs, job_queue_url, hosts):
    for _ in range(3):
        sqs.send_message(QueueUrl=job_queue_url, MessageBody="x")
    sqs.receive_message(QueueUrl=job_queue_url)
    hosts.store(REPORT)
    assert get(key=str(KEY)) == (
        200,
        {
            "status": "ok",
            "jobs": {"waiting": 2, "running": 1},
            "hosts": [{"name": "h1", "version": "0.1.0", "ready": 4, "running": 2}],
        },
    )


@pytest.mark.usefixtures("jobs")
def test_health_without_hosts_reports_no_hosts():
    assert get(key=str(KEY))[1]["status"] == "no_hosts"


@pytest.mark.usefixtures("jobs")
def test_health_for_customer_matches_anonymous_response(table, sqs):
    table.change(KEY.key_id, plan="pro")
    assert get(key=str(KEY)) == (200, {"status": "ok"})
    assert sqs.calls["get_queue_attributes"] == 0


@pytest.mark.usefixtures("jobs")
def test_health_with_invalid_or_revoked_key_is_rejected(table):
    assert get(key="pk_x")[0] == 401
    table.change(KEY.key_id, status=KeyStatus.REVOKED)
    assert get(key=str(KEY))[0] == 403


@pytest.mark.parametrize("what", ["queue", "table"])
@pytest.mark.usefixtures("jobs")
def test_health_dependency_failure_returns_503(sqs, hosts, what):
    if what == "queue":
        sqs.failures["get_queue_attributes"] = [client_error("Down")]
    hosts.is_unavailable = what == "table"
    status, problem = get(key=str(KEY))
    assert (status, problem["type"]) == (503, "urn:python-exec:problem:health-check-failed")


def test_host_report_is_stored_and_malformed_message_is_retried(hosts):
    records = [
        {"messageId": name, "body": body, "attributes": {}} for name, body in (("a", encode(REPORT)), ("b", "nothing"))
    ]
    answer = queue_events.process_batch(
        {"Records": records}, lambda message: queue_events.store_result(message, None, hosts)
    )
    assert answer == {"batchItemFailures": [{"itemIdentifier": "b"}]}
    assert hosts.reports == {"h1": REPORT}


@pytest.mark.usefixtures("jobs")
def test_request_log_line_includes_metrics(log_lines):
    get("/usage", key=str(KEY))
    assert parse_emf_line(log_lines[0]) == [("Requests", {}, 1)]


@pytest.mark.usefixtures("jobs")
def test_rejection_is_counted_by_reason_and_in_total(log_lines):
    get("/usage", key="pk_x")
    assert parse_emf_line(log_lines[0]) == [
        ("Requests", {}, 1),
        ("RejectedRequests", {}, 1),
        ("RejectedRequests", {"Reason": "unauthorized"}, 1),
    ]


@pytest.mark.usefixtures("jobs")
def test_validation_error_is_not_counted_as_rejection(log_lines):
    assert get("/", key=str(KEY), method="POST", body=b"{}")[0] in {400, 415}
    assert parse_emf_line(log_lines[0]) == [("Requests", {}, 1)]


def test_metrics_do_not_leak_between_requests():
    request_context.record("LateReplies", 1)
    request_context.start()
    assert "LateReplies" not in metrics.request_fields(None)


def test_cold_start_is_counted(monkeypatch, log_lines):
    settings = {
        "JOB_QUEUE_URL": "http://q",
        "WEBHOOK_QUEUE_URL": "http://w",
        "KEYS_TABLE": "keys",
        "JOBS_TABLE": "jobs",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    api._build_components.cache_clear()
    first, second = api.components(), api.components()
    api._build_components.cache_clear()
    assert first is second
    (line,) = log_lines
    assert parse_emf_line(line) == [("ColdStarts", {}, 1)]
