import base64
import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from chalicelib import contract
from chalicelib.contract import (
    MAX_ARTIFACT_PATTERNS,
    MAX_ARTIFACTS,
    MAX_FILES,
    Artifact,
    BatchResult,
    ContractError,
    Failure,
    FailureReason,
    InputFile,
    Job,
    JobHeader,
    JobReference,
    OmissionReason,
    OmittedArtifact,
    OutputBytes,
    ReplyReference,
    ResourceUsage,
    Result,
    Run,
    RunResult,
    RunUsage,
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
from tests.support.records import make_host_report

GOLDEN = Path(__file__).parents[1] / "golden"
ID = "0123456789abcdef0123456789abcdef"

JOB = Job(
    id=ID,
    code="print(input())",
    input="ü😀\x01",
    args=("-v", "ü"),
    files=(InputFile(path="data/ü.bin", content=b"\xff\0"), InputFile(path="empty", content=b"")),
    artifacts=("*.png", "out/**"),
    timeout_s=2.5,
    reply_to="https://sqs.eu-central-1.amazonaws.com/123456789012/python-exec-reply-1",
    reply_upload_url=f"https://b.s3.eu-central-1.amazonaws.com/replies/{ID}?X-Amz-Signature=0",
    submitted_at=1700000000.25,
    reply_by=1700000020.25,
    start_deadline=1700000020.25,
)
RESULT = Result(
    id=ID,
    status=Status.ERROR,
    exit_code=1,
    signal=None,
    stdout="1\n",
    stderr="Traceback\ufffd\n",
    truncated=Truncated(stdout=True),
    output_bytes=OutputBytes(stdout=300_000, stderr=12),
    error=UncaughtException(type="ValueError", message="no", line=3),
    artifacts=(Artifact(path="out/a.bin", content=b"\xff\0"),),
    artifacts_omitted=(
        OmittedArtifact(path="out/b.bin", reason=OmissionReason.TOO_LARGE),
        OmittedArtifact(path=None, reason=OmissionReason.TOO_MANY, count=7),
    ),
    usage=ResourceUsage(duration_ms=12, cpu_ms=11, memory_bytes=9531392, queued_ms=4),
    runtime="python",
    python_version="3.13",
)
BATCH = replace(
    JOB, input="", args=(), runs=(Run(input="ü"), Run(input="2\n", args=("-v",)), Run()), stop_on_failure=True
)
BATCH_RESULT = BatchResult(
    id=ID,
    runs=(
        RunResult(
            **{name: getattr(RESULT, name) for name in RunResult.__struct_fields__ if name != "usage"},
            usage=RunUsage(duration_ms=12, cpu_ms=11, memory_bytes=9531392),
        ),
        None,
        None,
    ),
    queued_ms=4,
    runtime="python",
    python_version="3.13",
)
FAILURE = Failure(id=ID, reason=FailureReason.START_TIMEOUT)
HOST_REPORT = make_host_report(host="ip-10-0-0-1", sent_at=1700000000.25)
JOB_REFERENCE = JobReference(
    url=f"https://b.s3.eu-central-1.amazonaws.com/jobs/{ID}?X-Amz-Signature=1",
    **{name: getattr(JOB, name) for name in JobHeader.__struct_fields__},
)
MESSAGES = {
    "job": JOB,
    "job_reference": JOB_REFERENCE,
    "reply_reference": ReplyReference(id=ID),
    "job_async": replace(JOB, reply_to=None),
    "batch": BATCH,
    "result": RESULT,
    "batch_result": BATCH_RESULT,
    "failure": FAILURE,
    "host_report": HOST_REPORT,
    "failure_host_lost": Failure(id=ID, reason=FailureReason.HOST_LOST),
}

FILLERS = {
    "ascii": "x",
    "control": "\x01",
    "quote": '"',
    "backslash": "\\",
    "two_bytes": "\u00fc",
    "noncharacter": "\ufffe",
    "replacement": "\ufffd",
    "astral": "\U0001f600",
    "last_astral": "\U0010ffff",
}


def golden(name):
    return (GOLDEN / name).read_text(encoding="ascii").rstrip("\n")


def decode(body):
    return decode_job(body) if '"kind":"job' in body[:30] else decode_from_host(body)


def job(**changes):
    return Job(**{name: getattr(JOB, name) for name in Job.__struct_fields__} | changes)


def result(**changes):
    return Result(**{name: getattr(RESULT, name) for name in Result.__struct_fields__} | changes)


@pytest.mark.parametrize("name", MESSAGES)
def test_encode_writes_the_golden_file(name):
    assert encode(MESSAGES[name]) == golden(f"{name}.json")


@pytest.mark.parametrize("name", MESSAGES)
def test_decode_reads_the_golden_file(name):
    assert decode(golden(f"{name}.json")) == MESSAGES[name]


@pytest.mark.parametrize(("name", "unpack"), [("failure", unpack_reply), ("job", unpack_job)])
def test_pack_writes_and_unpack_reads_the_golden_file(name, unpack):
    data = base64.b64decode(golden(f"{name}.msgpack.base64"))
    assert (pack(MESSAGES[name]), unpack(data)) == (data, MESSAGES[name])


@pytest.mark.parametrize("filler", FILLERS.values(), ids=FILLERS)
@pytest.mark.parametrize("length", [1, 100_000])
def test_encoded_body_uses_only_sqs_safe_characters(filler, length):
    assert set(encode(job(input=filler * (length // len(filler.encode()) or 1)))) <= set(map(chr, range(32, 127)))


@pytest.mark.parametrize("reply", [RESULT, FAILURE, ReplyReference(id=ID)], ids=["result", "failure", "reference"])
def test_packed_reply_round_trips(reply):
    assert unpack_reply(pack(reply)) == reply


def test_unknown_field_is_ignored():
    assert decode_job(changed("job", later=[1])) == JOB


def changed(name, **changes):
    return json.dumps(json.loads(golden(f"{name}.json")) | changes)


def without(name, field):
    members = json.loads(golden(f"{name}.json"))
    del members[field]
    return json.dumps(members)


BAD_PATHS = (
    "",
    "/",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "./a",
    "a/.",
    "a/./b",
    "../a",
    "a/..",
    "a/../b",
    "a\0",
    "a\n/..",
    "a" * 256,
)
BAD_JOBS = {
    "empty": "",
    "text": "hello",
    "not_ascii": "ü",
    "lone_surrogate": "\ud800",
    "truncated_json": golden("job.json")[:-2],
    "trailing": golden("job.json") + "{}",
    "array": "[]",
    "null": "null",
    "nan": golden("job.json").replace("2.5", "NaN"),
    "deep": '{"kind":"job","later":' + "[" * 100_000,
    "no_kind": without("job", "kind"),
    "other_kind": changed("job", kind="jobs"),
    "a_result": golden("result.json"),
    "a_failure": golden("failure.json"),
    "a_host_report": golden("host_report.json"),
    "version": changed("job", version=2),
    "version_text": changed("job", version="1"),
    "id_short": changed("job", id="0123"),
    "id_upper": changed("job", id=ID.upper()),
    "id_path": changed("job", id="../" + ID[3:]),
    "id_newline": changed("job", id=ID + "\n"),
    "id_missing": without("job", "id"),
    "code_missing": without("job", "code"),
    "code_empty": changed("job", code=""),
    "code_number": changed("job", code=1),
    "code_surrogate": changed("job", code="\ud800"),
    "code_too_long": changed("job", code="x" * (contract.MAX_CODE_BYTES + 1)),
    "input_too_long": changed("job", input="x" * (contract.MAX_INPUT_BYTES + 1)),
    "input_null": changed("job", input=None),
    "args_null": changed("job", args=None),
    "args_number": changed("job", args=[1]),
    "args_too_many": changed("job", args=["x"] * (contract.MAX_ARGS + 1)),
    "arg_too_long": changed("job", args=["x" * (contract.MAX_ARGS_BYTES + 1)]),
    "runs_too_many": changed("batch", runs=[{}] * (contract.MAX_BATCH_RUNS + 1)),
    "runs_null": changed("batch", runs=None),
    "run_null": changed("batch", runs=[None]),
    "run_input_too_long": changed("batch", runs=[{"input": "x" * (contract.MAX_INPUT_BYTES + 1)}]),
    "files_too_many": changed("job", files=[{"path": f"{n}", "content_base64": ""} for n in range(MAX_FILES + 1)]),
    "file_without_content": changed("job", files=[{"path": "a"}]),
    "file_not_base64": changed("job", files=[{"path": "a", "content_base64": "?"}]),
    **{
        f"{name}_{number}": changed("job", **{name: [item(path)]})
        for name, item in {
            "files": lambda path: {"path": path, "content_base64": ""},
            "artifacts": lambda path: path,
        }.items()
        for number, path in enumerate(BAD_PATHS)
    },
    "patterns_too_many": changed("job", artifacts=["a"] * (MAX_ARTIFACT_PATTERNS + 1)),
    "timeout_low": changed("job", timeout_s=0.09),
    "timeout_high": changed("job", timeout_s=10.01),
    "timeout_bool": changed("job", timeout_s=True),
    "timeout_text": changed("job", timeout_s="3"),
    "reply_to_empty": changed("job", reply_to=""),
    "reply_to_missing": without("job", "reply_to"),
    "reply_by_missing": without("job", "reply_by"),
    "upload_url_missing": without("job", "reply_upload_url"),
    "upload_url_of_another_scheme": changed("job", reply_upload_url="file:///etc/passwd"),
    "upload_url_too_long": changed("job", reply_upload_url="https://" + "x" * 8192),
    "reference_without_url": without("job_reference", "url"),
    "reference_to_a_path": changed("job_reference", url="/jobs/1"),
    "reference_of_a_reply": golden("reply_reference.json"),
}


@pytest.mark.parametrize("path", ["a", "a/b", "...", ".a/..b", "a\n", " ", "a\\b", "ü" * 127, "C:/a", "*"])
def test_path_of_a_file_may_have_any_name(path):
    sent = job(files=(InputFile(path=path, content=b""),), artifacts=(path,))
    assert decode_job(encode(sent)) == sent


@pytest.mark.parametrize("body", BAD_JOBS.values(), ids=BAD_JOBS)
def test_invalid_job_is_rejected(body):
    with pytest.raises(ContractError):
        decode_job(body)


PACKED_JOB = pack(JOB)
BAD_PAYLOADS = {
    "empty": b"",
    "json": golden("job.json").encode(),
    "cut": PACKED_JOB[:-8],
    "trailing": PACKED_JOB + b" ",
    "too_large": PACKED_JOB + b" " * contract.MAX_PAYLOAD_BYTES,
    "not_utf8": PACKED_JOB.replace(b"print", b"\xffrint"),
    "huge_array": PACKED_JOB.replace(b"\xa4args\x92", b"\xa4args\xdd\xff\xff\xff\xff"),
    "huge_text": PACKED_JOB.replace(b"\xa4code\xae", b"\xa4code\xdb\xff\xff\xff\xff"),
    "huge_unknown_array": b"\x82\xa4kind\xa3job\xa5later\xdd\xff\xff\xff\xff",
    "deep": b"\x82\xa4kind\xa3job\xa5later" + b"\x91" * 1_000_000,
    "version": PACKED_JOB.replace(b"\xa7version\x03", b"\xa7version\x02"),
    "a_host_report": pack(HOST_REPORT),
}


@pytest.mark.parametrize("unpack", [unpack_job, unpack_reply])
@pytest.mark.parametrize("data", BAD_PAYLOADS.values(), ids=BAD_PAYLOADS)
def test_invalid_payload_is_rejected(unpack, data):
    assert data != PACKED_JOB
    with pytest.raises(ContractError):
        unpack(data)


def test_payload_of_another_kind_is_rejected():
    for unpack, message in ((unpack_job, RESULT), (unpack_job, JOB_REFERENCE), (unpack_reply, JOB)):
        with pytest.raises(ContractError):
            unpack(pack(message))


BAD_REPLIES = {
    "a_job": golden("job.json"),
    "a_host_report": golden("host_report.json"),
    "a_job_reference": golden("job_reference.json"),
    "version": changed("failure", version=0),
    "reference_to_another_object": changed("reply_reference", id="../../jobs/1"),
    "reason": changed("failure", reason="because"),
    "status": changed("result", status="fine"),
    "exit_code_text": changed("result", exit_code="0"),
    "exit_code_missing": without("result", "exit_code"),
    "stdout_null": changed("result", stdout=None),
    "output_bytes_negative": changed("result", output_bytes={"stdout": -1, "stderr": 0}),
    "output_bytes_missing": without("result", "output_bytes"),
    "batch_runs_too_many": changed("batch_result", runs=[None] * (contract.MAX_BATCH_RUNS + 1)),
    "batch_run_status": changed("batch_result", runs=[{"status": "ok"}]),
    "usage_negative": changed("result", usage={"duration_ms": -1, "cpu_ms": 0, "memory_bytes": 0, "queued_ms": 0}),
    "artifacts_too_many": changed("result", artifacts=[{"path": "a", "content_base64": ""}] * (MAX_ARTIFACTS + 1)),
    "artifact_outside": changed("result", artifacts=[{"path": "../a", "content_base64": ""}]),
    "omission_of_unknown_reason": changed("result", artifacts_omitted=[{"path": "a", "reason": "because"}]),
    "omission_of_none": changed("result", artifacts_omitted=[{"path": "a", "reason": "too_many", "count": 0}]),
    "error_message_too_long": changed("result", error={"type": "E", "message": "x" * 1001, "line": None}),
}


@pytest.mark.parametrize("body", BAD_REPLIES.values(), ids=BAD_REPLIES)
def test_invalid_reply_is_rejected(body):
    with pytest.raises(ContractError):
        decode_reply(body)


BAD_FROM_HOSTS = {
    "a_job": golden("job.json"),
    "version": changed("host_report", version=0),
    "host_empty": changed("host_report", host=""),
    "host_too_long": changed("host_report", host="h" * 129),
    "host_newline": changed("host_report", host="h\n"),
    "ready_negative": changed("host_report", runtimes=[{"name": "python", "ready": -1, "running": 0}]),
    "sent_before_the_epoch": changed("host_report", sent_at=-1),
}


@pytest.mark.parametrize("body", BAD_FROM_HOSTS.values(), ids=BAD_FROM_HOSTS)
def test_invalid_host_message_is_rejected(body):
    with pytest.raises(ContractError):
        decode_from_host(body)


def test_contract_error_does_not_quote_the_message():
    with pytest.raises(ContractError) as caught:
        decode_job(changed("job", kind="secret"))
    assert "secret" not in str(caught.value)
