import pytest
from botocore.exceptions import EndpointConnectionError
from msgspec.structs import replace

from chalicelib import problems
from chalicelib.contract import MAX_MESSAGE_BYTES, Job, decode_job, encode, unpack_job
from chalicelib.jobs.dispatcher import JobDispatcher
from tests.support.fakes.payloads import FakePayloadStore
from tests.support.fakes.sqs import client_error
from tests.support.problems import raises_problem
from tests.support.records import UPLOAD_URL

JOB = Job(
    id="0" * 32,
    code="c",
    reply_to=None,
    reply_upload_url=UPLOAD_URL,
    submitted_at=1.0,
    reply_by=2.0,
    start_deadline=3.0,
)


@pytest.fixture
def payloads():
    return FakePayloadStore()


@pytest.fixture
def dispatcher(sqs, job_queue_urls, payloads):
    return JobDispatcher(sqs, job_queue_urls=job_queue_urls, payloads=payloads)


def test_job_is_sent_in_the_message_group_of_its_key(sqs, job_queue_url, dispatcher):
    assert not dispatcher.send(JOB, key_id="key")
    (message,) = sqs.queues[job_queue_url].messages
    assert (decode_job(message.body), message.group) == (JOB, "key")
    assert dispatcher.payloads.objects == {}


def job_of(message_bytes):
    return replace(JOB, input="x" * (message_bytes - len(encode(JOB))))


def test_job_of_the_largest_message_is_sent_in_it(sqs, job_queue_url, dispatcher):
    assert not dispatcher.send(job_of(MAX_MESSAGE_BYTES), key_id="key")
    (message,) = sqs.queues[job_queue_url].messages
    assert len(message.body) == MAX_MESSAGE_BYTES


def test_larger_job_is_stored_and_its_reference_sent(sqs, job_queue_url, dispatcher):
    job = job_of(MAX_MESSAGE_BYTES + 1)
    assert dispatcher.send(job, key_id="key")
    (message,) = sqs.queues[job_queue_url].messages
    reference = decode_job(message.body)
    assert unpack_job(dispatcher.payloads.objects[reference.url]) == job
    assert (reference.id, reference.start_deadline, message.group) == (job.id, job.start_deadline, "key")
    assert reference.reply_upload_url == job.reply_upload_url


def test_payload_store_failure_sends_nothing_and_returns_503(sqs, job_queue_url, dispatcher):
    dispatcher.payloads.is_unavailable = True
    with raises_problem(problems.PAYLOAD_STORE_UNAVAILABLE) as raised:
        dispatcher.send(job_of(MAX_MESSAGE_BYTES + 1), key_id="key")
    assert (raised.value.problem.status, raised.value.headers) == (503, {"Retry-After": "2"})
    assert sqs.queues[job_queue_url].messages == []


@pytest.mark.parametrize(
    "error",
    [client_error("ServiceUnavailable"), EndpointConnectionError(endpoint_url="http://sqs.test")],
    ids=["client_error", "connection_error"],
)
def test_send_failure_returns_503_with_retry_after(sqs, dispatcher, error):
    sqs.failures["send_message"].append(error)
    with raises_problem(problems.JOB_QUEUE_UNAVAILABLE) as raised:
        dispatcher.send(JOB, key_id="key")
    assert (raised.value.problem.status, raised.value.headers) == (503, {"Retry-After": "2"})
