"""Metrics in the log lines of requests and processes."""

import app as api
import pytest

from chalicelib.telemetry import metrics, request_context
from tests.support.api_requests import send
from tests.support.emf import parse_emf_line


@pytest.mark.usefixtures("jobs")
def test_request_log_line_includes_metrics(log_lines):
    send(method="GET", path="/usage", body="")
    assert parse_emf_line(log_lines[0]) == [("Requests", {}, 1)]


@pytest.mark.usefixtures("jobs")
def test_rejection_is_counted_by_reason_and_in_total(log_lines):
    send(method="GET", path="/usage", body="", key="pk_x")
    assert parse_emf_line(log_lines[0]) == [
        ("Requests", {}, 1),
        ("RejectedRequests", {}, 1),
        ("RejectedRequests", {"Reason": "unauthorized"}, 1),
    ]


@pytest.mark.usefixtures("jobs")
def test_validation_error_is_not_counted_as_rejection(log_lines):
    assert send(body="{}")[0] == 400
    assert parse_emf_line(log_lines[0]) == [("Requests", {}, 1)]


def test_metrics_do_not_leak_between_requests():
    request_context.record("LateReplies", 1)
    request_context.start()
    assert "LateReplies" not in metrics.request_fields(None)


def test_cold_start_is_counted(monkeypatch, log_lines):
    settings = {
        "JOB_QUEUE_URL": "http://q",
        "DATA_JOB_QUEUE_URL": "http://q",
        "WEBHOOK_QUEUE_URL": "http://w",
        "KEYS_TABLE": "keys",
        "JOBS_TABLE": "jobs",
        "PAYLOAD_STORE_URL": "https://payloads.test",
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
