"""The guarantees of the emulator that `make run` and the tests need and that moto alone does not give."""

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from infra.env_file import client
from infra.local.emulated_aws import create_resources, emulated_aws

MESSAGES_EACH = 150
LONG_POLL_S = 10
WAKE_UP_S = 4.0  # far below LONG_POLL_S


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    with emulated_aws(logs=tmp_path_factory.mktemp("logs")) as emulated:
        yield emulated.environment


@pytest.fixture(scope="module")
def sqs(environment):
    config = Config(max_pool_connections=64, retries={"total_max_attempts": 1})
    return client("sqs", environment, config=config)


@pytest.fixture
def queue_url(sqs, request):
    url = sqs.create_queue(QueueName=request.node.name[:80])["QueueUrl"]
    yield url
    sqs.delete_queue(QueueUrl=url)


def receive(sqs, queue_url, wait_s=LONG_POLL_S):
    answer = sqs.receive_message(QueueUrl=queue_url, WaitTimeSeconds=wait_s, MaxNumberOfMessages=10)
    return answer.get("Messages", [])


def in_flight(sqs, queue_url):
    name = "ApproximateNumberOfMessagesNotVisible"
    return sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=[name])["Attributes"][name]


def test_concurrent_producers_and_consumers_lose_no_messages(sqs, queue_url):
    received = []

    def produce(producer):
        for number in range(MESSAGES_EACH):
            sqs.send_message(QueueUrl=queue_url, MessageBody=f"{producer}-{number}")

    def consume(_):
        while len(received) < 4 * MESSAGES_EACH and (messages := receive(sqs, queue_url, wait_s=2)):
            for message in messages:
                received.append(message["Body"])
                sqs.delete_message(QueueUrl=queue_url, ReceiptHandle=message["ReceiptHandle"])

    with ThreadPoolExecutor(8) as pool:
        work = [pool.submit(action, number) for number in range(4) for action in (produce, consume)]
        for future in work:
            future.result()
    assert sorted(received) == sorted(f"{p}-{n}" for p in range(4) for n in range(MESSAGES_EACH))


def test_concurrent_conditional_updates_are_exact(environment):
    dynamodb = client("dynamodb", environment)
    dynamodb.create_table(
        TableName="limits",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )

    def take(_):
        try:
            dynamodb.update_item(
                TableName="limits",
                Key={"id": {"S": "one"}},
                UpdateExpression="ADD used :one",
                ConditionExpression="attribute_not_exists(used) OR used < :limit",
                ExpressionAttributeValues={":one": {"N": "1"}, ":limit": {"N": "10"}},
            )
        except dynamodb.exceptions.ConditionalCheckFailedException:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(take, range(80))) == 10


def test_send_wakes_long_poll_immediately(sqs, queue_url):
    with ThreadPoolExecutor(1) as pool:
        poll = pool.submit(lambda: (receive(sqs, queue_url), time.monotonic()))
        time.sleep(0.3)  # until the poll waits; if it does not yet, the test proves less but does not fail
        sent_at = time.monotonic()
        sqs.send_message(QueueUrl=queue_url, MessageBody="wake up")
        messages, woken_at = poll.result()
    assert [message["Body"] for message in messages] == ["wake up"]
    assert woken_at - sent_at < WAKE_UP_S


def test_long_poll_of_empty_queue_ends_on_time(sqs, queue_url):
    started_at = time.monotonic()
    assert receive(sqs, queue_url, wait_s=1) == []
    assert 1.0 <= time.monotonic() - started_at < 1.0 + WAKE_UP_S


def test_redelivery_wakes_long_poll(sqs, queue_url):
    sqs.send_message(QueueUrl=queue_url, MessageBody="redelivered")
    sqs.receive_message(QueueUrl=queue_url, VisibilityTimeout=1)
    started_at = time.monotonic()
    assert [message["Body"] for message in receive(sqs, queue_url)] == ["redelivered"]
    assert time.monotonic() - started_at < 1.0 + WAKE_UP_S


def test_message_groups_take_turns(sqs, queue_url):
    for group, count in {"busy": 4, "quiet": 2}.items():
        for number in range(count):
            sqs.send_message(QueueUrl=queue_url, MessageBody=f"{group} {number}", MessageGroupId=group)
    received = [sqs.receive_message(QueueUrl=queue_url)["Messages"][0]["Body"] for _ in range(2)]
    assert received == ["busy 0", "quiet 0"]
    waiting = receive(sqs, queue_url, wait_s=0)
    assert [message["Body"] for message in waiting] == ["busy 1", "quiet 1", "busy 2", "busy 3"]


def test_max_receives_moves_message_to_dead_letter_queue(sqs, environment):
    jobs = create_resources(environment)["JOB_QUEUE_URL"]
    policy = sqs.get_queue_attributes(QueueUrl=jobs, AttributeNames=["RedrivePolicy"])["Attributes"]["RedrivePolicy"]
    sqs.send_message(QueueUrl=jobs, MessageBody="poison")
    for _ in range(json.loads(policy)["maxReceiveCount"]):
        assert sqs.receive_message(QueueUrl=jobs, VisibilityTimeout=0)["Messages"]
    assert receive(sqs, jobs, wait_s=0) == []
    dead = sqs.get_queue_url(QueueName="python-exec-jobs-dead")["QueueUrl"]
    assert [message["Body"] for message in receive(sqs, dead, wait_s=0)] == ["poison"]


def test_long_polls_do_not_block_other_requests(sqs, queue_url):
    poll_count = 40
    with ThreadPoolExecutor(poll_count) as pool:
        polls = [pool.submit(receive, sqs, queue_url, wait_s=3) for _ in range(poll_count)]
        started_at = time.monotonic()
        sqs.send_message(QueueUrl=queue_url, MessageBody="for one of them")
        assert time.monotonic() - started_at < WAKE_UP_S
        assert sum(len(poll.result()) for poll in polls) == 1


def test_disconnected_client_receives_no_messages(sqs, queue_url, environment):
    address = urlsplit(environment["AWS_ENDPOINT_URL"])
    with socket.create_connection((address.hostname, address.port)) as disconnecting:
        disconnecting.sendall(signed_receive(queue_url, environment))
        time.sleep(0.3)  # until the poll waits; if it does not yet, the test proves less but does not fail
    sqs.send_message(QueueUrl=queue_url, MessageBody="for a connected client")
    assert [message["Body"] for message in receive(sqs, queue_url)] == ["for a connected client"]


def signed_receive(queue_url, environment):
    """Return the bytes of a ReceiveMessage request as boto3 sends them."""
    requests = []
    signer = client("sqs", environment)

    def catch(request, **_):
        requests.append(request)
        raise InterruptedError

    signer.meta.events.register("before-send", catch)
    with pytest.raises(InterruptedError):
        signer.receive_message(QueueUrl=queue_url, WaitTimeSeconds=LONG_POLL_S)
    [request] = requests
    headers = {**request.headers, "Host": urlsplit(request.url).netloc}
    head = "".join(f"{name}: {as_text(value)}\r\n" for name, value in headers.items())
    return f"POST / HTTP/1.1\r\n{head}\r\n".encode() + request.body


def as_text(value):
    return value.decode() if isinstance(value, bytes) else value


def test_deleted_queue_ends_its_long_polls(sqs):
    url = sqs.create_queue(QueueName="short-lived")["QueueUrl"]
    with ThreadPoolExecutor(1) as pool:
        poll = pool.submit(receive, sqs, url, wait_s=1)
        time.sleep(0.3)
        sqs.delete_queue(QueueUrl=url)
        with pytest.raises(ClientError, match="NonExistentQueue"):
            poll.result()


def test_server_listens_on_one_address_only(environment):
    port = urlsplit(environment["AWS_ENDPOINT_URL"]).port
    with pytest.raises(OSError, match=r"refused|unreachable|timed out"):
        socket.create_connection(("127.0.0.2", port), timeout=1)
