"""One sandbox: a hardened container, warm until its one job, gone after it. Made by docker_engine.py."""

import codecs
import signal
import struct
from time import monotonic
from typing import Final, Protocol

from msgspec import Struct

from chalicelib.contract import MAX_STREAM_BYTES, Status, Truncated, UncaughtException
from executor_host.channel import MAX_PAYLOAD_BYTES, Channel, SandboxError, SandboxGoneError
from executor_host.supervisor import (
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

SUPERVISOR_GRACE_S: Final = 2.0  # what the supervisor may take on top of the timeout before we end the run ourselves


class Outcome(Struct, frozen=True, kw_only=True):
    """How a program ended and what it wrote. Exit code and signal as in contract.Result."""

    status: Status
    exit_code: int | None = None
    signal: str | None = None
    stdout: str
    stderr: str
    truncated: Truncated = Truncated()
    error: UncaughtException | None = None
    duration_ms: int
    cpu_ms: int = 0
    memory_bytes: int = 0


class ContainerEngine(Protocol):
    """What a sandbox needs of the engine that made it."""

    def remove(self, container_id: str) -> None:
        """Kill and remove a container, if that can be done."""

    def ran_out_of_memory(self, container_id: str) -> bool:
        """Whether the kernel ended the whole container for its memory."""


class Sandbox:
    """A started container whose supervisor is ready. For one `run`, by one thread."""

    def __init__(self, container_id: str, channel: Channel, *, runtime: str, engine: ContainerEngine) -> None:
        """`runtime` as in contract.Result."""
        self.id = container_id
        self.runtime = runtime
        self._channel = channel
        self._engine = engine

    def is_ready(self) -> bool:
        """Whether it is still there, with no output since it was ready."""
        return self._channel.is_silent()

    def run(self, code: str, stdin: str, *, timeout_s: float) -> Outcome:
        """Run a program with `text` on its stdin, and destroy the sandbox. Raises SandboxError if it breaks."""
        output = {STDOUT: bytearray(), STDERR: bytearray(), ERROR: bytearray()}
        code_bytes, input_bytes = code.encode(), stdin.encode()
        header = JOB_HEADER.pack(timeout_s, MAX_STREAM_BYTES, len(code_bytes), len(input_bytes))
        started = monotonic()
        report = None
        try:
            self._channel.send(header + code_bytes + input_bytes, started + timeout_s + SUPERVISOR_GRACE_S)
            report = self._read_until_report(output, started + timeout_s + SUPERVISOR_GRACE_S)
            return outcome_from_report(report, output)
        except TimeoutError:
            return partial_outcome(Status.TIMEOUT, timeout_s, output)
        except SandboxGoneError:
            if not self._engine.ran_out_of_memory(self.id):
                raise
            return partial_outcome(Status.OUT_OF_MEMORY, monotonic() - started, output)
        except OSError as error:
            raise SandboxError("lost the sandbox") from error
        finally:
            self._close(by_force=report is None)

    def _read_until_report(self, output: dict[bytes, bytearray], deadline: float) -> bytes:
        """The report, once all output before it is in `output`."""
        while True:
            kind, payload = self._channel.next_frame(deadline)
            if kind == REPORT:
                return payload
            if kind not in output or len(output[kind]) + len(payload) > MAX_PAYLOAD_BYTES[kind]:
                raise SandboxError("the supervisor sent what it never sends")
            output[kind] += payload

    def destroy(self) -> None:
        """Leave nothing of it."""
        self._close(by_force=True)

    def _close(self, *, by_force: bool) -> None:
        self._channel.close()
        if by_force:  # else its supervisor has exited, and Docker removes what is left
            self._engine.remove(self.id)


def outcome_from_report(report: bytes, output: dict[bytes, bytearray]) -> Outcome:
    """The verdict on what the supervisor saw. Raises SandboxError for a report that makes no sense."""
    try:
        exit_kind, exit_value, oom, duration_ms, cpu_ms, memory_bytes, *truncated = REPORT_RECORD.unpack(report)
    except struct.error as error:
        raise SandboxError("the report has another length") from error
    status, exit_code, signal_name = _status(exit_kind, exit_value, oom=oom)
    return Outcome(
        status=status,
        exit_code=exit_code,
        signal=signal_name,
        stdout=_text(output[STDOUT], truncated=truncated[0]),
        stderr=_text(output[STDERR], truncated=truncated[1]),
        truncated=Truncated(stdout=truncated[0], stderr=truncated[1]),
        error=_uncaught_exception(bytes(output[ERROR])) if status is Status.ERROR else None,
        duration_ms=duration_ms,
        cpu_ms=cpu_ms,
        memory_bytes=memory_bytes,
    )


def partial_outcome(status: Status, duration_s: float, output: dict[bytes, bytearray]) -> Outcome:
    """The verdict when the supervisor could not report any more, with what had come until then."""
    return Outcome(
        status=status,
        stdout=_text(output[STDOUT], truncated=True),
        stderr=_text(output[STDERR], truncated=True),
        duration_ms=round(duration_s * 1000),
    )


def _status(exit_kind: bytes, exit_value: int, *, oom: bool) -> tuple[Status, int | None, str | None]:
    if exit_kind == TIMED_OUT:
        return Status.TIMEOUT, None, None
    if exit_kind == OUTPUT_LIMIT_EXCEEDED:
        return Status.OUTPUT_LIMIT, None, None
    if exit_kind == EXITED:
        return Status.ERROR if exit_value else Status.OK, exit_value, None
    if exit_kind != SIGNALLED:
        raise SandboxError("the report tells of no end that there is")
    # The kernel may have killed a child of the program's for its memory, and the program have ended otherwise.
    status = Status.OUT_OF_MEMORY if oom and exit_value == signal.SIGKILL else Status.KILLED
    return status, 128 + exit_value, _signal_name(exit_value)


def _signal_name(exit_value: int) -> str:
    try:
        return signal.Signals(exit_value).name
    except ValueError:
        return f"SIG{exit_value}"  # a real-time signal between the two that have names


def _uncaught_exception(record: bytes) -> UncaughtException | None:
    """What the program left of its exception: hostile bytes, of which any are fine as text and some as numbers."""
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


def _text(data: bytearray, *, truncated: bool) -> str:
    """As text: U+FFFD for what is no UTF-8, but not for a character that only our cut made incomplete."""
    return codecs.getincrementaldecoder("utf-8")(errors="replace").decode(bytes(data), final=not truncated)
