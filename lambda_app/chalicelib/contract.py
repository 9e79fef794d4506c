"""Defines the messages between the API and the agents: jobs, replies and reports, their limits and their encoding.

This is the only module that both sides import. Golden files in tests/ freeze the wire format.
"""

import base64
import json
import zlib
from enum import StrEnum
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

WIRE_VERSION: Final = 3

MAX_CODE_BYTES: Final = 256 * 1024  # in UTF-8; enough for a program, not for a data set
MAX_INPUT_BYTES: Final = 1024 * 1024  # in UTF-8
MAX_ARGS: Final = 64
MAX_ARGS_BYTES: Final = 8 * 1024  # in UTF-8, of all arguments together
# What is returned of each stream, as the program wrote it: the start of stdout, the start and the end of stderr.
MAX_STDOUT_BYTES: Final = 256 * 1024
STDERR_HEAD_BYTES: Final = 48 * 1024
STDERR_TAIL_BYTES: Final = 16 * 1024  # where the traceback is
MAX_STREAM_BYTES: Final = 16 * 1024 * 1024  # of stdout and of stderr, each; a program that writes more is ended
MAX_ERROR_MESSAGE_CHARS: Final = 1000  # of an exception's message; all of it is in stderr
MIN_TIMEOUT_S: Final = 0.1
MAX_TIMEOUT_S: Final = 10.0  # below the queue's visibility timeout with room to start and to reply
DEFAULT_TIMEOUT_S: Final = 3.0

# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html
MAX_MESSAGE_BYTES: Final = 1024 * 1024
COMPRESSION_THRESHOLD_BYTES: Final = 64 * 1024  # most messages are far below and stay readable
# The largest job, and the largest result: in a stream, U+FFFD makes three bytes of each invalid one.
_MAX_JOB_TEXT_BYTES: Final = MAX_CODE_BYTES + MAX_INPUT_BYTES + MAX_ARGS_BYTES
_MAX_RESULT_TEXT_BYTES: Final = 3 * (MAX_STDOUT_BYTES + STDERR_HEAD_BYTES + STDERR_TAIL_BYTES)
MAX_DECODED_BYTES: Final = max(_MAX_JOB_TEXT_BYTES, _MAX_RESULT_TEXT_BYTES) + 16 * 1024
COMPRESSION_LEVEL: Final = 1  # of zlib; level 6 saves a tenth of the size and takes up to seven times as long
# A job is sent as base64, four characters for three bytes, and its other members need less than 4 KiB of that.
MAX_COMPRESSED_PROGRAM_BYTES: Final = MAX_MESSAGE_BYTES // 4 * 3 - 4 * 1024


RuntimeName = Annotated[str, Meta(pattern=r"^[a-z]{1,32}\Z")]  # one of chalicelib/runtimes.py


class ContractError(Exception):
    """Raised for bytes that are not a valid message of this version, and for a message that is too large to send."""


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


class IsolationState(StrEnum):
    """The result of a host's last isolation check, without which it takes no jobs."""

    PENDING = "pending"  # none has been completed since the agent started
    PASSED = "passed"
    FAILED = "failed"


class Job(Struct, frozen=True, kw_only=True, tag_field="kind", tag="job"):
    """A request to run code. Times are seconds since the epoch.

    The program comes first, so that it is compressed to the same bytes whatever the other members are.
    """

    version: int = WIRE_VERSION
    code: Annotated[str, Meta(min_length=1, max_length=MAX_CODE_BYTES)]
    input: Annotated[str, Meta(max_length=MAX_INPUT_BYTES)] = ""
    args: Annotated[tuple[Annotated[str, Meta(max_length=MAX_ARGS_BYTES)], ...], Meta(max_length=MAX_ARGS)] = ()
    id: Annotated[str, Meta(pattern="^[0-9a-f]{32}$", max_length=32)]  # $ alone allows a newline after it
    timeout_s: Annotated[float, Meta(ge=MIN_TIMEOUT_S, le=MAX_TIMEOUT_S)] = DEFAULT_TIMEOUT_S
    runtime: RuntimeName = "python"
    # The URL of the reply queue that a request polls until reply_by; None for an asynchronous job.
    reply_to: Annotated[str, Meta(min_length=1, max_length=1024)] | None
    submitted_at: float
    reply_by: float  # a later reply goes to the results queue
    start_deadline: float  # from then on, no host starts it


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


class ResourceUsage(Struct, frozen=True, kw_only=True):
    """The resources of a run: wall time, CPU time of all processes, peak memory of the sandbox, time in the queue."""

    duration_ms: Annotated[int, Meta(ge=0)]
    cpu_ms: Annotated[int, Meta(ge=0)]
    memory_bytes: Annotated[int, Meta(ge=0)]
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
    usage: ResourceUsage
    runtime: RuntimeName
    python_version: Annotated[str, Meta(pattern=r"^3\.[0-9]{1,2}\Z")]


class Failure(Struct, frozen=True, kw_only=True, tag_field="kind", tag="failure"):
    """The reply for a job that has no result."""

    version: int = WIRE_VERSION
    id: str
    reason: FailureReason


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


Message = Job | Result | Failure | HostReport
Reply = Result | Failure

_json_encoder: Final = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"))
_json_decoder: Final = msgspec.json.Decoder(Message)
_msgpack_decoder: Final = msgspec.msgpack.Decoder(Message)


def encode(message: Message) -> str:
    """Encode a message for SQS: ASCII JSON, or base64 of compressed MessagePack if the JSON is large.

    SQS rejects control characters and lone surrogates, so everything but ASCII is escaped. Raise ContractError if the
    message exceeds the limit of SQS.
    """
    packed = msgspec.msgpack.encode(message)
    if len(packed) <= COMPRESSION_THRESHOLD_BYTES:  # otherwise its JSON, which takes longer, would be larger as well
        body = _json_encoder.encode(msgspec.to_builtins(message))
        if len(body) <= COMPRESSION_THRESHOLD_BYTES:
            return body
    body = base64.b64encode(_deflate(packed)).decode("ascii")
    if len(body) > MAX_MESSAGE_BYTES:
        raise ContractError(f"message of {len(body)} bytes exceeds {MAX_MESSAGE_BYTES}")
    return body


def compress(message: Message) -> bytes:
    """Return the compressed MessagePack of a message, a fraction of its JSON."""
    return _deflate(msgspec.msgpack.encode(message))


def compressed_program_bytes(code: str, *, stdin: str, args: tuple[str, ...]) -> int:
    """Return the bytes of a program in a message; more than MAX_COMPRESSED_PROGRAM_BYTES do not fit into one."""
    job = Job(
        code=code, input=stdin, args=args, id="0" * 32, reply_to=None, submitted_at=0, reply_by=0, start_deadline=0
    )
    return len(compress(job))


def decode_job(body: str) -> Job:
    """Decode a job. Raise ContractError for anything else."""
    message = _decode(body)
    if not isinstance(message, Job):
        raise ContractError("not a job")
    return message


def decode_reply(body: str | bytes) -> Reply:
    """Decode a result or a failure as `encode` or `compress` wrote it. Raise ContractError for anything else."""
    message = _decode(body)
    if not isinstance(message, Reply):
        raise ContractError("not a reply")
    return message


def decode_from_host(body: str) -> Reply | HostReport:
    """Decode a message of the results queue. Raise ContractError for anything else."""
    message = _decode(body)
    if isinstance(message, Job):
        raise ContractError("not from a host")
    return message


def _decode(body: str | bytes) -> Message:
    try:
        message: Message
        if isinstance(body, str) and body.startswith("{"):
            message = _json_decoder.decode(body)
        else:
            data = body if isinstance(body, bytes) else base64.b64decode(body, validate=True)
            message = _msgpack_decoder.decode(_inflate(data))
    except (ValueError, RecursionError, zlib.error) as error:  # those of msgspec, base64 and Unicode are ValueErrors
        raise ContractError("not a message of the wire format") from error
    if message.version != WIRE_VERSION:
        raise ContractError(f"wire version {message.version} instead of {WIRE_VERSION}")
    return message


def _deflate(packed: bytes) -> bytes:
    return zlib.compress(packed, level=COMPRESSION_LEVEL)


def _inflate(data: bytes) -> bytes:
    inflater = zlib.decompressobj()
    packed = inflater.decompress(data, MAX_DECODED_BYTES)
    if not inflater.eof:
        raise ContractError("compressed message is cut short or too large")
    return packed
