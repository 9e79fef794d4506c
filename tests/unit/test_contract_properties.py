"""The wire format under generated messages: what one side writes the other reads, and nothing else passes."""

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chalicelib import contract
from chalicelib.contract import (
    ContractError,
    Failure,
    FailureReason,
    HostReport,
    Job,
    OutputBytes,
    ResourceUsage,
    Result,
    RuntimeReport,
    Status,
    Truncated,
    UncaughtException,
    decode_from_host,
    decode_job,
    decode_reply,
    encode,
    pack,
    unpack_job,
    unpack_reply,
)

JOB_IDS = st.text("0123456789abcdef", min_size=32, max_size=32)
MAX_STDERR_BYTES = contract.STDERR_HEAD_BYTES + contract.STDERR_TAIL_BYTES
COUNTS = st.integers(0, 2**53)
TIMES = st.floats(0, 1e11)


def texts(max_bytes, min_chars=0):
    """Short texts, and a short text repeated until it fills the field."""
    short = st.text(min_size=min_chars, max_size=20)
    full = st.text(min_size=1, max_size=3).map(lambda text: text * (max_bytes // len(text.encode())))
    return short | short | full


JOBS = st.builds(
    Job,
    id=JOB_IDS,
    code=texts(contract.MAX_CODE_BYTES, min_chars=1),
    input=texts(contract.MAX_INPUT_BYTES),
    args=st.lists(st.text(max_size=20), max_size=contract.MAX_ARGS).map(tuple),
    timeout_s=st.floats(contract.MIN_TIMEOUT_S, contract.MAX_TIMEOUT_S),
    reply_to=st.none() | st.text(min_size=1, max_size=100),
    reply_upload_url=st.text(max_size=100).map("https://{}".format),
    submitted_at=TIMES,
    reply_by=TIMES,
    start_deadline=TIMES,
)
RESULTS = st.builds(
    Result,
    id=JOB_IDS,
    status=st.sampled_from(Status),
    exit_code=st.none() | st.integers(0, 255),
    signal=st.none() | st.text(max_size=10),
    stdout=texts(contract.MAX_STDOUT_BYTES),
    stderr=texts(MAX_STDERR_BYTES),
    truncated=st.builds(Truncated, stdout=st.booleans(), stderr=st.booleans()),
    output_bytes=st.builds(OutputBytes, stdout=COUNTS, stderr=COUNTS),
    error=st.none()
    | st.builds(
        UncaughtException,
        type=st.text(max_size=20),
        message=texts(contract.MAX_ERROR_MESSAGE_CHARS),
        line=st.none() | COUNTS,
    ),
    usage=st.builds(ResourceUsage, duration_ms=COUNTS, cpu_ms=COUNTS, memory_bytes=COUNTS, queued_ms=COUNTS),
    runtime=st.sampled_from(["python", "data"]),
    python_version=st.sampled_from(["3.9", "3.13"]),
)
FAILURES = st.builds(Failure, id=JOB_IDS, reason=st.sampled_from(FailureReason))
REPORTS = st.builds(
    HostReport,
    host=st.text("abc-. ~!", min_size=1, max_size=128),
    agent_version=st.text(max_size=32),
    runtimes=st.lists(
        st.builds(RuntimeReport, name=st.sampled_from(["python", "data"]), ready=COUNTS, running=COUNTS), max_size=2
    ).map(tuple),
    sent_at=TIMES,
)
MESSAGES = JOBS | RESULTS | FAILURES | REPORTS
DECODERS = {"job": decode_job, "reply": decode_reply, "from_host": decode_from_host}
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=3), values, max_size=3),
    max_leaves=5,
)
each_decoder = pytest.mark.parametrize("decode", DECODERS.values(), ids=DECODERS)


def decode_or_reject(decode, body):
    """Decode a body that may be malformed; any exception but ContractError fails the test."""
    try:
        return decode(body)
    except ContractError:
        return None


@given(JOBS)
def test_job_survives_the_round_trip(job):
    assert decode_job(encode(job)) == unpack_job(pack(job)) == job


@given(RESULTS | FAILURES)
def test_reply_survives_the_round_trip(reply):
    assert decode_reply(encode(reply)) == decode_from_host(encode(reply)) == unpack_reply(pack(reply)) == reply


@given(MESSAGES)
def test_encoded_message_is_ascii_and_its_payload_within_the_limit(message):
    assert encode(message).isascii()
    assert len(pack(message)) < contract.MAX_PAYLOAD_BYTES


@given(MESSAGES, st.data())
def test_cut_payload_is_rejected(message, data):
    unpack = unpack_job if isinstance(message, Job) else unpack_reply
    packed = pack(message)
    cut = data.draw(st.integers(1, min(50, len(packed))))
    assert decode_or_reject(unpack, packed[:-cut]) is None


@given(st.binary())
def test_arbitrary_payload_is_rejected(data):
    assert decode_or_reject(unpack_job, data) is None
    assert decode_or_reject(unpack_reply, data) is None


@each_decoder
@given(st.text() | st.text().map(lambda text: "{" + text) | JSON_VALUES.map(json.dumps))
def test_arbitrary_body_is_rejected(decode, body):
    with pytest.raises(ContractError):
        decode(body)


@each_decoder
@settings(max_examples=200)
@given(MESSAGES, st.data(), JSON_VALUES)
def test_changed_message_is_valid_or_rejected(decode, message, data, value):
    fields = msgspec.to_builtins(message)
    fields[data.draw(st.sampled_from(sorted(fields)))] = value
    decoded = decode_or_reject(decode, json.dumps(fields))
    assert decoded is None or decode(encode(decoded)) == decoded
