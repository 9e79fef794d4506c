"""Webhooks through emulated tables and queues and a real socket; the fake table passes the same test."""

import time
import uuid

import pytest
from standardwebhooks import Webhook

from chalicelib.access.api_keys import new_signing_secret
from chalicelib.access.key_table import KeyTable
from chalicelib.contract import pack
from chalicelib.dynamodb import to_item
from chalicelib.jobs.job_table import JobRecord, JobState, JobTable, WebhookState
from chalicelib.webhooks.client import WebhookClient
from chalicelib.webhooks.delivery import WebhookDelivery
from infra.env_file import client
from infra.local.emulated_aws import create_resources
from tests.support.fakes.payloads import FakePayloadStore
from tests.support.fakes.tables import FakeJobTable
from tests.support.records import KEY, make_key_record, make_result
from tests.support.webhook_receiver import WebhookReceiver

SECRET = new_signing_secret()


@pytest.fixture(scope="module")
def dynamodb(aws):
    return client("dynamodb", aws.environment)


@pytest.fixture(scope="module")
def platform(aws):
    return create_resources(aws.environment, stack=f"s-{uuid.uuid4().hex}")


@pytest.fixture
def job_table(dynamodb, platform):
    return JobTable(dynamodb, name=platform["JOBS_TABLE"])


@pytest.fixture
def key_table(dynamodb, platform):
    name = platform["KEYS_TABLE"]
    dynamodb.put_item(TableName=name, Item=to_item(make_key_record(KEY, signing_secret=SECRET)))
    return KeyTable(dynamodb, name=name)


@pytest.fixture
def receiver():
    with WebhookReceiver() as receiver:
        yield receiver


def record(url):
    now_s, job_id = int(time.time()), uuid.uuid4().hex
    return JobRecord(
        job_id=job_id,
        key_id=KEY.key_id,
        state=JobState.FINISHED,
        holds_slot=True,
        start_deadline=now_s,
        retained_until=now_s + 3600,
        reply=pack(make_result(job_id)),
        webhook_url=url,
    )


def test_webhook_is_retried_and_delivered_signed(sqs, job_table, key_table, receiver):
    queue_url = sqs.create_queue(QueueName=f"webhooks-{uuid.uuid4().hex}")["QueueUrl"]
    delivery = WebhookDelivery(
        sqs,
        queue_url=queue_url,
        jobs=job_table,
        keys=key_table,
        payloads=FakePayloadStore(),
        client=WebhookClient(local_ports=frozenset({receiver.port})),
    )
    job = job_table.claim(record(f"http://127.0.0.1:{receiver.port}/results"), now_s=int(time.time()))

    def deliver():
        (message,) = sqs.receive_message(QueueUrl=queue_url, WaitTimeSeconds=10)["Messages"]
        delivery.deliver(message["Body"])
        return job_table.read(job.job_id)

    respond_200, receiver.respond = receiver.respond, lambda connection: connection.sendall(b"HTTP/1.1 500 No\r\n\r\n")
    delivery.enqueue(job)
    updated = deliver()
    assert (updated.webhook_state, updated.webhook_attempts, updated.webhook_error) == ("retrying", 1, "http_500")
    receiver.respond = respond_200
    updated = deliver()
    assert (updated.webhook_state, updated.webhook_attempts, updated.webhook_error) == ("delivered", 2, "")
    _, headers, body = receiver.requests[-1]
    assert headers["webhook-id"] == job.job_id
    assert Webhook(SECRET).verify(body, headers)["stdout"] == "out"


@pytest.mark.parametrize("kind", ["real", "fake"])
def test_webhook_state_update_is_conditional(kind, job_table):
    job = record("https://receiver.example")
    jobs = FakeJobTable(job) if kind == "fake" else job_table
    job_table.claim(job, now_s=0)
    updated = jobs.update_webhook(job, WebhookState.RETRYING, attempts=1, error="timeout")
    assert (updated.webhook_state, updated.webhook_attempts, updated.webhook_error) == ("retrying", 1, "timeout")
    assert jobs.update_webhook(job, WebhookState.DELIVERED, attempts=1) == updated
    assert jobs.read(job.job_id) == updated
    assert jobs.update_webhook(record(None), WebhookState.RETRYING, attempts=1) is None
