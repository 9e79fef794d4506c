"""Run the program of one job in one sandbox: a hardened container, warm until its job and gone after it."""

from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Final, Protocol

from msgspec import Struct

from chalicelib.contract import MAX_STREAM_BYTES, SINGLE_RUN_LIMITS, InputFile, OutputLimits, Run, Status
from chalicelib.runtimes import Runtime
from executor_host.channel import MAX_PAYLOAD_BYTES, Channel, SandboxError, SandboxGoneError
from executor_host.job_files import encode_files, encode_search
from executor_host.outcome import Outcome, Output, outcome_from_report, partial_outcome
from executor_host.supervisor.protocol import (
    ARTIFACTS,
    OMISSIONS,
    READY,
    REPORT,
    RUN_HEADER,
    STDERR,
    STDERR_TAIL,
    STDOUT,
    USAGE,
    USAGE_RECORD,
)

NEXT_PROCESS_TIMEOUT_S: Final = 10.0  # for removing a run, whose files alone may take a second, and preparing the next
# Time the supervisor has after the timeout before the agent ends the run itself. Killing 256 processes of the runtime
# `data`, which map 110 MB each, takes seconds on a busy host.
SUPERVISOR_GRACE_S: Final = 5.0
SEARCH_GRACE_S: Final = 3.0  # and to find and send the artifacts

_OUTPUT_KINDS: Final = (STDOUT, STDERR, STDERR_TAIL, USAGE, ARTIFACTS, OMISSIONS)


class Program(Struct, frozen=True, kw_only=True):
    """What all runs of a job share. `artifacts` are the patterns of the files to return."""

    code: str
    files: tuple[InputFile, ...] = ()
    artifacts: tuple[str, ...] = ()


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
        self.cpu_demand = 1.0  # cores that the program uses or waits for; all that it may until the supervisor reports
        self._duration_ms = self._demand_ms = 0  # of the run, when the supervisor last reported

    def is_ready(self) -> bool:
        """Return whether the sandbox is alive and unused."""
        return not self._is_used and not self.is_closed and not self._channel.has_pending_data()

    def run(
        self,
        code: str,
        stdin: str,
        *,
        timeout_s: float,
        args: Sequence[str] = (),
        files: Sequence[InputFile] = (),
        artifacts: Sequence[str] = (),
    ) -> Outcome:
        """Run a program and destroy the sandbox. Raises SandboxError if the sandbox fails."""
        program = Program(code=code, files=tuple(files), artifacts=tuple(artifacts))
        return self.run_next(program, Run(input=stdin, args=tuple(args)), timeout_s=timeout_s)

    def run_next(
        self,
        program: Program,
        run: Run,
        *,
        timeout_s: float,
        limits: OutputLimits = SINGLE_RUN_LIMITS,
        is_last: bool = True,
    ) -> Outcome:
        """Run a program once more, the same in every call. Destroy the sandbox after the last run or an error.

        Artifacts are those of the last run. Raises SandboxError if the sandbox fails.
        """
        max_bytes = MAX_PAYLOAD_BYTES | {STDOUT: limits.stdout_bytes, STDERR: limits.stderr_head_bytes}
        output: Output = {kind: bytearray() for kind in _OUTPUT_KINDS}
        is_first, self._is_used = not self._is_used, True
        report, has_failed = None, True
        grace_s = SUPERVISOR_GRACE_S + (SEARCH_GRACE_S if program.artifacts else 0)
        started_at = monotonic()
        self._duration_ms = self._demand_ms = 0
        try:
            message = encode_run(run, max_bytes, timeout_s=timeout_s, is_last=is_last)
            if is_first:
                deadline = started_at + timeout_s + grace_s
                self._channel.send(encode_program(program) + message, deadline)
            else:
                self._hand_over(message)
                deadline = monotonic() + timeout_s + grace_s
            report = self._read_until_report(output, max_bytes, deadline)
            outcome = outcome_from_report(report, output, limits)
            has_failed = False
        except TimeoutError:
            return partial_outcome(Status.TIMEOUT, timeout_s, output, limits, patterns=program.artifacts)
        except SandboxGoneError:
            # What the kernel killed in an earlier run does not count: this one is repeated in a sandbox of its own.
            if not is_first or not self._engine.ran_out_of_memory(self.id):
                raise
            duration_s, memory_bytes = monotonic() - started_at, self.runtime.memory_bytes
            return partial_outcome(
                Status.OUT_OF_MEMORY, duration_s, output, limits, patterns=program.artifacts, memory_bytes=memory_bytes
            )
        except OSError as error:
            raise SandboxError("lost the connection to the sandbox") from error
        finally:
            self.cpu_demand = 1.0
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
            if kind == USAGE and len(payload) == USAGE_RECORD.size:
                self._measure(*USAGE_RECORD.unpack(payload))

    def _measure(self, duration_ms: int, cpu_ms: int, run_delay_ms: int) -> None:
        """Compute the demand since the last report, by the clock of the supervisor: reports may come late."""
        demand_ms, elapsed_ms = cpu_ms + run_delay_ms, duration_ms - self._duration_ms
        if elapsed_ms > 0:
            self.cpu_demand = min(1.0, max(0.0, (demand_ms - self._demand_ms) / elapsed_ms))
        self._duration_ms, self._demand_ms = duration_ms, demand_ms

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


def encode_program(program: Program) -> bytes:
    """Return what the supervisor reads before the first run."""
    main = InputFile(path="main.py", content=program.code.encode())
    return b"".join((*encode_files((main, *program.files)), encode_search(program.artifacts)))


def encode_run(run: Run, max_bytes: Mapping[bytes, int], *, timeout_s: float, is_last: bool) -> bytes:
    """Return what the supervisor reads for a run; `max_bytes` says how much to keep of its streams."""
    parts = run.input.encode(), "".join(f"{argument}\0" for argument in run.args).encode()
    kept_bytes = (max_bytes[kind] for kind in (STDOUT, STDERR, STDERR_TAIL))
    return b"".join((RUN_HEADER.pack(is_last, timeout_s, *kept_bytes, MAX_STREAM_BYTES, *map(len, parts)), *parts))
