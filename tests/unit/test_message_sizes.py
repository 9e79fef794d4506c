"""The largest programs and results, with the texts that compress worst, fit wherever they are sent and stored."""

import json
import random

import pytest

from chalicelib import contract
from chalicelib.api.responses import json_response
from chalicelib.contract import Job, OutputBytes, UncaughtException, compress, decode_job, decode_reply, encode
from chalicelib.jobs.job_table import JobRecord, JobState, to_item
from chalicelib.jobs.job_view import result_body
from tests.support.records import make_result

ID = "0" * 32
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
def test_largest_result_fits_everywhere(alphabet):
    result = largest_result(alphabet)
    body = encode(result)
    assert len(body) <= contract.MAX_MESSAGE_BYTES
    assert decode_reply(body) == decode_reply(compress(result)) == result
    record = JobRecord(
        job_id=ID,
        key_id="k" * 64,
        state=JobState.FINISHED,
        body_sha256="f" * 64,
        claim_token="t" * 32,
        claim_expires_at=2**31,
        start_deadline=2**31,
        retained_until=2**31,
        reply=compress(result),
        webhook_url="https://" + "u" * 2048,
        webhook_error="e" * 1024,
    )
    # https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html: names and values together
    values = {name: next(iter(value.values())) for name, value in to_item(record).items()}
    item_bytes = sum(
        len(name) + len(value if isinstance(value, bytes) else str(value)) for name, value in values.items()
    )
    assert item_bytes < 400 * 1024 * 0.9
    response = json_response(result_body(result)).to_dict()
    assert len(json.dumps(response)) < 6 * 1024 * 1024 * 0.9  # of AWS Lambda


def fill(filler, limit_bytes):
    return filler * (limit_bytes // len(filler.encode()))


def largest_job(**changes):
    times = {"submitted_at": 1_700_000_000.123456, "reply_by": 1_700_000_020.654321, "start_deadline": 1_700_000_120.5}
    return Job(id="0123456789abcdef" * 2, reply_to=text_of([ASCII[32:]], 1024), timeout_s=3.3, **times, **changes)


@pytest.mark.parametrize("filler", ["x", "\x01", '"', "\u00fc", "\ufffe", "\U0001f600"], ids=ascii)
def test_largest_repetitive_program_fits_in_a_message(filler):
    job = largest_job(
        code=fill(filler, contract.MAX_CODE_BYTES),
        input=fill(filler, contract.MAX_INPUT_BYTES),
        args=(fill(filler, contract.MAX_ARGS_BYTES // contract.MAX_ARGS),) * contract.MAX_ARGS,
    )
    body = encode(job)
    assert len(body) <= contract.MAX_MESSAGE_BYTES
    assert decode_job(body) == job


def text_without_repetitions(alphabets, block):
    """Return `block` characters of each alphabet. No three of them occur again in the 32 KiB in which zlib looks."""
    chooser, last_seen, characters = random.Random(1), {}, ["?", "!"]  # noqa: S311
    for alphabet in alphabets:
        end = len(characters) + block
        while len(characters) < end:
            character = chooser.choice(alphabet)
            three = (*characters[-2:], character)
            if len(characters) - last_seen.get(three, -40_000) > 33_000:
                last_seen[three] = len(characters)
                characters.append(character)
    return "".join(characters[2:])


def test_job_adds_little_to_its_compressed_program():
    """A block of zlib has 16,383 symbols and one code. If the other members shifted these blocks, this text would grow.

    With `reply_to` in front of the program, by 10 KB.
    """
    code = text_without_repetitions([ASCII[:64], ASCII[64:]] * 7, 16_383)
    compressed_bytes = contract.compressed_program_bytes(code, stdin="", args=())
    reserved_bytes = contract.MAX_MESSAGE_BYTES // 4 * 3 - contract.MAX_COMPRESSED_PROGRAM_BYTES
    assert 0 < len(compress(largest_job(code=code))) - compressed_bytes < reserved_bytes / 2


def test_message_above_sqs_limit_is_rejected():
    with pytest.raises(contract.ContractError, match="exceeds 1048576"):
        encode(largest_job(code="1", input=text_of([ASCII], contract.MAX_INPUT_BYTES)))
