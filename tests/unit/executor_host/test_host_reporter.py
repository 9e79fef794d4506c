"""Test host reports and the metrics in log lines, with an in-memory queue."""

import json
import logging
import time
from functools import partial

import pytest

from chalicelib.contract import IsolationState, decode_from_host
from chalicelib.telemetry import logs as api_logs
from chalicelib.telemetry import request_context
from executor_host import cloudwatch, logs, metrics
from executor_host.host_reporter import INTERVAL_S, REPORTS_PER_LOG_LINE, HostReporter
from executor_host.job_queue import QueueError
from tests.support.emf import parse_emf_line
from tests.support.fakes.job_queue import FakeJobQueue
from tests.support.polling import eventually

RESULTS = "http://queue/results"


def emf_rows(fields):
    """Return each metric of a log line with these fields: its value, by its name and dimension values."""
    record = logging.makeLogRecord({"msg": "event", "levelname": "INFO", "name": "n", **fields})
    rows = parse_emf_line(logs.formatter().format(record))
    return {(name, *dimensions.values()): value for name, dimensions, value in rows}


@pytest.fixture
def deltas():
    return cloudwatch.MetricDeltas(namespace="PythonExec")


def test_idle_minute_reports_host_up(deltas):
    metrics.DOCKER_UP.labels("python").set(1)
    rows = emf_rows(deltas.log_fields())
    assert {name for name, *_ in rows} == {
        *cloudwatch.COUNTERS, "HostUp", "DockerDown", "IsolationUnverified",
    }  # fmt: skip
    assert (rows["HostUp",], rows["DockerDown",], rows["SandboxErrors",]) == (1, 0, 0)


def test_counter_increments_are_reported_once(deltas):
    metrics.SANDBOX_ERRORS.labels("python").inc(2)
    assert emf_rows(deltas.log_fields())["SandboxErrors",] == 2
    assert emf_rows(deltas.log_fields())["SandboxErrors",] == 0


def test_counts_before_start_are_not_reported():
    metrics.SANDBOX_ERRORS.labels("python").inc(5)
    deltas = cloudwatch.MetricDeltas(namespace="PythonExec")
    assert emf_rows(deltas.log_fields())["SandboxErrors",] == 0


def test_completed_job_reports_status_and_queue_wait():
    fields = cloudwatch.job_fields("python", "ok", 175, namespace="PythonExec")
    assert emf_rows(fields) == {("Jobs", "python", "ok"): 1, ("QueueWaitMs", "python"): 175}


def test_sandboxes_are_reported_by_runtime():
    metrics.RUNNING.labels("python").set(3)
    fields = cloudwatch.runtime_fields("python", namespace="PythonExec")
    assert emf_rows(fields)["JobsRunning", "python"] == 3


def test_failed_job_reports_no_queue_wait():
    fields = cloudwatch.job_fields("python", "host-lost", None, namespace="PythonExec")
    assert emf_rows(fields) == {("Jobs", "python", "host-lost"): 1}


def test_docker_outage_and_shutdown_are_reported(deltas):
    metrics.DOCKER_UP.labels("python").set(0)
    rows = emf_rows(deltas.log_fields(is_up=False))
    assert (rows["DockerDown",], rows["HostUp",]) == (1, 0)


@pytest.mark.parametrize("has_passed", [True, False])
def test_isolation_check_is_reported(deltas, has_passed):
    metrics.ISOLATION_CHECK_PASSED.set(has_passed)
    assert emf_rows(deltas.log_fields())["IsolationUnverified",] == (not has_passed)


@pytest.fixture
def queue():
    return FakeJobQueue()


@pytest.fixture
def metric_records():
    """Return a function that returns the logged metric lines."""
    records = []

    class Lines(logging.Handler):
        def emit(self, record):
            records.append(record)

    logger, handler = logging.getLogger("executor_host.host_reporter"), Lines()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield lambda: [record for record in records if record.getMessage() == "metrics"]
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


def new_reporter(queue, *, interval_s, isolation=lambda: IsolationState.PASSED):
    return HostReporter(
        partial(queue.send, RESULTS),
        host="h1",
        runtimes=["python"],
        metrics_namespace="PythonExec",
        isolation=isolation,
        interval_s=interval_s,
    )


def test_change_of_isolation_is_reported_at_once(queue, monkeypatch):
    monkeypatch.setattr("executor_host.host_reporter.ISOLATION_POLL_INTERVAL_S", 0.01)
    states = [IsolationState.PENDING]
    reporter = new_reporter(queue, interval_s=60, isolation=lambda: states[-1])
    reporter.start()
    for state in (IsolationState.PENDING, IsolationState.PASSED, IsolationState.FAILED):
        states.append(state)
        assert decode_from_host(queue.wait_for_sent(RESULTS, timeout_s=10)).isolation is state
    reporter.stop()


def test_host_reports_immediately_and_periodically(queue, metric_records):
    reporter = new_reporter(queue, interval_s=0.02)
    reporter.start()
    first, second = [decode_from_host(queue.wait_for_sent(RESULTS)) for _ in range(2)]
    eventually(lambda: len(metric_records()) >= 1, timeout_s=5)
    reporter.stop()
    assert (first.host, first.agent_version) == ("h1", "0.1.0")
    assert time.time() - 5 < first.sent_at < second.sent_at


def test_report_failure_does_not_stop_reporting(queue):
    queue.failures[f"send to {RESULTS}"] = [QueueError("down")]
    reporter = new_reporter(queue, interval_s=0.02)
    reporter.start()
    assert decode_from_host(queue.wait_for_sent(RESULTS)).host == "h1"
    reporter.stop()


def test_shutdown_reports_final_counts(queue, metric_records):
    reporter = new_reporter(queue, interval_s=60)
    reporter.start()
    queue.wait_for_sent(RESULTS)
    metrics.SANDBOX_ERRORS.labels("python").inc(7)
    reporter.stop()
    assert [(record.SandboxErrors, record.HostUp) for record in metric_records()] == [(7, 0)]


def test_metrics_are_logged_every_minute():
    assert INTERVAL_S * REPORTS_PER_LOG_LINE == 60


def test_api_and_agent_log_formats_match():
    record = logging.makeLogRecord({"msg": "e", "levelname": "INFO", "name": "n", "x": 1})
    agent_line = logs.formatter().format(record)
    request_context.start()
    assert json.loads(api_logs.JsonFormatter().format(record)) == json.loads(agent_line)
