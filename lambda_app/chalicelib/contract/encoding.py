"""Encodes messages for SQS and for the jobs table, and decodes them."""

import base64
import json
import zlib
from typing import Final

import msgspec

from chalicelib.contract.files import InputFile
from chalicelib.contract.limits import COMPRESSION_THRESHOLD_BYTES, MAX_DECODED_BYTES, MAX_MESSAGE_BYTES
from chalicelib.contract.messages import WIRE_VERSION, HostReport, Job, Message, Reply, Run

COMPRESSION_LEVEL: Final = 1  # of zlib; level 6 saves a tenth of the size and takes up to seven times as long


class ContractError(Exception):
    """Raised for bytes that are not a valid message of this version, and for a message that is too large to send."""


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


def compressed_program_bytes(
    code: str,
    *,
    stdin: str = "",
    args: tuple[str, ...] = (),
    files: tuple[InputFile, ...] = (),
    artifacts: tuple[str, ...] = (),
    runs: tuple[Run, ...] = (),
) -> int:
    """Return the bytes of a program in a message; more than MAX_COMPRESSED_PROGRAM_BYTES do not fit into one."""
    job = Job(
        code=code,
        input=stdin,
        args=args,
        files=files,
        artifacts=artifacts,
        runs=runs,
        id="0" * 32,
        reply_to=None,
        submitted_at=0,
        reply_by=0,
        start_deadline=0,
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
