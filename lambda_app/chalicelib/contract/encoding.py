"""Encodes messages for SQS, for the payload store and for the jobs table, and decodes them."""

import json
from collections.abc import Callable
from typing import Final

import msgspec

from chalicelib.contract.limits import MAX_MESSAGE_BYTES, MAX_PAYLOAD_BYTES
from chalicelib.contract.messages import WIRE_VERSION, HostReport, Job, JobMessage, Message, ReplyMessage


class ContractError(Exception):
    """Raised for bytes that are not a valid message of this version."""


_json_encoder: Final = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"))
_json_decoder: Final = msgspec.json.Decoder(Message)
_msgpack_decoder: Final = msgspec.msgpack.Decoder(Message)


def encode(message: Message) -> str:
    """Encode a small message for SQS, as ASCII JSON: SQS rejects control characters and lone surrogates."""
    return _json_encoder.encode(msgspec.to_builtins(message))


def pack(message: Message) -> bytes:
    """Encode a message for the payload store or the jobs table, as MessagePack."""
    return msgspec.msgpack.encode(message)


def encode_or_pack(message: Message) -> str | bytes:
    """Return the JSON of a message for SQS or, if it has more than MAX_MESSAGE_BYTES, what `pack` returns."""
    packed = pack(message)
    if len(packed) <= MAX_MESSAGE_BYTES:  # otherwise its JSON, which takes several times the memory, would be larger
        body = encode(message)
        if len(body) <= MAX_MESSAGE_BYTES:
            return body
    return packed


def decode_job(body: str) -> JobMessage:
    """Decode a message of the job queue. Raise ContractError for anything else."""
    message = _decode(body)
    if not isinstance(message, JobMessage):
        raise ContractError("not a job")
    return message


def decode_reply(body: str) -> ReplyMessage:
    """Decode a message of a reply queue. Raise ContractError for anything else."""
    return _require_reply(_decode(body))


def decode_from_host(body: str) -> ReplyMessage | HostReport:
    """Decode a message of the results queue. Raise ContractError for anything else."""
    message = _decode(body)
    if isinstance(message, JobMessage):
        raise ContractError("not from a host")
    return message


def unpack_job(data: bytes) -> Job:
    """Decode a job as `pack` wrote it. Raise ContractError for anything else."""
    message = _unpack(data)
    if not isinstance(message, Job):
        raise ContractError("not a job")
    return message


def unpack_reply(data: bytes) -> ReplyMessage:
    """Decode a reply, or the reference of one, as `pack` wrote it. Raise ContractError for anything else."""
    return _require_reply(_unpack(data))


def _require_reply(message: Message) -> ReplyMessage:
    if not isinstance(message, ReplyMessage):
        raise ContractError("not a reply")
    return message


def _decode(body: str) -> Message:
    return _check(lambda: _json_decoder.decode(body))


def _unpack(data: bytes) -> Message:
    if len(data) > MAX_PAYLOAD_BYTES:
        raise ContractError(f"a payload has more than {MAX_PAYLOAD_BYTES} bytes")
    return _check(lambda: _msgpack_decoder.decode(data))


def _check(decode: Callable[[], Message]) -> Message:
    try:
        message = decode()
    except (ValueError, RecursionError) as error:  # those of msgspec and Unicode are ValueErrors
        raise ContractError("not a message of the wire format") from error
    if message.version != WIRE_VERSION:
        raise ContractError(f"wire version {message.version} instead of {WIRE_VERSION}")
    return message
