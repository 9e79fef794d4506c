"""Takes jobs from the queue, each with a warm sandbox already in hand: receive, run, reply, and only then delete.

A program has no side effects, so a job that is delivered twice is just run twice; nothing here locks or claims.
"""

import logging
import time
from collections.abc import Callable
from threading import Event, Thread
from typing import Final, Protocol

from chalicelib.contract import (
    ContractError,
    Failure,
    FailureReason,
    Job,
    Reply,
    ResourceUsage,
    Result,
    decode_job,
    encode,
)
from executor_host import metrics
from executor_host.channel import SandboxError
from executor_host.job_queue import JobQueue, NoSuchQueueError, QueueError, ReceivedMessage
from executor_host.pool import WarmSandbox
from executor_host.sandbox import Outcome
from executor_host.visibility import VisibilityExtender

MAX_SANDBOX_ATTEMPTS: Final = 3  # that may break under it before its sender is told so
SANDBOX_ACQUIRE_TIMEOUT_S: Final = (
    10.0  # when one broke: above a restart of Docker; without it, another host may have the job
)
ACQUIRE_POLL_S: Final = 1.0  # how long a worker without a sandbox takes to see that the agent stops
QUEUE_RETRY_DELAY_S: Final = 1.0  # between attempts to reach a queue service that is gone
REPLY_ATTEMPTS: Final = 4  # a queue that was just made may be unknown for a second
REPLY_RETRY_DELAY_S: Final = 0.5
REPLY_SEND_TIMEOUT_S: Final = (
    30.0  # a result is worth the wait for a queue service that is gone; then the job runs again
)

logger = logging.getLogger(__name__)


class SandboxPool(Protocol):
    """What the agent needs of pool.Pool."""

    def acquire(self, timeout_s: float) -> WarmSandbox | None:
        """A sandbox for one job, None when there is none in time."""

    def release(self, sandbox: WarmSandbox) -> None:
        """Forget a taken sandbox."""


class Agent:
    """Runs up to `workers` jobs at once."""

    def __init__(
        self,
        queue: JobQueue,
        *,
        pool: SandboxPool,
        visibility: VisibilityExtender,
        results_queue_url: str,
        workers: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`clock` gives seconds since the epoch, as the times in a job."""
        self._queue = queue
        self._pool = pool
        self._visibility = visibility
        self._results_queue_url = results_queue_url
        self._clock = clock
        self._stopping = Event()
        self._workers = [
            Thread(target=self._worker_loop, name=f"worker-{number}", daemon=True) for number in range(workers)
        ]

    def start(self) -> None:
        """Begin to take jobs."""
        self._visibility.start()
        for worker in self._workers:
            worker.start()

    def stop(self, timeout_s: float) -> bool:
        """Take no more jobs and wait for those that run; whether all were done in time."""
        self._stopping.set()
        deadline = time.monotonic() + timeout_s
        for worker in self._workers:
            worker.join(max(0.0, deadline - time.monotonic()))
        self._visibility.stop()
        return not any(worker.is_alive() for worker in self._workers)

    def _worker_loop(self) -> None:
        sandbox: WarmSandbox | None = None
        while not self._stopping.is_set():
            try:
                if sandbox is not None and not sandbox.is_ready():
                    self._discard(sandbox)
                    sandbox = None
                sandbox = sandbox or self._pool.acquire(ACQUIRE_POLL_S)
                message = self._queue.receive() if sandbox is not None else None
                if sandbox is None or message is None:
                    continue
                # Also when the agent stops meanwhile: given back, it would come to the next poll under way here.
                held, sandbox = sandbox, None
                with self._visibility.extending(message):
                    sandbox = self._process(message, held)
            except QueueError:
                logger.warning("queue_unreachable", exc_info=True)
                self._stopping.wait(QUEUE_RETRY_DELAY_S)
            except Exception:  # a bug of ours must cost one job's attempt, not a worker
                logger.exception("job_processing_failed")
        if sandbox is not None:
            self._discard(sandbox)

    def _discard(self, sandbox: WarmSandbox) -> None:
        sandbox.destroy()
        self._pool.release(sandbox)

    def _process(self, message: ReceivedMessage, sandbox: WarmSandbox) -> WarmSandbox | None:
        """The sandbox if it was not needed."""
        try:
            job = decode_job(message.body)
        except ContractError:  # perhaps one of a version that another host knows
            metrics.MALFORMED_MESSAGES.inc()
            logger.warning("malformed_message", exc_info=True)
            return sandbox
        unused: WarmSandbox | None = None
        reply: Reply | None
        if self._clock() >= job.expires_at:
            unused, reply = sandbox, Failure(id=job.id, reason=FailureReason.START_TIMEOUT)
        else:
            reply = self._run(job, sandbox)
        try:
            if reply is None:
                self._queue.release(message)
                logger.info("job_released", extra={"job_id": job.id})
                return None
            self._send_reply(job, reply, message_group_id=message.message_group_id)
            self._queue.delete(message)
        except BaseException:
            if unused is not None:
                self._discard(unused)
            raise
        status = reply.status if isinstance(reply, Result) else reply.reason
        metrics.JOBS.labels(status).inc()
        logger.info("job_completed", extra={"job_id": job.id, "status": status})
        return unused

    def _run(self, job: Job, sandbox: WarmSandbox | None) -> Reply | None:
        """None if the agent stops, or SANDBOX_ACQUIRE_TIMEOUT_S pass, without a sandbox to go on with."""
        for _ in range(MAX_SANDBOX_ATTEMPTS):
            acquire_deadline = time.monotonic() + SANDBOX_ACQUIRE_TIMEOUT_S
            while sandbox is None:
                if self._clock() >= job.expires_at:
                    return Failure(id=job.id, reason=FailureReason.START_TIMEOUT)
                if self._stopping.is_set() or time.monotonic() >= acquire_deadline:
                    return None
                sandbox = self._pool.acquire(ACQUIRE_POLL_S)
            queued_s = max(0.0, self._clock() - job.submitted_at)
            try:
                with metrics.RUNNING.track_inprogress(), metrics.JOB_DURATION_SECONDS.time():
                    outcome = sandbox.run(job.code, job.input, timeout_s=job.timeout_s)
            except SandboxError:
                metrics.SANDBOX_ERRORS.inc()
                logger.warning("sandbox_failed", extra={"job_id": job.id}, exc_info=True)
            else:
                metrics.QUEUE_WAIT_SECONDS.observe(queued_s)
                return build_result(job, outcome, queued_s=queued_s, runtime=sandbox.runtime)
            finally:
                self._pool.release(sandbox)
            sandbox = None
        return Failure(id=job.id, reason=FailureReason.SANDBOX_ERROR)

    def _send_reply(self, job: Job, reply: Reply, *, message_group_id: str | None) -> None:
        """To who waits, else to the results queue. Raises QueueError when no queue can be reached, so the job stays."""
        body = encode(reply)
        until = time.monotonic() + REPLY_SEND_TIMEOUT_S
        missing_queue_errors = 0
        while True:
            is_late = missing_queue_errors == REPLY_ATTEMPTS or self._clock() > job.reply_by
            try:
                if job.reply_to is not None and not is_late:
                    return self._queue.send(job.reply_to, body)
                self._queue.send(self._results_queue_url, body, message_group_id=message_group_id)
            except NoSuchQueueError:
                if is_late or job.reply_to is None or time.monotonic() >= until:
                    raise
                missing_queue_errors += 1
                time.sleep(REPLY_RETRY_DELAY_S)
            except QueueError:
                if time.monotonic() >= until:
                    raise
                time.sleep(QUEUE_RETRY_DELAY_S)
            else:
                metrics.LATE_REPLIES.inc(job.reply_to is not None)
                return None


def build_result(job: Job, outcome: Outcome, *, queued_s: float, runtime: str) -> Result:
    """What the customer gets for a job that ran."""
    return Result(
        id=job.id,
        status=outcome.status,
        exit_code=outcome.exit_code,
        signal=outcome.signal,
        stdout=outcome.stdout,
        stderr=outcome.stderr,
        truncated=outcome.truncated,
        error=outcome.error,
        usage=ResourceUsage(
            duration_ms=outcome.duration_ms,
            cpu_ms=outcome.cpu_ms,
            memory_bytes=outcome.memory_bytes,
            queued_ms=round(queued_s * 1000),
        ),
        runtime=runtime,
    )
