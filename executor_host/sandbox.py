"""Run the program of one job in one sandbox: a hardened container, warm until its job and gone after it."""

import codecs
import signal
import struct
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Final, Protocol

from msgspec import Struct, structs

from chalicelib.contract import (
    MAX_STREAM_BYTES,
    SINGLE_RUN_LIMITS,
    OutputBytes,
    OutputLimits,
    ResourceUsage,
    Run,
    Status,
    Truncated,
    UncaughtException,
)
from chalicelib.runtimes import Runtime
from executor_host.channel import MAX_PAYLOAD_BYTES, Channel, SandboxError, SandboxGoneError
from executor_host.supervisor.protocol import (
    EXITED,
    JOB_HEADER,
    OUTPUT_LIMIT_EXCEEDED,
    READY,
    REPORT,
    REPORT_RECORD,
    RUN_HEADER,
    SIGNALLED,
    STDERR,
    STDERR_TAIL,
    STDOUT,
    TIMED_OUT,
    USAGE,
    USAGE_RECORD,
)
from executor_host.traceback_parser import parse_uncaught_exception

NEXT_PROCESS_TIMEOUT_S: Final = 5.0  # for removing a run, whose files alone may take a second, and preparing the next
SUPERVISOR_GRACE_S: Final = 2.0  # time the supervisor has after the timeout before the agent ends the run itself

_CONTINUATION_BYTES: Final = bytes(range(0x80, 0xC0))  # of UTF-8

Output = dict[bytes, bytearray]  # received payloads, by kind of frame


class Outcome(Struct, frozen=True, kw_only=True):
    """How a program ended and what it wrote. The members are those of contract.Result; `queued_ms` is 0."""

    status: Status
    exit_code: int | None = None
    signal: str | None = None
    stdout: str
    stderr: str
    truncated: Truncated = Truncated()
    output_bytes: OutputBytes
    error: UncaughtException | None = None
    usage: ResourceUsage


class ContainerEngine(Protocol):
    """Describe the methods of docker_engine.DockerEngine that a sandbox uses."""

    def remove(self, container_id: str) -> None:
        """Kill and remove a container; do nothing if Docker cannot."""

    def ran_out_of_memory(self, container_id: str) -> bool:
        """Return whether a container has ended after the kernel killed one of its processes for its memory."""


class Sandbox:
    """A started container whose supervisor is ready. One thread runs one program in it, in a batch several times."""

    def __init__(
        self, container_id: str, channel: Channel, *, runtime: Runtime, python_version: str, engine: ContainerEngine
    ) -> None:
        """Take over a container. `python_version` is, for example, "3.13"."""
        self.id = container_id
        self.runtime = runtime
        self.python_version = python_version
        self._channel = channel
        self._engine = engine
        self._is_used = False
        self.is_closed = False

    def is_ready(self) -> bool:
        """Return whether the sandbox is alive and unused."""
        return not self._is_used and not self.is_closed and not self._channel.has_pending_data()

    def run(self, code: str, stdin: str, *, timeout_s: float, args: Sequence[str] = ()) -> Outcome:
        """Run a program and destroy the sandbox. Raises SandboxError if the sandbox fails."""
        return self.run_next(code, Run(input=stdin, args=tuple(args)), timeout_s=timeout_s)

    def run_next(
        self, code: str, run: Run, *, timeout_s: float, limits: OutputLimits = SINGLE_RUN_LIMITS, is_last: bool = True
    ) -> Outcome:
        """Run a program once more: every call has the same code. Destroy the sandbox after the last run or an error.

        Raises SandboxError if the sandbox fails.
        """
        max_bytes = MAX_PAYLOAD_BYTES | {STDOUT: limits.stdout_bytes, STDERR: limits.stderr_head_bytes}
        output: Output = {kind: bytearray() for kind in (STDOUT, STDERR, STDERR_TAIL, USAGE)}
        is_first, self._is_used = not self._is_used, True
        report, has_failed = None, True
        started_at = monotonic()
        try:
            message = encode_run(run, max_bytes, timeout_s=timeout_s, is_last=is_last)
            if is_first:
                program = code.encode()
                deadline = started_at + timeout_s + SUPERVISOR_GRACE_S
                self._channel.send(JOB_HEADER.pack(len(program)) + program + message, deadline)
            else:
                self._hand_over(message)
                deadline = monotonic() + timeout_s + SUPERVISOR_GRACE_S
            report = self._read_until_report(output, max_bytes, deadline)
            outcome = outcome_from_report(report, output, limits)
            has_failed = False
        except TimeoutError:
            return partial_outcome(Status.TIMEOUT, timeout_s, output, limits)
        except SandboxGoneError:
            # What the kernel killed in an earlier run does not count: this one is repeated in a sandbox of its own.
            if not is_first or not self._engine.ran_out_of_memory(self.id):
                raise
            outcome = partial_outcome(Status.OUT_OF_MEMORY, monotonic() - started_at, output, limits)
            usage = structs.replace(outcome.usage, memory_bytes=self.runtime.memory_bytes)
            return structs.replace(outcome, usage=usage)
        except OSError as error:
            raise SandboxError("lost the connection to the sandbox") from error
        finally:
            if has_failed or is_last:
                # After the report of the last run the supervisor exits and Docker removes the container.
                self._close(remove=report is None or not is_last)
        return outcome

    def _hand_over(self, message: bytes) -> None:
        """Send a run after the first to the supervisor, which prepares a process for it after removing the last one."""
        deadline = monotonic() + NEXT_PROCESS_TIMEOUT_S
        try:
            self._channel.send(message, deadline)
            kind, _ = self._channel.next_frame(deadline)
        except TimeoutError as error:
            raise SandboxError("the sandbox was not ready for the next run in time") from error
        if kind != READY:
            raise SandboxError("the supervisor sent an unexpected frame")

    def _read_until_report(self, output: Output, max_bytes: Mapping[bytes, int], deadline: float) -> bytes:
        """Collect frames in `output` and return the report, which is the last one."""
        while True:
            kind, payload = self._channel.next_frame(deadline)
            if kind == REPORT:
                return payload
            if kind == USAGE:  # replaces the previous one
                output[USAGE].clear()
            if kind not in output or len(output[kind]) + len(payload) > max_bytes[kind]:
                raise SandboxError("the supervisor sent an unexpected frame")
            output[kind] += payload

    def destroy(self) -> None:
        """Remove the container, unless that has been done."""
        self._close(remove=True)

    def _close(self, *, remove: bool) -> None:
        if self.is_closed:
            return
        self.is_closed = True
        self._channel.close()
        if remove:
            self._engine.remove(self.id)


def encode_run(run: Run, max_bytes: Mapping[bytes, int], *, timeout_s: float, is_last: bool) -> bytes:
    """Return what the supervisor reads for a run; `max_bytes` says how much to keep of its streams."""
    parts = run.input.encode(), "".join(f"{argument}\0" for argument in run.args).encode()
    kept_bytes = (max_bytes[kind] for kind in (STDOUT, STDERR, STDERR_TAIL))
    return b"".join((RUN_HEADER.pack(is_last, timeout_s, *kept_bytes, MAX_STREAM_BYTES, *map(len, parts)), *parts))


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
        usage=ResourceUsage(duration_ms=duration_ms, cpu_ms=cpu_ms, memory_bytes=memory_bytes, queued_ms=0),
    )


def partial_outcome(status: Status, duration_s: float, output: Output, limits: OutputLimits) -> Outcome:
    """Return the outcome of a program whose supervisor could not report, with what was received until then."""
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
        usage=ResourceUsage(
            duration_ms=round(duration_s * 1000),
            cpu_ms=USAGE_RECORD.unpack(usage)[0] if len(usage) == USAGE_RECORD.size else 0,
            memory_bytes=0,
            queued_ms=0,
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
    tail = data[-limits.stderr_tail_bytes :].lstrip(
        _CONTINUATION_BYTES
    )  # the rest of a character that the cut has split
    return _decode(data[: limits.stderr_head_bytes], is_cut=True) + _decode(tail, is_cut=False)


def _decode(data: bytearray, *, is_cut: bool) -> str:
    """Decode UTF-8, with U+FFFD for invalid bytes. Drop a last character that is incomplete because of the cut."""
    return codecs.getincrementaldecoder("utf-8")(errors="replace").decode(bytes(data), final=not is_cut)
