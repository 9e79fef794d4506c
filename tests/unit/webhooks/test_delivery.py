"""Attempts to deliver a webhook, their order and their signatures, with a fake HTTP client."""

import json
import logging
import time

import pytest
from msgspec.structs import replace
from standardwebhooks import Webhook, WebhookVerificationError

from chalicelib.access.api_keys import KeyStatus
from chalicelib.contract import pack, unpack_reply
from chalicelib.dynamodb import TableError
from chalicelib.jobs.job_table import JobRecord, JobState, WebhookState
from chalicelib.jobs.job_view import webhook_body
from chalicelib.sqs import QueueSendError
from chalicelib.webhooks.client import DeliveryError, DeliveryErrorCode
from chalicelib.webhooks.delivery import RETRY_DELAYS_S, UnprocessableAttemptError, WebhookDelivery, sign
from tests.support.fakes.payloads import FakePayloadStore
from tests.support.fakes.sqs import client_error
from tests.support.fakes.tables import FakeJobTable, FakeKeyTable
from tests.support.fakes.webhook_client import FakeWebhookClient
from tests.support.markdown import code_blocks, read
from tests.support.records import KEY, make_key_record, make_result

NOW_S = 1_800_000_000
SECRET = "whsec_" + "k" * 42 + "g="
OTHER_SECRET = "whsec_" + "a" * 42 + "A="
URL = "https://receiver.example/results"
RECORD = JobRecord(
    job_id="1" * 32,
    key_id=KEY.key_id,
    state=JobState.FINISHED,
    holds_slot=True,
    start_deadline=NOW_S,
    retained_until=NOW_S + 86_400,
    reply=pack(make_result("1" * 32)),
    webhook_url=URL,
)


@pytest.fixture
def jobs():
    return FakeJobTable(RECORD)


@pytest.fixture
def key_table():
    return FakeKeyTable(make_key_record(KEY, signing_secret=SECRET))


@pytest.fixture
def client():
    return FakeWebhookClient()


@pytest.fixture
def queue_url(sqs):
    return sqs.create_queue(QueueName="webhooks", Attributes={})["QueueUrl"]


@pytest.fixture
def queue(sqs, queue_url):
    return sqs.queues[queue_url]


@pytest.fixture
def delivery(sqs, queue_url, jobs, key_table, client):
    return WebhookDelivery(
        sqs,
        queue_url=queue_url,
        jobs=jobs,
        keys=key_table,
        payloads=FakePayloadStore(),
        client=client,
        clock=lambda: NOW_S + 0.9,
    )


def scheduled_attempts(queue):
    """Return number and delay of each attempt on the queue."""
    return [(json.loads(message.body)["attempt"], message.delay_s) for message in queue.messages]


def encode_message(attempt, job_id=RECORD.job_id):
    return json.dumps({"job_id": job_id, "attempt": attempt})


def deliver_all(delivery, queue):
    """Deliver every message in order, including those that are delayed."""
    while queue.messages:
        delivery.deliver(queue.messages.pop(0).body)


def test_result_is_delivered_signed_and_recorded(delivery, queue, jobs, client):
    delivery.enqueue(RECORD)
    assert (scheduled_attempts(queue), queue.messages[0].group) == ([(1, 0)], KEY.key_id)
    assert jobs.webhook_state() == ("retrying", 0, "")
    deliver_all(delivery, queue)
    ((url, body, headers),) = client.requests
    assert (url, body) == (URL, webhook_body(RECORD, unpack_reply(RECORD.reply)))
    assert headers == {
        "Content-Type": "application/json",
        "User-Agent": "python-exec-webhooks/1",
        "webhook-id": "1" * 32,
        "webhook-timestamp": str(NOW_S),
        "webhook-signature": sign(SECRET, "1" * 32, NOW_S, body),
    }
    assert jobs.webhook_state() == ("delivered", 1, "")


def test_signature_matches_openssl():
    # printf 'msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.{"test": 2432232314}' | openssl dgst -sha256 -binary
    #   -mac HMAC -macopt hexkey:31f290f6bf06298aab4f08d43c3f082cf648a362da2da4b0 | base64
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105 - from the tests of the standard's libraries
    signature = sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def signed_headers(timestamp, body, *, secret=SECRET):
    return {
        "webhook-id": "1",
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(secret, "1", timestamp, body),
    }


BODIES = {"empty": b"", "json": b'{"id":"1"}', "not_ascii": "\u00fc".encode()}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_standard_webhooks_library_verifies_signature(body):
    now_s = int(time.time())
    headers = signed_headers(now_s, body)
    Webhook(SECRET).verify(body, headers, json_parse=False)
    for changes in ({"webhook-id": "2"}, {"webhook-timestamp": str(now_s + 1)}, {"webhook-signature": "v1,AAAA"}):
        with pytest.raises(WebhookVerificationError):
            Webhook(SECRET).verify(body, headers | changes)


def documented_snippet(start):
    (snippet,) = [block for block in code_blocks(read("docs/api.md"), "python") if block.startswith(start)]
    return snippet


def test_documented_library_snippet_verifies_signature():
    body = b'{"id":"1"}'
    variables = {"signing_secret": SECRET, "body": body, "headers": signed_headers(int(time.time()), body)}
    snippet = documented_snippet("from standardwebhooks")
    exec(snippet, variables)  # noqa: S102 - written in docs/api.md
    assert variables["result"] == {"id": "1"}
    with pytest.raises(WebhookVerificationError):
        exec(snippet, variables | {"body": b"{}"})  # noqa: S102


def test_documented_snippet_verifies_signature(monkeypatch):
    variables = {}
    exec(documented_snippet("import base64"), variables)  # noqa: S102 - written in docs/api.md
    monkeypatch.setattr(variables["time"], "time", lambda: NOW_S + 299.0)
    is_genuine, signature = variables["is_genuine"], sign(SECRET, "1", NOW_S, b"body")
    assert is_genuine(SECRET, "1", str(NOW_S), signature, b"body")
    assert is_genuine(SECRET, "1", str(NOW_S), f"v1,AAAA {signature}", b"body")
    assert not is_genuine(SECRET, "1", str(NOW_S), signature, b"other")
    assert not is_genuine(SECRET, "2", str(NOW_S), signature, b"body")
    assert not is_genuine(SECRET, "1", str(NOW_S + 1), signature, b"body")
    assert not is_genuine(OTHER_SECRET, "1", str(NOW_S), signature, b"body")
    assert not is_genuine(SECRET, "1", str(NOW_S), "v1,\u00fc", b"body")
    assert not is_genuine(SECRET, "1", str(NOW_S - 2), sign(SECRET, "1", NOW_S - 2, b"body"), b"body")


FAILURES = {
    "server_error": (500, "http_500"),
    "redirect": (302, "http_302"),
    "gone": (410, "http_410"),
    "early_hints": (103, "http_103"),
    **{code.value: (DeliveryError(code), code.value) for code in DeliveryErrorCode},
}


@pytest.mark.parametrize("case", FAILURES.values(), ids=FAILURES)
def test_failed_delivery_records_error_code_and_schedules_retry(delivery, queue, jobs, client, case):
    response, error = case
    client.responses = [response]
    delivery.enqueue(RECORD)
    delivery.deliver(queue.messages.pop(0).body)
    assert (jobs.webhook_state(), scheduled_attempts(queue)) == (("retrying", 1, error), [(2, 5)])
    deliver_all(delivery, queue)
    assert (jobs.webhook_state(), len(client.requests)) == (("delivered", 2, ""), 2)


def test_final_failed_attempt_is_recorded_as_failed(delivery, queue, jobs, client, log_records):
    client.responses = [503] * 100
    delivery.enqueue(RECORD)
    delays_s = []
    while queue.messages:
        delays_s.append(queue.messages[0].delay_s)
        delivery.deliver(queue.messages.pop(0).body)
    assert delays_s == [0, *RETRY_DELAYS_S]
    assert (jobs.webhook_state(), len(client.requests)) == (("failed", 6, "http_503"), 6)
    (warning,) = [record for record in log_records if record.levelno == logging.WARNING]
    assert (warning.getMessage(), warning.job_id, warning.error) == ("webhook_abandoned", "1" * 32, "http_503")


def test_retry_delays_fit_sqs_maximum():
    assert max(RETRY_DELAYS_S) <= 900


def test_duplicate_message_is_delivered_once(delivery, queue, client):
    client.responses = [500]
    delivery.enqueue(RECORD)
    first = queue.messages.pop(0).body
    delivery.deliver(first)
    delivery.deliver(first)
    assert (len(client.requests), scheduled_attempts(queue)) == (1, [(2, 5)])
    second = queue.messages.pop(0).body
    for body in (second, second, first):
        delivery.deliver(body)
    assert (len(client.requests), queue.messages) == (2, [])


def test_double_enqueue_is_delivered_once(delivery, queue, jobs, client):
    delivery.enqueue(RECORD)
    delivery.enqueue(jobs.read(RECORD.job_id))
    delivery.enqueue(RECORD)  # from a caller that read the record before
    deliver_all(delivery, queue)
    assert len(client.requests) == 1


def test_message_received_before_state_update_is_delivered(delivery, queue, jobs, client):
    client.responses = [500]
    client.before_response = lambda: jobs.update_webhook(RECORD, WebhookState.RETRYING, attempts=0)
    delivery.deliver(encode_message(1))
    assert (jobs.webhook_state(), scheduled_attempts(queue)) == (("retrying", 1, "http_500"), [(2, 5)])


def test_out_of_order_attempt_is_retried(delivery, jobs, client):
    with pytest.raises(UnprocessableAttemptError):
        delivery.deliver(encode_message(2))
    assert client.requests == []


UNDELIVERABLE = {
    "deleted": {"state": JobState.DELETED},
    "url_removed": {"webhook_url": None},
    "no_reply": {"state": JobState.ACCEPTED, "reply": None},
    "delivered": {"webhook_state": WebhookState.DELIVERED},
    "failed": {"webhook_state": WebhookState.FAILED},
    "no_longer_retained": {"retained_until": NOW_S},
}


@pytest.mark.parametrize("changes", UNDELIVERABLE.values(), ids=UNDELIVERABLE)
def test_undeliverable_job_is_skipped(delivery, queue, jobs, client, changes):
    jobs.records[RECORD.job_id] = replace(RECORD, **changes)
    delivery.deliver(encode_message(1))
    assert (client.requests, queue.messages) == ([], [])
    assert jobs.records[RECORD.job_id] == replace(RECORD, **changes)


def test_deleted_job_is_skipped(delivery, client):
    delivery.deliver(encode_message(1, "2" * 32))
    assert client.requests == []


@pytest.mark.parametrize("changes", [{"webhook_url": None}, {"reply": None}, {"webhook_state": WebhookState.RETRYING}])
def test_job_without_pending_webhook_is_not_enqueued(delivery, queue, changes):
    delivery.enqueue(replace(RECORD, **changes))
    assert queue.messages == []


KEYS_WITHOUT_WEBHOOKS = {
    "revoked": ({"status": KeyStatus.REVOKED}, "key_revoked"),
    "without_secret": ({"signing_secret": ""}, "no_signing_secret"),
    "gone": (None, "key_revoked"),
}


@pytest.mark.parametrize("case", KEYS_WITHOUT_WEBHOOKS.values(), ids=KEYS_WITHOUT_WEBHOOKS)
def test_revoked_key_or_missing_secret_stops_delivery(delivery, jobs, key_table, client, case):
    changes, error = case
    if changes is None:
        key_table.records.clear()
    else:
        key_table.change(KEY.key_id, **changes)
    delivery.deliver(encode_message(1))
    assert (client.requests, jobs.webhook_state()) == ([], ("failed", 1, error))


def test_expired_key_still_receives_webhook(delivery, queue, key_table, client):
    key_table.change(KEY.key_id, expires_at=NOW_S - 1)
    delivery.enqueue(RECORD)
    deliver_all(delivery, queue)
    assert len(client.requests) == 1


@pytest.mark.parametrize("body", ["", "{}", "[]", '{"job_id": 1, "attempt": 1}', '{"job_id": "1", "attempt": 0}'])
def test_malformed_message_is_rejected(delivery, body):
    with pytest.raises(UnprocessableAttemptError):
        delivery.deliver(body)


def test_failure_to_schedule_retry_leaves_message_for_redelivery(delivery, sqs, queue, jobs, client):
    client.responses = [500]
    delivery.enqueue(RECORD)
    sqs.failures["send_message"] = [client_error("ServiceUnavailable")]
    with pytest.raises(QueueSendError):
        delivery.deliver(queue.messages[0].body)
    assert jobs.webhook_state() == ("retrying", 0, "")
    deliver_all(delivery, queue)
    assert jobs.webhook_state() == ("delivered", 1, "")


def test_failure_to_enqueue_leaves_webhook_pending(delivery, sqs, queue, jobs):
    sqs.failures["send_message"] = [client_error("ServiceUnavailable")]
    with pytest.raises(QueueSendError):
        delivery.enqueue(RECORD)
    assert jobs.read(RECORD.job_id) == RECORD


def test_table_failure_propagates_to_caller(delivery, jobs):
    jobs.is_unavailable = True
    with pytest.raises(TableError):
        delivery.deliver(encode_message(1))
