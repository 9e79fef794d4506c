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
    FLOODED,
    JOB_HEADER,
    MAX_ERROR_FIELD_BYTES,
    REPORT,
    REPORT_RECORD,
    SIGNALLED,
    STDERR,
    STDOUT,
    TIMED_OUT,
)

OVERRUN_S: Final = 2.0  # what the supervisor may take on top of the timeout before we end the run ourselves


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


class Containers(Protocol):
    """What a sandbox needs of the engine that made it."""

    def remove(self, container_id: str) -> None:
        """Kill and remove a container, if that can be done."""

    def ran_out_of_memory(self, container_id: str) -> bool:
        """Whether the kernel ended the whole container for its memory."""


class Sandbox:
    """A started container whose supervisor is ready. For one `run`, by one thread."""

    def __init__(self, container_id: str, channel: Channel, *, runtime: str, engine: Containers) -> None:
        """`runtime` as in contract.Result."""
        self.id = container_id
        self.runtime = runtime
        self._channel = channel
        self._engine = engine

    def is_waiting(self) -> bool:
        """Whether it is still there, with nothing said since it was ready."""
        return self._channel.is_silent()

    def run(self, code: str, text: str, *, timeout_s: float) -> Outcome:
        """Run a program with `text` on its stdin, and destroy the sandbox. Raises SandboxError if it breaks."""
        said = {STDOUT: bytearray(), STDERR: bytearray(), ERROR: bytearray()}
        code_bytes, input_bytes = code.encode(), text.encode()
        header = JOB_HEADER.pack(timeout_s, MAX_STREAM_BYTES, len(code_bytes), len(input_bytes))
        started = monotonic()
        report = None
        try:
            self._channel.send(header + code_bytes + input_bytes, started + timeout_s + OVERRUN_S)
            report = self._collect(said, started + timeout_s + OVERRUN_S)
            return outcome(report, said)
        except TimeoutError:
            return outcome_without_report(Status.TIMEOUT, timeout_s, said)
        except SandboxGoneError:
            if not self._engine.ran_out_of_memory(self.id):
                raise
            return outcome_without_report(Status.OUT_OF_MEMORY, monotonic() - started, said)
        except OSError as error:
            raise SandboxError("lost the sandbox") from error
        finally:
            self._end(by_force=report is None)

    def _collect(self, said: dict[bytes, bytearray], deadline: float) -> bytes:
        """The report, once all that was said before it is in `said`."""
        while True:
            kind, payload = self._channel.next_frame(deadline)
            if kind == REPORT:
                return payload
            if kind not in said or len(said[kind]) + len(payload) > MAX_PAYLOAD_BYTES[kind]:
                raise SandboxError("the supervisor sent what it never sends")
            said[kind] += payload

    def destroy(self) -> None:
        """Leave nothing of it."""
        self._end(by_force=True)

    def _end(self, *, by_force: bool) -> None:
        self._channel.close()
        if by_force:  # else its supervisor has exited, and Docker removes what is left
            self._engine.remove(self.id)


def outcome(report: bytes, said: dict[bytes, bytearray]) -> Outcome:
    """The verdict on what the supervisor saw. Raises SandboxError for a report that makes no sense."""
    try:
        how, number, oom, duration_ms, cpu_ms, memory_bytes, *cut = REPORT_RECORD.unpack(report)
    except struct.error as error:
        raise SandboxError("the report has another length") from error
    status, exit_code, signal_name = _status(how, number, oom=oom)
    return Outcome(
        status=status,
        exit_code=exit_code,
        signal=signal_name,
        stdout=_text(said[STDOUT], cut=cut[0]),
        stderr=_text(said[STDERR], cut=cut[1]),
        truncated=Truncated(stdout=cut[0], stderr=cut[1]),
        error=_uncaught_exception(bytes(said[ERROR])) if status is Status.ERROR else None,
        duration_ms=duration_ms,
        cpu_ms=cpu_ms,
        memory_bytes=memory_bytes,
    )


def outcome_without_report(status: Status, duration_s: float, said: dict[bytes, bytearray]) -> Outcome:
    """The verdict when the supervisor could not report any more, with what had come until then."""
    return Outcome(
        status=status,
        stdout=_text(said[STDOUT], cut=True),
        stderr=_text(said[STDERR], cut=True),
        duration_ms=round(duration_s * 1000),
    )


def _status(how: bytes, number: int, *, oom: bool) -> tuple[Status, int | None, str | None]:
    if how == TIMED_OUT:
        return Status.TIMEOUT, None, None
    if how == FLOODED:
        return Status.OUTPUT_LIMIT, None, None
    if how == EXITED:
        return Status.ERROR if number else Status.OK, number, None
    if how != SIGNALLED:
        raise SandboxError("the report tells of no end that there is")
    # The kernel may have killed a child of the program's for its memory, and the program have ended otherwise.
    status = Status.OUT_OF_MEMORY if oom and number == signal.SIGKILL else Status.KILLED
    return status, 128 + number, _signal_name(number)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"  # a real-time signal between the two that have names


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


def _text(data: bytearray, *, cut: bool) -> str:
    """As text: U+FFFD for what is no UTF-8, but not for a character that only our cut made incomplete."""
    return codecs.getincrementaldecoder("utf-8")(errors="replace").decode(bytes(data), final=not cut)
