"""The largest programs and results fit wherever they are sent and stored."""

import json
import random

import pytest

from chalicelib import contract
from chalicelib.api.responses import json_response
from chalicelib.contract import (
    Job,
    OutputBytes,
    ReplyReference,
    UncaughtException,
    encode,
    pack,
    unpack_job,
    unpack_reply,
)
from chalicelib.jobs.job_table import JobRecord, JobState, to_item
from chalicelib.jobs.job_view import result_body
from tests.support.records import make_result

ID = "0" * 32
LAMBDA_RESPONSE_BYTES = 6 * 1024 * 1024  # https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
REPLACEMENT = "\ufffd"  # what an invalid byte of a program's output becomes
ASCII = [chr(number) for number in range(128)]
TWO_BYTES = [chr(number) for number in range(0x80, 0x800)]
ALPHABETS = {  # each character of a text is of one of these, with the same probability
    "escaped_byte": ["\x01"],
    "quotes": ['"'],
    "invalid_bytes": [REPLACEMENT],
    "letters": ["x"],
    "ascii": [ASCII],
    "control_characters": [ASCII[:32]],
    "two_bytes": [TWO_BYTES],
    "three_bytes": [[chr(number) for number in range(0x800, 0xD800)]],
    "four_bytes": [[chr(number) for number in range(0x10000, 0x110000)]],
    "ascii_and_two_bytes": [*[ASCII] * 4, TWO_BYTES],  # the most bits in each byte
    "ascii_and_invalid_bytes": [*[ASCII] * 4, REPLACEMENT],
    "two_bytes_and_invalid_bytes": [*[TWO_BYTES] * 2, REPLACEMENT],
}
each_alphabet = pytest.mark.parametrize("alphabet", ALPHABETS.values(), ids=ALPHABETS)


def text_of(alphabet, written_bytes):
    """Return what a program writes, or receives, in this many bytes."""
    chooser = random.Random(written_bytes)  # noqa: S311
    characters = []
    while written_bytes > 0:
        character = chooser.choice(chooser.choice(alphabet))
        written_bytes -= 1 if character == REPLACEMENT else len(character.encode())
        characters.append(character)
    return "".join(characters if written_bytes == 0 else characters[:-1])


def largest_result(alphabet):
    field = text_of(alphabet, 4 * contract.MAX_ERROR_MESSAGE_CHARS)[: contract.MAX_ERROR_MESSAGE_CHARS]
    return make_result(
        ID,
        stdout=text_of(alphabet, contract.MAX_STDOUT_BYTES),
        stderr=text_of(alphabet, contract.STDERR_HEAD_BYTES + contract.STDERR_TAIL_BYTES),
        output_bytes=OutputBytes(stdout=contract.MAX_STREAM_BYTES, stderr=contract.MAX_STREAM_BYTES),
        error=UncaughtException(type=field, message=field, line=2**31),
    )


@each_alphabet
def test_largest_result_fits_in_payload_and_response(alphabet):
    result = largest_result(alphabet)
    assert unpack_reply(pack(result)) == result
    response = json_response(result_body(result)).to_dict()
    assert len(json.dumps(response, ensure_ascii=False).encode()) < LAMBDA_RESPONSE_BYTES * 0.9


@each_alphabet
def test_largest_reply_in_a_message_fits_in_an_item(alphabet):
    """A reply in a larger message is a reference."""
    text = text_of(alphabet, contract.MAX_STDOUT_BYTES)
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        is_message = len(encode(make_result(ID, stdout=text[:middle]))) <= contract.MAX_MESSAGE_BYTES
        low, high = (middle, high) if is_message else (low, middle - 1)
    for reply in (make_result(ID, stdout=text[:low]), ReplyReference(id=ID)):
        assert item_bytes(reply) < 400 * 1024 * 0.9


def item_bytes(reply):
    """Return the bytes of the names and values of an item with this reply.

    https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html
    """
    record = JobRecord(
        job_id=ID,
        key_id="k" * 64,
        state=JobState.FINISHED,
        body_sha256="f" * 64,
        claim_token="t" * 32,
        claim_expires_at=2**31,
        start_deadline=2**31,
        retained_until=2**31,
        reply=pack(reply),
        webhook_url="https://" + "u" * 2048,
        webhook_error="e" * 1024,
    )
    values = {name: next(iter(value.values())) for name, value in to_item(record).items()}
    return sum(len(name) + len(value if isinstance(value, bytes) else str(value)) for name, value in values.items())


def fill(filler, limit_bytes):
    return filler * (limit_bytes // len(filler.encode()))


@pytest.mark.parametrize("filler", ["x", "\x01", '"', "\u00fc", "\ufffe", "\U0001f600"], ids=ascii)
def test_largest_job_fits_in_payload(filler):
    job = Job(
        id="0123456789abcdef" * 2,
        reply_to=text_of([ASCII[32:]], 1024),
        reply_upload_url="https://" + text_of([ASCII[32:]], 8184),
        timeout_s=3.3,
        submitted_at=1_700_000_000.123456,
        reply_by=1_700_000_020.654321,
        start_deadline=1_700_000_120.5,
        code=fill(filler, contract.MAX_CODE_BYTES),
        input=fill(filler, contract.MAX_INPUT_BYTES),
        args=(fill(filler, contract.MAX_ARGS_BYTES // contract.MAX_ARGS),) * contract.MAX_ARGS,
    )
    assert unpack_job(pack(job)) == job
