"""Run the program of a job in a sandbox, or in another one if that fails, and return the reply."""

import logging
import time
from contextlib import ExitStack
from threading import Event
from typing import Final

import msgspec
from msgspec import structs

from chalicelib.contract import (
    MAX_BATCH_S,
    SINGLE_RUN_LIMITS,
    BatchResult,
    Failure,
    FailureReason,
    Job,
    OutputLimits,
    Reply,
    ResourceUsage,
    Result,
    Run,
    RunResult,
    Status,
    batch_output_limits,
)
from executor_host import metrics
from executor_host.channel import SandboxError
from executor_host.core_scheduler import CoreScheduler
from executor_host.outcome import Outcome
from executor_host.pool import NoSandboxError, Pool
from executor_host.sandbox import Program, Sandbox

MAX_SANDBOX_ATTEMPTS: Final = 3
LAST_ATTEMPT_DELAY_S: Final = 1.0  # what broke two sandboxes, such as a restart of Docker, may be breaking them all
SANDBOX_ACQUIRE_TIMEOUT_S: Final = 10.0  # longer than a restart of Docker; afterwards another host may run the job
ACQUIRE_POLL_S: Final = 1.0  # how soon a worker without a sandbox notices that the agent is stopping

logger = logging.getLogger(__name__)


class BatchInterruptedError(Exception):
    """The agent is stopping and the runs of a batch have not ended; another host may run it."""


class JobRunner:
    """Run jobs. Any thread may call `run`."""

    def __init__(self, pool: Pool, scheduler: CoreScheduler, *, stopping: Event) -> None:
        """Take replacements from `pool`; once `stopping` is set, start no further run of a batch."""
        self.scheduler = scheduler
        self.runtime = pool.runtime.name
        self.stopping = stopping
        self._pool = pool

    def run(self, job: Job, sandbox: Sandbox, *, key: str | None = None) -> Reply:
        """Run a job of a customer's key and return its reply.

        Raises NoSandboxError if its sandbox failed and no other one is available, or BatchInterruptedError.
        """
        running, duration = metrics.RUNNING.labels(self.runtime), metrics.JOB_DURATION_SECONDS.labels(self.runtime)
        with ExitStack() as replacements, running.track_inprogress():
            execution = _Execution(job, sandbox, replacements, self, key)
            with duration.time():
                reply = self._run_batch(job, execution) if job.runs else _run_single(job, execution)
        if not isinstance(reply, Failure):
            metrics.QUEUE_WAIT_SECONDS.labels(self.runtime).observe(execution.queued_s)
        return reply

    def _run_batch(self, job: Job, execution: "_Execution") -> Reply:
        limits = batch_output_limits(len(job.runs))
        results: list[RunResult | None] = []
        ends_at = time.monotonic() + MAX_BATCH_S
        for number, run in enumerate(job.runs, start=1):
            if time.monotonic() - execution.waited_s + job.timeout_s > ends_at:
                break
            if results and self.stopping.is_set():
                raise BatchInterruptedError
            outcome = execution.run(run, limits=limits, is_last=number == len(job.runs))
            if outcome is FailureReason.START_TIMEOUT:
                return Failure(id=job.id, reason=outcome)
            if isinstance(outcome, FailureReason):
                result = None
            else:
                result = msgspec.convert(outcome, RunResult, from_attributes=True)
            results.append(result)
            if job.stop_on_failure and (result is None or result.status is not Status.OK):
                break
        if not any(results):
            return Failure(id=job.id, reason=FailureReason.SANDBOX_ERROR)
        results += [None] * (len(job.runs) - len(results))
        return BatchResult(
            id=job.id,
            runs=tuple(results),
            queued_ms=execution.queued_ms,
            runtime=job.runtime,
            python_version=execution.sandbox.python_version,
        )

    def acquire_replacement(self, job: Job, replacements: ExitStack) -> Sandbox:
        """Return another sandbox. Raises NoSandboxError."""
        deadline = time.monotonic() + SANDBOX_ACQUIRE_TIMEOUT_S
        while True:
            try:
                return replacements.enter_context(self._pool.acquire(ACQUIRE_POLL_S))
            except NoSandboxError:
                is_late = time.monotonic() >= deadline or time.time() >= job.start_deadline
                if is_late or self.stopping.is_set():
                    raise


class _Execution:
    """The runs of one job, in a sandbox that is replaced when it fails."""

    def __init__(self, job: Job, sandbox: Sandbox, replacements: ExitStack, runner: JobRunner, key: str | None) -> None:
        self.sandbox = sandbox
        self.queued_s = 0.0
        self.waited_s = 0.0  # for a core, before all runs
        self._job, self._replacements, self._runner, self._key = job, replacements, runner, key
        artifacts = job.artifacts if job.runs else (*job.artifacts, *sandbox.runtime.artifacts)
        self._program = Program(code=job.code, files=job.files, artifacts=artifacts)
        self._has_started = False

    @property
    def queued_ms(self) -> int:
        """Return how long the job waited for its first run."""
        return round(self.queued_s * 1000)

    def run(self, run: Run, *, limits: OutputLimits, is_last: bool) -> Outcome | FailureReason:
        """Run the program once, again if a sandbox fails. Raises NoSandboxError."""
        job = self._job
        for attempt in range(MAX_SANDBOX_ATTEMPTS):
            if attempt == MAX_SANDBOX_ATTEMPTS - 1:
                self._runner.stopping.wait(LAST_ATTEMPT_DELAY_S)
            if attempt > 0 or self.sandbox.is_closed:
                self.sandbox = self._runner.acquire_replacement(job, self._replacements)
            asked_at = time.monotonic()
            with self._runner.scheduler.core(self.sandbox, key=self._key, yields=bool(job.runs)):
                self.waited_s += time.monotonic() - asked_at
                if not self._has_started:
                    now = time.time()
                    if now >= job.start_deadline:
                        return FailureReason.START_TIMEOUT
                    self.queued_s = max(0.0, now - job.submitted_at)
                try:
                    outcome = self.sandbox.run_next(
                        self._program, run, timeout_s=job.timeout_s, limits=limits, is_last=is_last
                    )
                except SandboxError:
                    metrics.SANDBOX_ERRORS.labels(self._runner.runtime).inc()
                    logger.warning("sandbox_failed", extra={"job_id": job.id}, exc_info=True)
                else:
                    self._has_started = True
                    return outcome
        return FailureReason.SANDBOX_ERROR


def _run_single(job: Job, execution: _Execution) -> Reply:
    run = Run(input=job.input, args=job.args)
    outcome = execution.run(run, limits=SINGLE_RUN_LIMITS, is_last=True)
    if isinstance(outcome, FailureReason):
        return Failure(id=job.id, reason=outcome)
    usage = ResourceUsage(**structs.asdict(outcome.usage), queued_ms=execution.queued_ms)
    return Result(
        id=job.id,
        runtime=job.runtime,
        python_version=execution.sandbox.python_version,
        **(structs.asdict(outcome) | {"usage": usage}),
    )
