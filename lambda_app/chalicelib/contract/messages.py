"""Defines the messages: jobs, replies and reports."""

from enum import StrEnum
from typing import Annotated, Final

from msgspec import Meta, Struct

from chalicelib.contract.files import Artifact, InputFile, OmittedArtifact, Path
from chalicelib.contract.limits import (
    DEFAULT_TIMEOUT_S,
    MAX_ARGS,
    MAX_ARGS_BYTES,
    MAX_ARTIFACT_PATTERNS,
    MAX_ARTIFACTS,
    MAX_BATCH_RUNS,
    MAX_CODE_BYTES,
    MAX_ERROR_MESSAGE_CHARS,
    MAX_FILES,
    MAX_INPUT_BYTES,
    MAX_TIMEOUT_S,
    MIN_TIMEOUT_S,
)

WIRE_VERSION: Final = 3


RuntimeName = Annotated[str, Meta(pattern=r"^[a-z]{1,32}\Z")]  # one of chalicelib/runtimes.py
PythonVersion = Annotated[str, Meta(pattern=r"^3\.[0-9]{1,2}\Z")]
PresignedUrl = Annotated[str, Meta(pattern="^https?://", max_length=8192)]  # its session token has up to 4 KiB


class Status(StrEnum):
    """How a program ended."""

    OK = "ok"  # exit code 0
    ERROR = "error"  # any other exit code
    TIMEOUT = "timeout"  # still running after timeout_s
    OUT_OF_MEMORY = "out_of_memory"  # killed by the kernel for its memory
    OUTPUT_LIMIT = "output_limit"  # wrote more than MAX_STREAM_BYTES to a stream
    KILLED = "killed"  # ended by any other signal


class FailureReason(StrEnum):
    """Why a job has no result. Never caused by the program itself."""

    START_TIMEOUT = "start-timeout"  # no host started it before start_deadline
    SANDBOX_ERROR = "sandbox-error"  # its sandbox broke on every attempt
    HOST_LOST = "host-lost"  # every host that received it was lost
    PAYLOAD_LOST = "payload-lost"  # the job or its reply is not in the payload store, or not intact


class IsolationState(StrEnum):
    """The result of a host's last isolation check, without which it takes no jobs."""

    PENDING = "pending"  # none has been completed since the agent started
    PASSED = "passed"
    FAILED = "failed"


class Run(Struct, frozen=True, kw_only=True):
    """What one run of a program gets."""

    input: Annotated[str, Meta(max_length=MAX_INPUT_BYTES)] = ""
    args: Annotated[tuple[Annotated[str, Meta(max_length=MAX_ARGS_BYTES)], ...], Meta(max_length=MAX_ARGS)] = ()


class JobHeader(Struct, frozen=True, kw_only=True):
    """The members of a job that do not depend on its program. Times are seconds since the epoch."""

    version: int = WIRE_VERSION
    id: Annotated[str, Meta(pattern="^[0-9a-f]{32}$", max_length=32)]  # $ alone allows a newline after it
    runtime: RuntimeName = "python"
    # The URL of the reply queue that a request polls until reply_by; None for an asynchronous job.
    reply_to: Annotated[str, Meta(min_length=1, max_length=1024)] | None
    reply_upload_url: PresignedUrl  # for a PUT of a reply that is too large for a message
    submitted_at: float
    reply_by: float  # a later reply goes to the results queue
    start_deadline: float  # from then on, no host starts it


class Job(JobHeader, frozen=True, kw_only=True, tag_field="kind", tag="job"):
    """A request to run code."""

    code: Annotated[str, Meta(min_length=1, max_length=MAX_CODE_BYTES)]
    input: Annotated[str, Meta(max_length=MAX_INPUT_BYTES)] = ""
    args: Annotated[tuple[Annotated[str, Meta(max_length=MAX_ARGS_BYTES)], ...], Meta(max_length=MAX_ARGS)] = ()
    files: Annotated[tuple[InputFile, ...], Meta(max_length=MAX_FILES)] = ()
    artifacts: Annotated[tuple[Path, ...], Meta(max_length=MAX_ARTIFACT_PATTERNS)] = ()  # glob patterns
    # The runs of a batch, which has neither `input` nor `args` nor `artifacts`; none for a job that is not a batch.
    runs: Annotated[tuple[Run, ...], Meta(max_length=MAX_BATCH_RUNS)] = ()
    stop_on_failure: bool = False  # no more runs after one whose status is not ok
    timeout_s: Annotated[float, Meta(ge=MIN_TIMEOUT_S, le=MAX_TIMEOUT_S)] = DEFAULT_TIMEOUT_S


class JobReference(JobHeader, frozen=True, kw_only=True, tag_field="kind", tag="job_reference"):
    """The message of a job that is in the payload store."""

    url: PresignedUrl  # for a GET of the job


class Truncated(Struct, frozen=True, kw_only=True):
    """Which streams were longer than what is returned."""

    stdout: bool = False
    stderr: bool = False


class OutputBytes(Struct, frozen=True, kw_only=True):
    """How much the program wrote to each stream, whether or not it is returned."""

    stdout: Annotated[int, Meta(ge=0)]
    stderr: Annotated[int, Meta(ge=0)]


class UncaughtException(Struct, frozen=True, kw_only=True):
    """The exception that ended the program; `line` is the line of main.py that raised or called what raised."""

    type: Annotated[str, Meta(max_length=MAX_ERROR_MESSAGE_CHARS)]
    message: Annotated[str, Meta(max_length=MAX_ERROR_MESSAGE_CHARS)]
    line: int | None = None


class RunUsage(Struct, frozen=True, kw_only=True):
    """The resources of a run of a batch: wall time, CPU time of all its processes, peak memory of the sandbox."""

    duration_ms: Annotated[int, Meta(ge=0)]
    cpu_ms: Annotated[int, Meta(ge=0)]
    memory_bytes: Annotated[int, Meta(ge=0)]


class ResourceUsage(RunUsage, frozen=True, kw_only=True):
    """The resources of a run: wall time, CPU time of all processes, peak memory of the sandbox, time in the queue."""

    queued_ms: Annotated[int, Meta(ge=0)]


class Result(Struct, frozen=True, kw_only=True, tag_field="kind", tag="result"):
    """The result of a job that ran.

    `exit_code` is the one a shell would show: 0 to 255, or 128 + n if signal n ended the program. It and `signal` are
    None if the sandbox ended the run (timeout, output_limit).
    """

    version: int = WIRE_VERSION
    id: str
    status: Status
    exit_code: int | None
    signal: str | None  # "SIGSEGV"
    stdout: str
    stderr: str
    truncated: Truncated
    output_bytes: OutputBytes
    error: UncaughtException | None
    artifacts: Annotated[tuple[Artifact, ...], Meta(max_length=MAX_ARTIFACTS)] = ()
    artifacts_omitted: tuple[OmittedArtifact, ...] = ()
    usage: ResourceUsage
    runtime: RuntimeName
    python_version: PythonVersion


class RunResult(Struct, frozen=True, kw_only=True):
    """The result of one run of a batch. The members are those of Result."""

    status: Status
    exit_code: int | None
    signal: str | None
    stdout: str
    stderr: str
    truncated: Truncated
    output_bytes: OutputBytes
    error: UncaughtException | None
    usage: RunUsage


class BatchResult(Struct, frozen=True, kw_only=True, tag_field="kind", tag="batch_result"):
    """The result of a batch: that of each run, in the order of the job, or None for a run that did not take place."""

    version: int = WIRE_VERSION
    id: str
    runs: Annotated[tuple[RunResult | None, ...], Meta(max_length=MAX_BATCH_RUNS)]
    queued_ms: Annotated[int, Meta(ge=0)]
    runtime: RuntimeName
    python_version: PythonVersion


class Failure(Struct, frozen=True, kw_only=True, tag_field="kind", tag="failure"):
    """The reply for a job that has no result."""

    version: int = WIRE_VERSION
    id: str
    reason: FailureReason


class ReplyReference(Struct, frozen=True, kw_only=True, tag_field="kind", tag="reply_reference"):
    """The message of a reply that is in the payload store."""

    version: int = WIRE_VERSION
    id: Annotated[str, Meta(pattern="^[0-9a-f]{32}$", max_length=32)]  # of the job, which names the object


class RuntimeReport(Struct, frozen=True, kw_only=True):
    """The state of one runtime on a host."""

    name: RuntimeName
    ready: Annotated[int, Meta(ge=0)]  # idle warm sandboxes
    running: Annotated[int, Meta(ge=0)]  # jobs


class HostReport(Struct, frozen=True, kw_only=True, tag_field="kind", tag="host_report"):
    """The state of a host, sent every few seconds."""

    version: int = WIRE_VERSION
    host: Annotated[str, Meta(pattern=r"^[ -~]{1,128}\Z")]  # the agent's name
    agent_version: Annotated[str, Meta(max_length=32)]
    runtimes: Annotated[tuple[RuntimeReport, ...], Meta(max_length=16)]
    isolation: IsolationState
    sent_at: Annotated[float, Meta(ge=0)]  # seconds since the epoch


JobMessage = Job | JobReference
Reply = Result | BatchResult | Failure
ReplyMessage = Reply | ReplyReference
Message = JobMessage | ReplyMessage | HostReport
