"""How customers see the result of a batch."""

from typing import Any, Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from chalicelib.contract import (
    BatchResult,
    OutputBytes,
    ResourceUsage,
    RunUsage,
    Truncated,
    UncaughtException,
)
from chalicelib.jobs.expectations import Expectations
from chalicelib.jobs.response_size import MAX_BODY_BYTES, escaped_bytes, fit_streams

FINISHED: Final = "finished"  # `status` of a batch, whose runs have a status each
NOT_RUN: Final = "not_run"  # `status` of a run that did not take place


class RunView(Struct, frozen=True, kw_only=True):
    """One item of `runs`."""

    status: str
    passed: bool | None = None  # None without expected_output, or if it is not known
    exit_code: int | None = None
    signal: str | None = None
    stdout: str = ""
    stderr: str = ""
    truncated: Truncated = Truncated()
    output_bytes: OutputBytes = OutputBytes(stdout=0, stderr=0)
    error: UncaughtException | None = None
    usage: RunUsage = RunUsage(duration_ms=0, cpu_ms=0, memory_bytes=0)


class BatchView(Struct, frozen=True, kw_only=True):
    """The body of the response to `POST /batch`."""

    id: str
    status: str = FINISHED
    passed: int
    failed: int
    not_run: int
    runs: tuple[RunView, ...]
    usage: ResourceUsage
    runtime: str
    python_version: str


def batch_body(result: BatchResult, expectations: Expectations | None) -> dict[str, Any]:
    """Return the result of a batch, each run with its verdict."""
    expected = expectations or Expectations(digests=(None,) * len(result.runs))
    runs: list[RunView] = []
    failed = 0
    for number, run in enumerate(result.runs):
        if run is None or (failed and expected.stop_on_failure):
            runs.append(RunView(status=NOT_RUN))
        else:
            failed += expected.has_failed(number, run)
            runs.append(RunView(passed=expected.passed(number, run), **msgspec.structs.asdict(run)))
    view = BatchView(
        id=result.id,
        passed=sum(run.passed is True for run in runs),
        failed=failed,
        not_run=sum(run.status == NOT_RUN for run in runs),
        runs=tuple(runs),
        usage=_total_usage(runs, queued_ms=result.queued_ms),
        runtime=result.runtime,
        python_version=result.python_version,
    )
    return msgspec.structs.asdict(_fit(view))


def _fit(view: BatchView) -> BatchView:
    """Cut the longest streams if all runs together do not fit into a response."""
    without_streams = replace(view, runs=tuple(replace(run, stdout="", stderr="") for run in view.runs))
    room = MAX_BODY_BYTES - escaped_bytes(without_streams)
    streams = fit_streams([(run.stdout, run.stderr) for run in view.runs], room)
    return replace(view, runs=tuple(map(_with_streams, view.runs, streams)))


def _with_streams(run: RunView, streams: tuple[str, str]) -> RunView:
    stdout, stderr = streams
    truncated = Truncated(
        stdout=run.truncated.stdout or len(stdout) < len(run.stdout),
        stderr=run.truncated.stderr or len(stderr) < len(run.stderr),
    )
    return replace(run, stdout=stdout, stderr=stderr, truncated=truncated)


def _total_usage(runs: list[RunView], *, queued_ms: int) -> ResourceUsage:
    return ResourceUsage(
        duration_ms=sum(run.usage.duration_ms for run in runs),
        cpu_ms=sum(run.usage.cpu_ms for run in runs),
        memory_bytes=max(run.usage.memory_bytes for run in runs),
        queued_ms=queued_ms,
    )
