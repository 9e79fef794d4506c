"""Run the jobs of a runtime: acquire a warm sandbox, receive a job, run it, reply, and only then delete the job.

A program has no effects outside its sandbox, so running a redelivered job twice is harmless and needs no lock.
"""

import logging
import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from threading import Event, Semaphore, Thread
from typing import Final, TypeVar

from chalicelib.contract import (
    BatchResult,
    ContractError,
    Failure,
    FailureReason,
    Job,
    JobMessage,
    Reply,
    ReplyReference,
    Result,
    decode_job,
    encode,
    encode_or_pack,
    unpack_job,
)
from executor_host import cloudwatch, metrics
from executor_host.core_scheduler import CoreScheduler
from executor_host.job_queue import JobQueue, NoSuchQueueError, QueueError, ReceivedMessage
from executor_host.job_runner import ACQUIRE_POLL_S, BatchInterruptedError, JobRunner
from executor_host.payloads import PayloadClient, PayloadError, PayloadRejectedError
from executor_host.poll_pacer import RECEIVE_WAIT_S, PollPacer
from executor_host.pool import NoSandboxError, Pool
from executor_host.sandbox import Sandbox
from executor_host.visibility import VisibilityExtender

RETRY_DELAY_S: Final = 1.0  # after an error of a queue or of the payload store
REPLY_ATTEMPTS: Final = 4  # SQS may not know a new queue for the first second
REPLY_RETRY_DELAY_S: Final = 0.5
REPLY_SEND_TIMEOUT_S: Final = 30.0  # then the job is redelivered and runs again
FETCH_TIMEOUT_S: Final = 30.0  # then the job is released
PAYLOAD_PAUSE_S: Final = 120  # before a released job is received again: three attempts outlast an outage of 5 minutes

_T = TypeVar("_T")
logger = logging.getLogger(__name__)


class Agent:
    """Run up to `workers` jobs of the pool's runtime at once, and receive them only while `isolation_passed` is set.

    Only as many workers as the pool has warm sandboxes wait for a job at once, and only while `scheduler` has room.
    """

    def __init__(
        self,
        queue: JobQueue,
        *,
        pool: Pool,
        payloads: PayloadClient,
        isolation_passed: Event,
        visibility: VisibilityExtender,
        results_queue_url: str,
        workers: int,
        metrics_namespace: str,
        scheduler: CoreScheduler,
    ) -> None:
        self._queue = queue
        self._pool = pool
        self._runtime = pool.runtime.name
        self._payloads = payloads
        self._isolation_passed = isolation_passed
        self._visibility = visibility
        self._results_queue_url = results_queue_url
        self._metrics_namespace = metrics_namespace
        self._stopping = Event()
        self._scheduler = scheduler
        self._poll_turns = Semaphore(pool.size)
        self._pacer = PollPacer(queue, stopping=self._stopping)
        self._release_from = math.inf  # a time of the monotonic clock
        self._runner = JobRunner(pool, scheduler, stopping=self._stopping)
        self._workers = [
            Thread(target=self._worker_loop, name=f"{self._runtime}-worker-{number}", daemon=True)
            for number in range(workers)
        ]

    def start(self) -> None:
        """Start receiving jobs."""
        self._visibility.start()
        for worker in self._workers:
            worker.start()

    def stop(self, timeout_s: float) -> bool:
        """Receive no more jobs and wait for running ones. Return whether all of them finished in time."""
        self._release_from = time.monotonic() + RECEIVE_WAIT_S
        self._stopping.set()
        deadline = time.monotonic() + timeout_s
        for worker in self._workers:
            worker.join(max(0.0, deadline - time.monotonic()))
        self._visibility.stop()
        return not any(worker.is_alive() for worker in self._workers)

    def _worker_loop(self) -> None:
        while not self._stopping.is_set():
            if not self._isolation_passed.wait(ACQUIRE_POLL_S):
                continue
            if not self._poll_turns.acquire(timeout=ACQUIRE_POLL_S):
                continue
            with ExitStack() as turn:
                turn.callback(self._poll_turns.release)
                try:
                    with self._pool.acquire(ACQUIRE_POLL_S) as sandbox:
                        while (message := self._next_message(sandbox)) is not None:
                            turn.close()  # another worker waits for the next job
                            self._handle(message, sandbox)
                except NoSandboxError:
                    continue
                except QueueError as error:
                    self._pause_after(error)
                except PayloadError:
                    logger.warning("reply_upload_failed", exc_info=True)
                except Exception:  # a bug must cost one attempt at a job, not a worker
                    logger.exception("job_processing_failed")

    def _next_message(self, sandbox: Sandbox) -> ReceivedMessage | None:
        """Wait for a message. Return None if the sandbox has died or no messages may be received anymore."""
        while sandbox.is_ready() and self._isolation_passed.is_set() and not self._stopping.is_set():
            if not self._scheduler.wait_for_room(self._pool.runtime.memory_bytes, ACQUIRE_POLL_S):
                continue
            try:
                message = self._pacer.receive(ACQUIRE_POLL_S)
            except QueueError as error:
                self._pause_after(error)
                continue
            if message is not None:
                return message
        return None

    def _handle(self, message: ReceivedMessage, sandbox: Sandbox) -> None:
        # A received job runs even if the agent is stopping: once released, it would reach another poll of this agent.
        # Only the poll of an idle host is open for longer, and alone. Its job might not end in time.
        if not self._isolation_passed.is_set() or time.monotonic() > self._release_from:
            self._queue.release(message)
            return
        with self._visibility.extending(message):
            self._process(message, sandbox)

    def _pause_after(self, error: QueueError) -> None:
        logger.warning("queue_unreachable", exc_info=error)
        self._stopping.wait(RETRY_DELAY_S)

    def _process(self, message: ReceivedMessage, sandbox: Sandbox) -> None:
        try:
            job = decode_job(message.body)
            if job.runtime != self._runtime:
                raise ContractError(f"a job for {job.runtime}")  # noqa: TRY301 - handled like any malformed one
            reply = self._runner.run(self._fetch(job), sandbox, key=message.message_group_id)
        except ContractError:  # possibly a newer version that another host can read
            metrics.MALFORMED_MESSAGES.inc()
            logger.warning("malformed_message", exc_info=True)
            return
        except PayloadRejectedError:
            logger.warning("job_payload_lost", extra={"job_id": job.id}, exc_info=True)
            reply = Failure(id=job.id, reason=FailureReason.PAYLOAD_LOST)
        except (NoSandboxError, BatchInterruptedError, PayloadError) as error:
            if isinstance(error, BatchInterruptedError) or time.time() < job.start_deadline:
                self._queue.release(message, pause_s=PAYLOAD_PAUSE_S if isinstance(error, PayloadError) else 0)
                logger.info("job_released", extra={"job_id": job.id})
                return
            reply = Failure(id=job.id, reason=FailureReason.START_TIMEOUT)
        self._send_reply(job, reply, message_group_id=message.message_group_id)
        self._queue.delete(message)
        self._record_completion(reply)

    def _fetch(self, job: JobMessage) -> Job:
        """Return a job, from the payload store if it is a reference. Raises PayloadError, or ContractError."""
        if isinstance(job, Job):
            return job
        deadline = time.monotonic() + min(FETCH_TIMEOUT_S, job.start_deadline - time.time())
        fetched = unpack_job(_repeat(partial(self._payloads.get, job.url), deadline, stops=self._stopping.is_set))
        if fetched.id != job.id:
            raise ContractError("the payload of another job")
        return fetched

    def _record_completion(self, reply: Reply) -> None:
        if isinstance(reply, Result):
            status, queue_wait_ms = str(reply.status), reply.usage.queued_ms
        elif isinstance(reply, BatchResult):
            status, queue_wait_ms = metrics.BATCH_STATUS, reply.queued_ms
            metrics.count_runs(self._runtime, reply.runs)
        else:
            status, queue_wait_ms = str(reply.reason), None
        metrics.JOBS.labels(self._runtime, status).inc()
        fields = cloudwatch.job_fields(self._runtime, status, queue_wait_ms, namespace=self._metrics_namespace)
        logger.info("job_completed", extra={"job_id": reply.id, "status": status, **fields})

    def _send_reply(self, job: JobMessage, reply: Reply, *, message_group_id: str | None) -> None:
        """Reply to the caller, or to the results queue if it no longer waits.

        Raises QueueError or PayloadError. The job then stays in its queue.
        """
        body = encode_or_pack(reply)
        deadline = time.monotonic() + REPLY_SEND_TIMEOUT_S
        if isinstance(body, bytes):
            _repeat(partial(self._payloads.put, job.reply_upload_url, body), deadline)
            body = encode(ReplyReference(id=job.id))
        if job.reply_to is not None and self._reply_to_caller(job.reply_to, body, job.reply_by, deadline):
            return
        _repeat(partial(self._queue.send, self._results_queue_url, body, message_group_id=message_group_id), deadline)
        if job.reply_to is not None:
            metrics.LATE_REPLIES.inc()

    def _reply_to_caller(self, queue_url: str, body: str, reply_by: float, deadline: float) -> bool:
        """Return whether the reply was sent by `reply_by` and to an existing queue."""
        missing_queue_errors = 0
        while missing_queue_errors < REPLY_ATTEMPTS and time.time() <= reply_by:
            try:
                self._queue.send(queue_url, body)
            except NoSuchQueueError as error:
                missing_queue_errors += 1
                _wait_to_retry(error, deadline, REPLY_RETRY_DELAY_S)
            except QueueError as error:
                _wait_to_retry(error, deadline, RETRY_DELAY_S)
            else:
                return True
        return False


def _repeat(request: Callable[[], _T], deadline: float, *, stops: Callable[[], bool] = lambda: False) -> _T:
    """Repeat a request to the payload store or to a queue until it succeeds.

    Raises its QueueError or PayloadError at the deadline, if `stops()`, or if a retry is useless.
    """
    while True:
        try:
            return request()
        except (PayloadRejectedError, NoSuchQueueError):
            raise
        except (PayloadError, QueueError) as error:
            if isinstance(error, PayloadError):
                metrics.PAYLOAD_ERRORS.inc()
            if stops():
                raise
            _wait_to_retry(error, deadline, RETRY_DELAY_S)


def _wait_to_retry(error: Exception, deadline: float, delay_s: float) -> None:
    """Sleep before another attempt, or raise `error` once the deadline has passed."""
    if time.monotonic() >= deadline:
        raise error
    time.sleep(delay_s)
