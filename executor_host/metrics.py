"""What an agent tells Prometheus. One process is one agent, so these are the process's own."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from chalicelib.contract import FailureReason, Status

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_QUEUED: Final = (*_SECONDS, 60, 300, 900, 3600)  # an asynchronous job may wait so long

JOBS: Final = Counter("python_exec_jobs", "Jobs answered, by the status or failure they were answered with", ["status"])
RUNNING: Final = Gauge("python_exec_jobs_running", "Jobs that have a sandbox now")
MALFORMED_MESSAGES: Final = Counter(
    "python_exec_malformed_messages", "Messages that are no job, left for the dead-letter queue"
)
LATE_REPLIES: Final = Counter("python_exec_late_replies", "Replies to the results queue though somebody had waited")
VISIBILITY_EXTENSION_FAILURES: Final = Counter(
    "python_exec_visibility_extension_failures", "Jobs in hand whose visibility could not be prolonged"
)
SANDBOX_ERRORS: Final = Counter("python_exec_sandbox_errors", "Sandboxes that broke under a job")
JOB_DURATION_SECONDS: Final = Histogram(
    "python_exec_job_duration_seconds", "From hand-over to outcome", buckets=_SECONDS
)
QUEUE_WAIT_SECONDS: Final = Histogram("python_exec_queue_wait_seconds", "From submission to hand-over", buckets=_QUEUED)
SANDBOX_ACQUIRE_SECONDS: Final = Histogram(
    "python_exec_sandbox_acquire_seconds", "Wait for a warm sandbox", buckets=_SECONDS
)
START_SECONDS: Final = Histogram("python_exec_sandbox_start_seconds", "Start of a sandbox", buckets=_SECONDS)
DOCKER_UP: Final = Gauge("python_exec_docker_up", "Whether Docker started a sandbox when it was last asked to")
WARM_SANDBOXES: Final = Gauge("python_exec_warm_sandboxes", "Warm sandboxes that nobody has taken")

for _status in (*Status, *FailureReason):
    JOBS.labels(_status)  # each is there from the start, at zero
