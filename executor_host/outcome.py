"""Turn what a supervisor has sent into the outcome of a run."""

import codecs
import signal
import struct
from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from chalicelib.contract import (
    Artifact,
    OmittedArtifact,
    OutputBytes,
    OutputLimits,
    RunUsage,
    Status,
    Truncated,
    UncaughtException,
)
from executor_host.channel import SandboxError
from executor_host.job_files import SEARCH_ENDED, decode_artifacts, decode_omissions
from executor_host.supervisor.protocol import (
    ARTIFACTS,
    EXITED,
    OMISSIONS,
    OUTPUT_LIMIT_EXCEEDED,
    REPORT_RECORD,
    SIGNALLED,
    STDERR,
    STDERR_TAIL,
    STDOUT,
    TIMED_OUT,
    USAGE,
    USAGE_RECORD,
)
from executor_host.traceback_parser import parse_uncaught_exception

_CONTINUATION_BYTES: Final = bytes(range(0x80, 0xC0))  # of UTF-8

Output = dict[bytes, bytearray]  # received payloads, by kind of frame


class Outcome(Struct, frozen=True, kw_only=True):
    """How a program ended and what it wrote. The members are those of contract.Result and contract.RunResult."""

    status: Status
    exit_code: int | None = None
    signal: str | None = None
    stdout: str
    stderr: str
    truncated: Truncated = Truncated()
    output_bytes: OutputBytes
    error: UncaughtException | None = None
    artifacts: tuple[Artifact, ...] = ()
    artifacts_omitted: tuple[OmittedArtifact, ...] = ()
    usage: RunUsage


def outcome_from_report(report: bytes, output: Output, limits: OutputLimits) -> Outcome:
    """Return the outcome that the supervisor reported. Raises SandboxError for an invalid report."""
    try:
        exit_kind, exit_value, oom, duration_ms, cpu_ms, memory_bytes, *written = REPORT_RECORD.unpack(report)
    except struct.error as error:
        raise SandboxError("the report has the wrong length") from error
    status, exit_code, killed_by = _status(exit_kind, exit_value, oom=oom)
    stdout, stderr = output[STDOUT], output[STDERR] + output[STDERR_TAIL]
    truncated = Truncated(
        stdout=written[0] > len(stdout),
        stderr=written[1] > min(len(stderr), limits.stderr_head_bytes + limits.stderr_tail_bytes),
    )
    # Python exits with 1 after an uncaught exception, or with 120 if it cannot flush its output either.
    may_end_in_traceback = exit_code in {1, 120} or status is Status.TIMEOUT
    return Outcome(
        status=status,
        exit_code=exit_code,
        signal=killed_by,
        stdout=_decode(stdout, is_cut=truncated.stdout),
        stderr=_decode_stderr(stderr, limits),
        truncated=truncated,
        output_bytes=OutputBytes(stdout=written[0], stderr=written[1]),
        error=parse_uncaught_exception(stderr.decode(errors="replace")) if may_end_in_traceback else None,
        artifacts=decode_artifacts(output[ARTIFACTS]),
        artifacts_omitted=decode_omissions(output[OMISSIONS]),
        usage=RunUsage(duration_ms=duration_ms, cpu_ms=cpu_ms, memory_bytes=memory_bytes),
    )


def partial_outcome(
    status: Status,
    duration_s: float,
    output: Output,
    limits: OutputLimits,
    *,
    patterns: Sequence[str],
    memory_bytes: int = 0,
) -> Outcome:
    """Return the outcome of a program whose supervisor could not report, with the output received until then.

    Its artifacts are lost, if there are `patterns` of any. `memory_bytes` is its peak, 0 if that is unknown.
    """
    stdout, stderr = output[STDOUT], output[STDERR] + output[STDERR_TAIL]
    is_out_of_memory = status is Status.OUT_OF_MEMORY
    usage = bytes(output[USAGE])
    return Outcome(
        status=status,
        exit_code=128 + signal.SIGKILL if is_out_of_memory else None,
        signal=signal.SIGKILL.name if is_out_of_memory else None,
        stdout=_decode(stdout, is_cut=True),
        stderr=_decode_stderr(stderr, limits),
        output_bytes=OutputBytes(stdout=len(stdout), stderr=len(stderr)),
        artifacts_omitted=(SEARCH_ENDED,) if patterns else (),
        usage=RunUsage(
            duration_ms=round(duration_s * 1000),
            cpu_ms=USAGE_RECORD.unpack(usage)[1] if len(usage) == USAGE_RECORD.size else 0,
            memory_bytes=memory_bytes,
        ),
    )


def _status(exit_kind: bytes, exit_value: int, *, oom: bool) -> tuple[Status, int | None, str | None]:
    if exit_kind == TIMED_OUT:
        return Status.TIMEOUT, None, None
    if exit_kind == OUTPUT_LIMIT_EXCEEDED:
        return Status.OUTPUT_LIMIT, None, None
    if exit_kind == EXITED:
        return Status.ERROR if exit_value else Status.OK, exit_value, None
    if exit_kind != SIGNALLED:
        raise SandboxError("the report names an unknown kind of exit")
    # `oom` alone proves nothing: the kernel may have killed only a child process.
    status = Status.OUT_OF_MEMORY if oom and exit_value == signal.SIGKILL else Status.KILLED
    return status, 128 + exit_value, signal_name(exit_value)


def signal_name(number: int) -> str:
    """Return the name of a signal, or SIG and its number if it has none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"  # most real-time signals


def _decode_stderr(data: bytearray, limits: OutputLimits) -> str:
    """Decode the start and the end of stderr, without what lies between them."""
    if len(data) <= limits.stderr_head_bytes + limits.stderr_tail_bytes:
        return _decode(data, is_cut=False)
    # Without the rest of a character that the cut has split.
    tail = data[-limits.stderr_tail_bytes :].lstrip(_CONTINUATION_BYTES)
    return _decode(data[: limits.stderr_head_bytes], is_cut=True) + _decode(tail, is_cut=False)


def _decode(data: bytearray, *, is_cut: bool) -> str:
    """Decode UTF-8, with U+FFFD for invalid bytes. Drop a last character that is incomplete because of the cut."""
    return codecs.getincrementaldecoder("utf-8")(errors="replace").decode(bytes(data), final=not is_cut)
