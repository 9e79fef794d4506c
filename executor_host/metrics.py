"""Define the agent's Prometheus metrics. A process runs one agent, so they are global."""

from collections import Counter as Tally
from collections.abc import Iterable
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from chalicelib.contract import FailureReason, RunResult, Status

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_QUEUE_WAIT_SECONDS: Final = (*_SECONDS, 60, 300, 900, 3600)  # an asynchronous job may wait for an hour

BATCH_STATUS: Final = "batch"  # of a job whose runs have a status each
NOT_RUN: Final = "not_run"
JOBS: Final = Counter("python_exec_jobs", "Completed jobs, by result status or failure reason", ["status"])
BATCH_RUNS: Final = Counter("python_exec_batch_runs", "Runs of completed batches, by status", ["status"])
RUNNING: Final = Gauge("python_exec_jobs_running", "Jobs running in a sandbox")
MALFORMED_MESSAGES: Final = Counter(
    "python_exec_malformed_messages", "Malformed messages, left for the dead-letter queue"
)
LATE_REPLIES: Final = Counter(
    "python_exec_late_replies", "Replies sent to the results queue because the caller had stopped waiting"
)
VISIBILITY_EXTENSION_FAILURES: Final = Counter(
    "python_exec_visibility_extension_failures", "Failed attempts to extend a running job's visibility timeout"
)
SANDBOX_ERRORS: Final = Counter("python_exec_sandbox_errors", "Sandboxes that failed while they ran a job")
JOB_DURATION_SECONDS: Final = Histogram(
    "python_exec_job_duration_seconds", "Time from handing a job to a sandbox to its outcome", buckets=_SECONDS
)
QUEUE_WAIT_SECONDS: Final = Histogram(
    "python_exec_queue_wait_seconds",
    "Time from submitting a job to handing it to a sandbox",
    buckets=_QUEUE_WAIT_SECONDS,
)
SANDBOX_ACQUIRE_SECONDS: Final = Histogram(
    "python_exec_sandbox_acquire_seconds", "Time a worker waited for a warm sandbox", buckets=_SECONDS
)
START_SECONDS: Final = Histogram("python_exec_sandbox_start_seconds", "Time to start a sandbox", buckets=_SECONDS)
DOCKER_UP: Final = Gauge("python_exec_docker_up", "Whether Docker could start the last sandbox")
ISOLATION_CHECK_PASSED: Final = Gauge(
    "python_exec_isolation_check_passed", "Whether the last isolation check passed, without which no jobs run"
)
WARM_SANDBOXES: Final = Gauge("python_exec_warm_sandboxes", "Warm sandboxes ready for a job")

for _status in (*Status, *FailureReason, BATCH_STATUS):
    JOBS.labels(_status)  # exports every label from the start, at zero
for _status in (*Status, NOT_RUN):
    BATCH_RUNS.labels(_status)


def count_runs(runs: Iterable[RunResult | None]) -> None:
    """Count the runs of a batch."""
    for status, count in Tally(NOT_RUN if run is None else str(run.status) for run in runs).items():
        BATCH_RUNS.labels(status).inc(count)
