"""Run one program in one sandbox: a hardened container, warm until its job and gone after it."""

import codecs
import signal
import struct
from collections.abc import Sequence
from time import monotonic
from typing import Final, Protocol

from msgspec import Struct

from chalicelib.contract import ResourceUsage, Status, Truncated, UncaughtException
from executor_host.channel import MAX_KEPT_BYTES, MAX_PAYLOAD_BYTES, Channel, SandboxError, SandboxGoneError
from executor_host.supervisor.protocol import (
    ERROR,
    ERROR_RECORD,
    EXITED,
    JOB_HEADER,
    MAX_ERROR_FIELD_BYTES,
    OUTPUT_LIMIT_EXCEEDED,
    REPORT,
    REPORT_RECORD,
    SIGNALLED,
    STDERR,
    STDOUT,
    TIMED_OUT,
)

SUPERVISOR_GRACE_S: Final = 2.0  # time the supervisor has after the timeout before the agent ends the run itself

Output = dict[bytes, bytearray]  # received payloads, by kind of frame


class Outcome(Struct, frozen=True, kw_only=True):
    """How a program ended and what it wrote. The members are those of contract.Result; `queued_ms` is 0."""

    status: Status
    exit_code: int | None = None
    signal: str | None = None
    stdout: str
    stderr: str
    truncated: Truncated = Truncated()
    error: UncaughtException | None = None
    usage: ResourceUsage


class ContainerEngine(Protocol):
    """Describe the methods of docker_engine.DockerEngine that a sandbox uses."""

    def remove(self, container_id: str) -> None:
        """Kill and remove a container; do nothing if Docker cannot."""

    def ran_out_of_memory(self, container_id: str) -> bool:
        """Return whether the kernel killed the whole container for its memory."""


class Sandbox:
    """A started container whose supervisor is ready. One thread runs one program in it."""

    def __init__(self, container_id: str, channel: Channel, *, runtime: str, engine: ContainerEngine) -> None:
        """Take over a container. `runtime` is, for example, "python 3.13"."""
        self.id = container_id
        self.runtime = runtime
        self._channel = channel
        self._engine = engine
        self._is_closed = False

    def is_ready(self) -> bool:
        """Return whether the sandbox is alive and unused."""
        return not self._is_closed and not self._channel.has_pending_data()

    def run(self, code: str, stdin: str, *, timeout_s: float, args: Sequence[str] = ()) -> Outcome:  # noqa: ARG002
        """Run a program and destroy the sandbox. Raises SandboxError if the sandbox fails."""
        output: Output = {STDOUT: bytearray(), STDERR: bytearray(), ERROR: bytearray()}
        code_bytes, input_bytes = code.encode(), stdin.encode()
        header = JOB_HEADER.pack(timeout_s, MAX_KEPT_BYTES, len(code_bytes), len(input_bytes))
        started_at = monotonic()
        deadline = started_at + timeout_s + SUPERVISOR_GRACE_S
        report = None
        try:
            self._channel.send(header + code_bytes + input_bytes, deadline)
            report = self._read_until_report(output, deadline)
            return outcome_from_report(report, output)
        except TimeoutError:
            return partial_outcome(Status.TIMEOUT, timeout_s, output)
        except SandboxGoneError:
            if not self._engine.ran_out_of_memory(self.id):
                raise
            return partial_outcome(Status.OUT_OF_MEMORY, monotonic() - started_at, output)
        except OSError as error:
            raise SandboxError("lost the connection to the sandbox") from error
        finally:
            self._close(remove=report is None)  # after a report the supervisor exits and Docker removes the container

    def _read_until_report(self, output: Output, deadline: float) -> bytes:
        """Collect frames in `output` and return the report, which is the last one."""
        while True:
            kind, payload = self._channel.next_frame(deadline)
            if kind == REPORT:
                return payload
            if kind not in output or len(output[kind]) + len(payload) > MAX_PAYLOAD_BYTES[kind]:
                raise SandboxError("the supervisor sent an unexpected frame")
            output[kind] += payload

    def destroy(self) -> None:
        """Remove the container, unless that has been done."""
        self._close(remove=True)

    def _close(self, *, remove: bool) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._channel.close()
        if remove:
            self._engine.remove(self.id)


def outcome_from_report(report: bytes, output: Output) -> Outcome:
    """Return the outcome that the supervisor reported. Raises SandboxError for an invalid report."""
    try:
        exit_kind, exit_value, oom, duration_ms, cpu_ms, memory_bytes, *cut = REPORT_RECORD.unpack(report)
    except struct.error as error:
        raise SandboxError("the report has the wrong length") from error
    status, exit_code, killed_by = _status(exit_kind, exit_value, oom=oom)
    return Outcome(
        status=status,
        exit_code=exit_code,
        signal=killed_by,
        stdout=_decode(output[STDOUT], is_cut=cut[0]),
        stderr=_decode(output[STDERR], is_cut=cut[1]),
        truncated=Truncated(stdout=cut[0], stderr=cut[1]),
        error=_uncaught_exception(bytes(output[ERROR])) if status is Status.ERROR else None,
        usage=ResourceUsage(duration_ms=duration_ms, cpu_ms=cpu_ms, memory_bytes=memory_bytes, queued_ms=0),
    )


def partial_outcome(status: Status, duration_s: float, output: Output) -> Outcome:
    """Return the outcome of a program whose supervisor could not report, with the output received so far."""
    return Outcome(
        status=status,
        stdout=_decode(output[STDOUT], is_cut=True),
        stderr=_decode(output[STDERR], is_cut=True),
        usage=ResourceUsage(duration_ms=round(duration_s * 1000), cpu_ms=0, memory_bytes=0, queued_ms=0),
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


def _uncaught_exception(record: bytes) -> UncaughtException | None:
    """Decode the program's error record. The program may have written any bytes into it."""
    if len(record) < ERROR_RECORD.size:
        return None
    line, type_bytes, message_bytes = ERROR_RECORD.unpack_from(record)
    fields = record[ERROR_RECORD.size :]
    longest = max(type_bytes, message_bytes)
    if not type_bytes or longest > MAX_ERROR_FIELD_BYTES or type_bytes + message_bytes > len(fields):
        return None
    return UncaughtException(
        type=fields[:type_bytes].decode(errors="replace"),
        message=fields[type_bytes : type_bytes + message_bytes].decode(errors="replace"),
        line=line if line > 0 else None,
    )


def _decode(data: bytearray, *, is_cut: bool) -> str:
    """Decode UTF-8, with U+FFFD for invalid bytes. Drop a last character that is incomplete because of the cut."""
    return codecs.getincrementaldecoder("utf-8")(errors="replace").decode(bytes(data), final=not is_cut)
