"""Attempts, their order and their signatures, with a receiver that answers what it is told to."""

import json
import logging
import re
import time
from pathlib import Path

import pytest
from msgspec.structs import replace
from standardwebhooks import Webhook, WebhookVerificationError

from chalicelib.access.api_keys import KeyStatus
from chalicelib.api.run_request import RunRequest
from chalicelib.jobs.job_table import JobRecord, JobTableError, WebhookState
from chalicelib.problems import ProblemError
from chalicelib.webhooks.client import CallbackError, Reason
from chalicelib.webhooks.delivery import (
    BACKOFF_S,
    WebhookMessageError,
    WebhookQueueError,
    Webhooks,
    require_signing_secret,
    sign,
)
from tests.support.fakes.sqs import client_error
from tests.support.fakes.tables import FakeJobTable, FakeKeyTable
from tests.support.records import KEY, make_key_record

API = (Path(__file__).parents[3] / "docs/api.md").read_text()
NOW_S = 1_800_000_000
SECRET = "whsec_" + "k" * 42 + "g="
OTHER_SECRET = "whsec_" + "a" * 42 + "A="
URL = "https://receiver.example/results"
RECORD = JobRecord(
    job_id="1" * 32,
    key_id=KEY.key_id,
    counted=1,
    promised=1,
    retry_at=NOW_S,
    expires_at=NOW_S,
    kept_until=NOW_S + 86_400,
    reply="{}",
    webhook_url=URL,
)


class FakeReceiver:
    """Answers with the next of `answers`, a status or an exception, and with 204 after them."""

    def __init__(self):
        self.answers = []
        self.requests = []
        self.before_answer = lambda: None

    def post(self, url, body, *, headers):
        self.requests.append((url, body, headers))
        self.before_answer()
        answer = self.answers.pop(0) if self.answers else 204
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def jobs():
    return FakeJobTable(RECORD)


@pytest.fixture
def key_table():
    return FakeKeyTable(make_key_record(KEY, signing_secret=SECRET))


@pytest.fixture
def receiver():
    return FakeReceiver()


@pytest.fixture
def queue(sqs):
    return sqs.queues[sqs.create_queue(QueueName="webhooks", Attributes={})["QueueUrl"]]


@pytest.fixture
def webhooks(sqs, queue, jobs, key_table, receiver):
    return Webhooks(
        sqs,
        queue_url=next(url for url, held in sqs.queues.items() if held is queue),
        jobs=jobs,
        keys=key_table,
        receiver=receiver,
        body_of=lambda record: json.dumps({"id": record.job_id}).encode(),
        clock=lambda: NOW_S + 0.9,
    )


def sent(queue):
    return [(json.loads(message.body)["attempt"], message.delay_s) for message in queue.messages]


def message(attempt, job_id=RECORD.job_id):
    return json.dumps({"job_id": job_id, "attempt": attempt})


def deliver_all(webhooks, queue):
    """Hands out every message, those that are due later too, in their order."""
    while queue.messages:
        webhooks.deliver(queue.messages.pop(0).body)


def test_result_is_delivered_signed_and_recorded(webhooks, queue, jobs, receiver):
    webhooks.enqueue(RECORD)
    assert (sent(queue), queue.messages[0].group, jobs.state()) == ([(1, 0)], KEY.key_id, ("retrying", 0, ""))
    deliver_all(webhooks, queue)
    body = b'{"id": "' + b"1" * 32 + b'"}'
    ((url, posted, headers),) = receiver.requests
    assert (url, posted) == (URL, body)
    assert headers == {
        "Content-Type": "application/json",
        "User-Agent": "python-exec-webhooks/1",
        "webhook-id": "1" * 32,
        "webhook-timestamp": str(NOW_S),
        "webhook-signature": sign(SECRET, "1" * 32, NOW_S, body),
    }
    assert jobs.state() == ("delivered", 1, "")


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
    """Return the Python snippet of the API reference that begins with `start`."""
    snippets = re.findall(r"^```python\n(.*?)^```$", API, re.MULTILINE | re.DOTALL)
    (snippet,) = [snippet for snippet in snippets if snippet.startswith(start)]
    return snippet


def test_documented_library_snippet_verifies_signature():
    body = b'{"id":"1"}'
    variables = {"signing_secret": SECRET, "body": body, "headers": signed_headers(int(time.time()), body)}
    snippet = documented_snippet("from standardwebhooks")
    exec(snippet, variables)  # noqa: S102 - our own
    assert variables["result"] == {"id": "1"}
    with pytest.raises(WebhookVerificationError):
        exec(snippet, variables | {"body": b"{}"})  # noqa: S102


def test_documented_snippet_verifies_signature(monkeypatch):
    variables = {}
    exec(documented_snippet("import base64"), variables)  # noqa: S102 - our own
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
    **{reason.name.lower(): (CallbackError(reason), reason.value) for reason in Reason},
}


@pytest.mark.parametrize("case", FAILURES.values(), ids=FAILURES)
def test_failed_delivery_records_error_code_and_schedules_retry(webhooks, queue, jobs, receiver, case):
    answer, error = case
    receiver.answers = [answer]
    webhooks.enqueue(RECORD)
    webhooks.deliver(queue.messages.pop(0).body)
    assert (jobs.state(), sent(queue)) == (("retrying", 1, error), [(2, 5)])
    deliver_all(webhooks, queue)
    assert (jobs.state(), len(receiver.requests)) == (("delivered", 2, ""), 2)


def test_final_failed_attempt_is_recorded_as_failed(webhooks, queue, jobs, receiver, log_records):
    receiver.answers = [503] * 100
    webhooks.enqueue(RECORD)
    delays_s = []
    while queue.messages:
        delays_s.append(queue.messages[0].delay_s)
        webhooks.deliver(queue.messages.pop(0).body)
    assert delays_s == [0, *BACKOFF_S]
    assert (jobs.state(), len(receiver.requests)) == (("failed", 6, "http_503"), 6)
    (warning,) = [record for record in log_records if record.levelno == logging.WARNING]
    assert (warning.getMessage(), warning.job_id, warning.error) == ("webhook_abandoned", "1" * 32, "http_503")


def test_retry_delays_fit_sqs_maximum():
    assert max(BACKOFF_S) <= 900


def test_duplicate_message_is_delivered_once(webhooks, queue, receiver):
    receiver.answers = [500]
    webhooks.enqueue(RECORD)
    first = queue.messages.pop(0).body
    webhooks.deliver(first)
    webhooks.deliver(first)
    assert (len(receiver.requests), sent(queue)) == (1, [(2, 5)])
    second = queue.messages.pop(0).body
    for body in (second, second, first):
        webhooks.deliver(body)
    assert (len(receiver.requests), queue.messages) == (2, [])


def test_double_enqueue_is_delivered_once(webhooks, queue, jobs, receiver):
    webhooks.enqueue(RECORD)
    webhooks.enqueue(jobs.read(RECORD.job_id))
    webhooks.enqueue(RECORD)  # by somebody who read it before
    deliver_all(webhooks, queue)
    assert len(receiver.requests) == 1


def test_message_received_before_state_update_is_delivered(webhooks, queue, jobs, receiver):
    receiver.answers = [500]
    receiver.before_answer = lambda: jobs.note_webhook(RECORD, WebhookState.RETRYING, attempts=0)
    webhooks.deliver(message(1))
    assert (jobs.state(), sent(queue)) == (("retrying", 1, "http_500"), [(2, 5)])


def test_out_of_order_attempt_is_retried(webhooks, jobs, receiver):
    with pytest.raises(WebhookMessageError):
        webhooks.deliver(message(2))
    assert receiver.requests == []


NOT_DUE = {
    "forgotten": {"forgotten": 1},
    "url_removed": {"webhook_url": None},
    "no_reply": {"reply": None},
    "delivered": {"webhook_state": WebhookState.DELIVERED},
    "failed": {"webhook_state": WebhookState.FAILED},
    "no_longer_kept": {"kept_until": NOW_S},
}


@pytest.mark.parametrize("changes", NOT_DUE.values(), ids=NOT_DUE)
def test_undeliverable_job_is_skipped(webhooks, queue, jobs, receiver, changes):
    jobs.records[RECORD.job_id] = replace(RECORD, **changes)
    webhooks.deliver(message(1))
    assert (receiver.requests, queue.messages) == ([], [])
    assert jobs.records[RECORD.job_id] == replace(RECORD, **changes)


def test_deleted_job_is_skipped(webhooks, receiver):
    webhooks.deliver(message(1, "2" * 32))
    assert receiver.requests == []


@pytest.mark.parametrize("changes", [{"webhook_url": None}, {"reply": None}, {"webhook_state": WebhookState.RETRYING}])
def test_job_without_pending_webhook_is_not_enqueued(webhooks, queue, changes):
    webhooks.enqueue(replace(RECORD, **changes))
    assert queue.messages == []


KEYS = {
    "revoked": ({"status": KeyStatus.REVOKED}, "key_revoked"),
    "without_secret": ({"signing_secret": ""}, "no_signing_secret"),
    "gone": (None, "key_revoked"),
}


@pytest.mark.parametrize("case", KEYS.values(), ids=KEYS)
def test_revoked_key_or_missing_secret_stops_delivery(webhooks, jobs, key_table, receiver, case):
    changes, error = case
    if changes is None:
        key_table.records.clear()
    else:
        key_table.change(KEY.key_id, **changes)
    webhooks.deliver(message(1))
    assert (receiver.requests, jobs.state()) == ([], ("failed", 1, error))


def test_expired_key_still_receives_webhook(webhooks, queue, key_table, receiver):
    key_table.change(KEY.key_id, expires_at=NOW_S - 1)
    webhooks.enqueue(RECORD)
    deliver_all(webhooks, queue)
    assert len(receiver.requests) == 1


@pytest.mark.parametrize("body", ["", "{}", "[]", '{"job_id": 1, "attempt": 1}', '{"job_id": "1", "attempt": 0}'])
def test_malformed_message_is_rejected(webhooks, body):
    with pytest.raises(WebhookMessageError):
        webhooks.deliver(body)


def test_failure_to_schedule_retry_leaves_message_for_redelivery(webhooks, sqs, queue, jobs, receiver):
    receiver.answers = [500]
    webhooks.enqueue(RECORD)
    sqs.failures["send_message"] = [client_error("ServiceUnavailable")]
    with pytest.raises(WebhookQueueError):
        webhooks.deliver(queue.messages[0].body)
    assert jobs.state() == ("retrying", 0, "")
    deliver_all(webhooks, queue)
    assert jobs.state() == ("delivered", 1, "")


def test_failure_to_enqueue_leaves_webhook_pending(webhooks, sqs, queue, jobs):
    sqs.failures["send_message"] = [client_error("ServiceUnavailable")]
    with pytest.raises(WebhookQueueError):
        webhooks.enqueue(RECORD)
    assert jobs.read(RECORD.job_id) == RECORD


def test_table_failure_propagates_to_caller(webhooks, jobs):
    jobs.failing = True
    with pytest.raises(JobTableError):
        webhooks.deliver(message(1))


def test_callback_url_without_signing_secret_returns_403():
    with pytest.raises(ProblemError) as caught:
        require_signing_secret(RunRequest(code="1", callback_url=URL), make_key_record(KEY))
    problem = caught.value.problem
    assert (problem.status, problem.type) == (403, "urn:python-exec:problem:no-signing-secret")


@pytest.mark.parametrize(("url", "secret"), [(None, ""), (None, SECRET), (URL, SECRET)])
def test_requests_without_callback_url_are_allowed(url, secret):
    require_signing_secret(RunRequest(code="1", callback_url=url), make_key_record(KEY, signing_secret=secret))
