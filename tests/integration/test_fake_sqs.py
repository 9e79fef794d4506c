"""FakeSqs and the emulated SQS behave alike wherever the unit tests rely on it."""

import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import ClientError

from infra.env_file import client
from tests.support.fakes.sqs import FakeSqs
from tests.support.polling import eventually

DEPTHS = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]


@pytest.fixture(params=["emulator", "fake"])
def sqs(request, aws):
    return client("sqs", aws.environment) if request.param == "emulator" else FakeSqs()


@pytest.fixture
def queue_name():
    return f"fake-{uuid.uuid4().hex}"


@pytest.fixture
def queue_url(sqs, queue_name):
    return sqs.create_queue(QueueName=queue_name, Attributes={"VisibilityTimeout": "1"})["QueueUrl"]


def send(sqs, queue_url, *bodies, **options):
    for body in bodies:
        sqs.send_message(QueueUrl=queue_url, MessageBody=body, **options)


def receive(sqs, queue_url, **options):
    return sqs.receive_message(QueueUrl=queue_url, MaxNumberOfMessages=10, **options).get("Messages", [])


def bodies(messages):
    return sorted(message["Body"] for message in messages)


def test_create_queue_is_idempotent(sqs, queue_name, queue_url):
    attributes = {"VisibilityTimeout": "1"}
    assert sqs.create_queue(QueueName=queue_name, Attributes=attributes)["QueueUrl"] == queue_url


def test_empty_queue_returns_no_messages(sqs, queue_url):
    assert receive(sqs, queue_url) == []


def test_message_is_received_with_its_attributes(sqs, queue_url):
    send(sqs, queue_url, "a", MessageGroupId="group")
    (message,) = receive(sqs, queue_url, MessageSystemAttributeNames=["SentTimestamp"])
    assert (message["Body"], bool(message["MessageId"]), bool(message["ReceiptHandle"])) == ("a", True, True)
    assert abs(int(message["Attributes"]["SentTimestamp"]) / 1000 - time.time()) < 60


def test_receive_returns_at_most_the_requested_number(sqs, queue_url):
    send(sqs, queue_url, "a", "b", "c")
    first = sqs.receive_message(QueueUrl=queue_url, MaxNumberOfMessages=2)["Messages"]
    assert bodies(first + receive(sqs, queue_url)) == ["a", "b", "c"]


def test_received_message_reappears_after_visibility_timeout(sqs, queue_url):
    send(sqs, queue_url, "a")
    (first,) = receive(sqs, queue_url)
    assert receive(sqs, queue_url) == []
    (second,) = eventually(lambda: receive(sqs, queue_url), timeout_s=5)
    assert (second["MessageId"], second["Body"]) == (first["MessageId"], "a")
    assert second["ReceiptHandle"] != first["ReceiptHandle"]


def test_visibility_timeout_of_a_receive_overrides_the_queue(sqs, queue_url):
    send(sqs, queue_url, "a")
    assert bodies(receive(sqs, queue_url, VisibilityTimeout=0)) == ["a"]
    assert bodies(receive(sqs, queue_url)) == ["a"]


def test_zero_visibility_timeout_releases_message(sqs, queue_url):
    send(sqs, queue_url, "a")
    (message,) = receive(sqs, queue_url, VisibilityTimeout=30)
    sqs.change_message_visibility(QueueUrl=queue_url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0)
    assert bodies(receive(sqs, queue_url)) == ["a"]


def test_delayed_message_is_hidden_at_first(sqs, queue_url):
    send(sqs, queue_url, "a", DelaySeconds=1)
    assert receive(sqs, queue_url) == []
    assert bodies(eventually(lambda: receive(sqs, queue_url), timeout_s=5)) == ["a"]


def test_deleted_messages_do_not_reappear(sqs, queue_url):
    send(sqs, queue_url, "a", "b", "c")
    one, *others = [m for _ in range(3) for m in receive(sqs, queue_url, VisibilityTimeout=1)]
    sqs.delete_message(QueueUrl=queue_url, ReceiptHandle=one["ReceiptHandle"])
    entries = [{"Id": str(n), "ReceiptHandle": m["ReceiptHandle"]} for n, m in enumerate(others)]
    answer = sqs.delete_message_batch(QueueUrl=queue_url, Entries=entries)
    assert sorted(entry["Id"] for entry in answer["Successful"]) == ["0", "1"]
    assert receive(sqs, queue_url, WaitTimeSeconds=2) == []


def test_long_poll_returns_as_soon_as_a_message_is_sent(sqs, queue_url):
    with ThreadPoolExecutor(1) as threads:
        started_at = time.monotonic()
        poll = threads.submit(receive, sqs, queue_url, WaitTimeSeconds=10)
        time.sleep(0.2)  # the poll is under way
        send(sqs, queue_url, "a")
        assert bodies(poll.result()) == ["a"]
    assert 0.2 <= time.monotonic() - started_at < 8


def test_attributes_count_visible_and_invisible_messages(sqs, queue_url):
    send(sqs, queue_url, "a", "b", "c")
    sqs.receive_message(QueueUrl=queue_url, MaxNumberOfMessages=1, VisibilityTimeout=30)
    names = [*DEPTHS, "CreatedTimestamp"]
    attributes = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=names)["Attributes"]
    assert [attributes[name] for name in DEPTHS] == ["2", "1"]
    assert abs(float(attributes["CreatedTimestamp"]) - time.time()) < 60


def test_queues_are_listed_by_prefix(sqs, queue_name):
    names = [f"{queue_name}-{n}" for n in range(3)]
    urls = [sqs.create_queue(QueueName=name, Attributes={})["QueueUrl"] for name in names]
    pages = sqs.get_paginator("list_queues").paginate(
        QueueNamePrefix=f"{queue_name}-", PaginationConfig={"PageSize": 2}
    )
    assert sorted(url for page in pages for url in page.get("QueueUrls", [])) == urls


@pytest.mark.parametrize(
    ("operation", "arguments"),
    [
        ("send_message", {"MessageBody": "a"}),
        ("receive_message", {}),
        ("get_queue_attributes", {"AttributeNames": DEPTHS}),
        ("delete_queue", {}),
    ],
)
def test_deleted_queue_does_not_exist(sqs, queue_url, operation, arguments):
    sqs.delete_queue(QueueUrl=queue_url)
    with pytest.raises(ClientError) as caught:
        getattr(sqs, operation)(QueueUrl=queue_url, **arguments)
    assert caught.value.response["Error"]["Code"] == "AWS.SimpleQueueService.NonExistentQueue"
