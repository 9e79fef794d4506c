"""The payload store as the API and as a host use it, in memory and in the emulator's bucket."""

import time
import uuid
from types import SimpleNamespace

import boto3
import pytest
from botocore.config import Config
from msgspec.structs import replace
from urllib3 import PoolManager

from chalicelib.contract import MAX_PAYLOAD_BYTES, Failure, FailureReason, Job, ReplyReference, pack, unpack_job
from chalicelib.jobs.payload_store import PayloadStore, PayloadStoreError
from executor_host.payloads import PayloadClient, PayloadError, PayloadRejectedError
from infra.local.emulated_aws import create_resources
from infra.local.processes import free_port
from tests.support.fakes.payloads import FakePayloadClient, FakePayloadStore
from tests.support.records import make_result


def session(environment):
    return boto3.Session(
        region_name=environment["AWS_DEFAULT_REGION"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
    )


def real_store(environment, url):
    credentials = session(environment).get_credentials()
    return PayloadStore(url=url, region=environment["AWS_DEFAULT_REGION"], credentials=credentials, http=PoolManager())


@pytest.fixture(scope="module")
def emulated_store(aws):
    url = create_resources(aws.environment, stack="payload-store")["PAYLOAD_STORE_URL"]
    return SimpleNamespace(store=real_store(aws.environment, url), host=PayloadClient(url, workers=2))


@pytest.fixture(params=["fake", "emulator"])
def sides(request):
    if request.param == "emulator":
        return request.getfixturevalue("emulated_store")
    store, host = FakePayloadStore(), FakePayloadClient()
    host.objects = store.objects
    return SimpleNamespace(store=store, host=host)


@pytest.fixture
def job():
    now = int(time.time())
    times = {"submitted_at": now, "reply_by": now, "start_deadline": now + 60}
    return Job(id=uuid.uuid4().hex, code="c", reply_to=None, reply_upload_url="https://unused", **times)


def upload(sides, job, data):
    sides.host.put(sides.store.reply_upload_url(job.id, start_deadline=job.start_deadline), data)


@pytest.mark.parametrize("size", [0, 10, 1024 * 1024], ids=str)
def test_host_gets_the_stored_job(sides, job, size):
    sent = replace(job, input="x" * size)
    reference = sides.store.put_job(sent, pack(sent))
    assert unpack_job(sides.host.get(reference.url)) == sent


@pytest.mark.parametrize("size", [0, 10, 4 * 1024 * 1024], ids=str)
def test_api_reads_the_reply_of_the_host(sides, job, size):
    result = make_result(job.id, stdout="x" * size)
    upload(sides, job, pack(result))
    assert sides.store.read_reply(ReplyReference(id=job.id)) == result


def test_message_with_a_reply_is_that_reply(sides):
    result = make_result("0" * 32)
    assert sides.store.read_reply(result) is result


def test_first_reply_is_kept(sides, job):
    for number in range(3):
        upload(sides, job, pack(make_result(job.id, stdout=f"run {number}")))
    assert sides.store.read_reply(ReplyReference(id=job.id)).stdout == "run 0"


def test_object_that_is_no_reply_is_a_failure(sides, job):
    upload(sides, job, b"garbage")
    expected = Failure(id=job.id, reason=FailureReason.PAYLOAD_LOST)
    assert sides.store.read_reply(ReplyReference(id=job.id)) == expected


def test_deleted_objects_are_gone(sides, job):
    reference = sides.store.put_job(job, pack(job))
    upload(sides, job, pack(make_result(job.id)))
    for _ in range(2):
        sides.store.delete(job.id)
    with pytest.raises(PayloadStoreError):
        sides.store.read_reply(ReplyReference(id=job.id))
    with pytest.raises(PayloadRejectedError):
        sides.host.get(reference.url)


def test_too_large_object_is_a_failure(emulated_store, job):
    upload(emulated_store, job, bytes(MAX_PAYLOAD_BYTES + 1))
    expected = Failure(id=job.id, reason=FailureReason.PAYLOAD_LOST)
    assert emulated_store.store.read_reply(ReplyReference(id=job.id)) == expected


def test_url_serves_one_object_and_method(emulated_store, job):
    reference = emulated_store.store.put_job(job, pack(job))
    upload_url = emulated_store.store.reply_upload_url(job.id, start_deadline=job.start_deadline)
    assert reference.url != upload_url
    for url in (reference.url, upload_url):
        path, _, query = url.partition("?")
        assert path.endswith(f"/{job.id}")
        assert {part.partition("=")[0] for part in query.split("&")} == {
            *("X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders"),
            "X-Amz-Signature",
        }
    assert "X-Amz-SignedHeaders=host&" in reference.url
    assert "X-Amz-SignedHeaders=host%3Bif-none-match&" in upload_url


def test_urls_expire_with_the_job(emulated_store, job):
    for now, expires_s in ((job.start_deadline - 60.5, 661), (job.start_deadline + 10_000, 1)):
        store = replace(emulated_store.store, clock=lambda now=now: now)
        url = store.reply_upload_url(job.id, start_deadline=job.start_deadline)
        assert f"X-Amz-Expires={expires_s}&" in url


def test_presigned_url_is_the_one_of_boto3(aws, emulated_store, job):
    """The signer is botocore's; this is what boto3's S3 client builds around it."""
    bucket = emulated_store.store.url.rpartition("/")[2]
    options = {"config": Config(signature_version="s3v4"), "endpoint_url": aws.environment["AWS_ENDPOINT_URL"]}
    s3 = session(aws.environment).client("s3", **options)
    for _ in range(20):  # until both are signed in the same second
        expected = s3.generate_presigned_url(
            "put_object",
            Params={"Bucket": bucket, "Key": f"replies/{job.id}", "IfNoneMatch": "*"},
            ExpiresIn=660,
        )
        store = replace(emulated_store.store, clock=lambda: job.start_deadline - 60)
        url = store.reply_upload_url(job.id, start_deadline=job.start_deadline)
        if url == expected:
            break
    assert sorted(url.split("&")) == sorted(expected.split("&"))


@pytest.fixture
def unreachable(aws):
    url = f"http://127.0.0.1:{free_port()}/payloads"
    return SimpleNamespace(store=real_store(aws.environment, url), host=PayloadClient(url, workers=1))


def test_unreachable_store_raises_without_its_urls(unreachable, job):
    upload_url = unreachable.store.reply_upload_url(job.id, start_deadline=job.start_deadline)
    calls = (
        lambda: unreachable.store.put_job(job, pack(job)),
        lambda: unreachable.store.read_reply(ReplyReference(id=job.id)),
        lambda: unreachable.store.delete(job.id),
        lambda: unreachable.host.get(upload_url),
        lambda: unreachable.host.put(upload_url, b""),
    )
    for call in calls:
        with pytest.raises((PayloadStoreError, PayloadError)) as raised:
            call()
        assert "Signature" not in str(raised.getrepr(showlocals=False, chain=True))
