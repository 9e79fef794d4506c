"""What an agent tells of itself, with a queue in memory."""

import json
import logging
import time

import pytest

from chalicelib.contract import decode_from_host
from chalicelib.telemetry import logs as api_logs
from executor_host import cloudwatch, logs, metrics
from executor_host.host_reporter import REPORTS_PER_LINE, HostReporter
from executor_host.job_queue import QueueError
from tests.support.emf import metrics_of
from tests.support.fakes.job_queue import FakeJobQueue
from tests.support.polling import eventually

RESULTS = "http://queue/results"


def formatted(fields):
    """As it stands in the agent's log."""
    record = logging.makeLogRecord({"msg": "metrics", "levelname": "INFO", "name": "n", **fields})
    return logs.formatter().format(record)


def reported_metrics(deltas, **how):
    """Every metric of the minute: its value by name, and of Jobs by status."""
    rows = [row for fields in deltas.log_fields(**how) for row in metrics_of(formatted(fields))]
    return {(name, *dimensions.values()): value for name, dimensions, value in rows}


def test_idle_minute_reports_host_up():
    metrics.DOCKER_UP.set(1)
    rows = reported_metrics(cloudwatch.MetricDeltas(namespace="PythonExec"))
    assert {name for name, *_ in rows} == {
        *cloudwatch.GAUGES, *cloudwatch.COUNTERS, "HostUp", "DockerDown",
    }  # fmt: skip
    assert (rows["HostUp",], rows["DockerDown",], rows["SandboxErrors",]) == (1, 0, 0)


def test_counter_increments_are_reported_once():
    deltas = cloudwatch.MetricDeltas(namespace="PythonExec")
    metrics.JOBS.labels("ok").inc(3)
    metrics.JOBS.labels("timeout").inc()
    metrics.SANDBOX_ERRORS.inc(2)
    rows = reported_metrics(deltas)
    assert (rows["Jobs", "ok"], rows["Jobs", "timeout"], rows["SandboxErrors",]) == (3, 1, 2)
    again = reported_metrics(deltas)
    assert "Jobs" not in {name for name, *_ in again}
    assert again["SandboxErrors",] == 0


def test_counts_before_start_are_not_reported():
    metrics.JOBS.labels("error").inc(5)
    assert ("Jobs", "error") not in reported_metrics(cloudwatch.MetricDeltas(namespace="PythonExec"))


def test_queue_wait_is_reported_in_milliseconds():
    deltas = cloudwatch.MetricDeltas(namespace="PythonExec")
    for seconds in (0.004, 0.004, 0.2, 700):
        metrics.QUEUE_WAIT_SECONDS.observe(seconds)
    waits = reported_metrics(deltas)["QueueWaitMs",]
    assert [round(wait) for wait in waits[:3]] == [3, 4, 175]
    assert 300_000 < waits[3] <= 900_000


def test_queue_waits_are_summarized_to_100_values():
    values = cloudwatch.quantiles([(0.1, 900.0), (1.0, 90.0), (float("inf"), 10.0)])
    assert len(values) == cloudwatch.MAX_VALUES
    assert values == sorted(values)
    assert (sum(value <= 0.1 for value in values), sum(value == 1.0 for value in values)) == (90, 1)


def test_docker_outage_and_shutdown_are_reported():
    metrics.DOCKER_UP.set(0)
    rows = reported_metrics(cloudwatch.MetricDeltas(namespace="PythonExec"), is_up=False)
    assert (rows["DockerDown",], rows["HostUp",]) == (1, 0)


@pytest.fixture
def queue():
    return FakeJobQueue()


@pytest.fixture
def metric_records(monkeypatch):
    """Metrics that were logged."""
    found = []

    class Lines(logging.Handler):
        def emit(self, record):
            found.append(record)

    logger, handler = logging.getLogger("executor_host.host_reporter"), Lines()
    logger.addHandler(handler)
    monkeypatch.setattr(logger, "level", logging.INFO)
    yield lambda: [record for record in found if record.getMessage() == "metrics"]
    logger.removeHandler(handler)


def test_host_reports_immediately_and_periodically(queue, metric_records):
    reporter = HostReporter(
        queue, results_queue_url=RESULTS, host="h1", metrics_namespace="PythonExec", interval_s=0.02
    )
    reporter.start()
    first, second = [decode_from_host(queue.wait_for_sent(RESULTS)) for _ in range(2)]
    eventually(lambda: len(metric_records()) >= 1, timeout_s=5)
    reporter.stop()
    assert (first.host, first.agent_version) == ("h1", "0.1.0")
    assert time.time() - 5 < first.sent_at < second.sent_at


def test_report_failure_does_not_stop_reporting(queue):
    queue.failures[f"send to {RESULTS}"] = [QueueError("down")]
    reporter = HostReporter(
        queue, results_queue_url=RESULTS, host="h1", metrics_namespace="PythonExec", interval_s=0.02
    )
    reporter.start()
    assert decode_from_host(queue.wait_for_sent(RESULTS)).host == "h1"
    reporter.stop()


def test_shutdown_reports_final_counts(queue, metric_records):
    reporter = HostReporter(queue, results_queue_url=RESULTS, host="h1", metrics_namespace="PythonExec", interval_s=60)
    reporter.start()
    queue.wait_for_sent(RESULTS)
    metrics.JOBS.labels("ok").inc(7)
    reporter.stop()
    last = [getattr(record, "Jobs", None) for record in metric_records()]
    assert 7 in last
    assert REPORTS_PER_LINE * 20 == 60


def test_api_and_agent_log_formats_match():
    record = logging.makeLogRecord({"msg": "e", "levelname": "INFO", "name": "n", "x": 1})
    ours = logs.formatter().format(record)
    api_logs.begin()
    assert json.loads(api_logs.JsonFormatter().format(record)) == json.loads(ours)
