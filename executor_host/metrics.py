"""Define the agent's Prometheus metrics. A process runs one agent, so they are global."""

from collections import Counter as Tally
from collections.abc import Iterable
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from chalicelib.contract import FailureReason, RunResult, Status

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_QUEUE_WAIT_SECONDS: Final = (*_SECONDS, 60, 300, 900, 3600)  # an asynchronous job may wait for an hour

_RUNTIME: Final = ("runtime",)

BATCH_STATUS: Final = "batch"  # of a job whose runs have a status each
NOT_RUN: Final = "not_run"
JOBS: Final = Counter(
    "python_exec_jobs", "Completed jobs, by runtime and by result status or failure reason", ("runtime", "status")
)
BATCH_RUNS: Final = Counter(
    "python_exec_batch_runs", "Runs of completed batches, by runtime and status", ("runtime", "status")
)
RUNNING: Final = Gauge("python_exec_jobs_running", "Jobs running in a sandbox", _RUNTIME)
MALFORMED_MESSAGES: Final = Counter(
    "python_exec_malformed_messages", "Malformed messages, left for the dead-letter queue"
)
LATE_REPLIES: Final = Counter(
    "python_exec_late_replies", "Replies sent to the results queue because the caller had stopped waiting"
)
VISIBILITY_EXTENSION_FAILURES: Final = Counter(
    "python_exec_visibility_extension_failures", "Failed attempts to extend a running job's visibility timeout"
)
SANDBOX_ERRORS: Final = Counter("python_exec_sandbox_errors", "Sandboxes that failed while they ran a job", _RUNTIME)
PAYLOAD_ERRORS: Final = Counter(
    "python_exec_payload_errors", "Failed requests to the payload store, which are repeated"
)
JOB_DURATION_SECONDS: Final = Histogram(
    "python_exec_job_duration_seconds",
    "Time from handing a job to a sandbox to its outcome",
    _RUNTIME,
    buckets=_SECONDS,
)
QUEUE_WAIT_SECONDS: Final = Histogram(
    "python_exec_queue_wait_seconds",
    "Time from submitting a job to handing it to a sandbox",
    _RUNTIME,
    buckets=_QUEUE_WAIT_SECONDS,
)
SANDBOX_ACQUIRE_SECONDS: Final = Histogram(
    "python_exec_sandbox_acquire_seconds", "Time a worker waited for a warm sandbox", _RUNTIME, buckets=_SECONDS
)
START_SECONDS: Final = Histogram(
    "python_exec_sandbox_start_seconds", "Time to start a sandbox", _RUNTIME, buckets=_SECONDS
)
DOCKER_UP: Final = Gauge("python_exec_docker_up", "Whether Docker could start the last sandbox", _RUNTIME)
ISOLATION_CHECK_PASSED: Final = Gauge(
    "python_exec_isolation_check_passed", "Whether the last isolation check passed, without which no jobs run"
)
WARM_SANDBOXES: Final = Gauge("python_exec_warm_sandboxes", "Warm sandboxes ready for a job", _RUNTIME)


def export(runtime: str) -> None:
    """Export the metrics of a runtime from the start, at zero, until its pool and its workers have values for them."""
    for status in (*Status, *FailureReason, BATCH_STATUS):
        JOBS.labels(runtime, status)
    for status in (*Status, NOT_RUN):
        BATCH_RUNS.labels(runtime, status)
    for metric in (RUNNING, SANDBOX_ERRORS, DOCKER_UP, WARM_SANDBOXES):
        metric.labels(runtime)


def count_runs(runtime: str, runs: Iterable[RunResult | None]) -> None:
    """Count the runs of a batch."""
    for status, count in Tally(NOT_RUN if run is None else str(run.status) for run in runs).items():
        BATCH_RUNS.labels(runtime, status).inc(count)
