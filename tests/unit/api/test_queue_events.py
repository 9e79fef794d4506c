import json
from functools import partial

import app as api
import pytest

from chalicelib.api import queue_events
from chalicelib.contract import ContractError, Failure, FailureReason, Job, encode, unpack_reply
from chalicelib.dynamodb import TableError
from chalicelib.jobs import job_view
from tests.support.records import UPLOAD_URL, make_result

JOB = Job(
    id="0" * 32,
    code="secret code",
    reply_to=None,
    reply_upload_url=UPLOAD_URL,
    submitted_at=1.0,
    reply_by=1.0,
    start_deadline=2.0,
)


class FakeResults:
    """Keep recorded replies. Those to the jobs in `failing` cannot be stored."""

    def __init__(self):
        self.recorded = []
        self.failing = set()

    def record_reply(self, reply, *, key_id=None):
        if reply.id in self.failing:
            raise TableError("gone")
        self.recorded.append((reply, key_id))


@pytest.fixture
def results():
    return FakeResults()


def make_message(body, *, message_id="m", group="key"):
    attributes = {"ApproximateReceiveCount": "1"} | ({"MessageGroupId": group} if group else {})
    return {"messageId": message_id, "body": body, "attributes": attributes}


def test_result_is_stored_under_message_group_key(results):
    queue_events.store_result(make_message(encode(make_result("a"))), results, None)
    queue_events.store_result(make_message(encode(make_result("b")), group=None), results, None)
    assert results.recorded == [(make_result("a"), "key"), (make_result("b"), None)]


def test_dead_lettered_job_is_failed(results):
    queue_events.fail_dead_lettered_job(make_message(encode(JOB)), results)
    assert results.recorded == [(Failure(id=JOB.id, reason=FailureReason.HOST_LOST), "key")]


STORE = partial(queue_events.store_result, hosts=None)


@pytest.mark.parametrize(
    ("handle", "body"),
    [
        (STORE, "{"),
        (STORE, encode(JOB)),
        (queue_events.fail_dead_lettered_job, "{"),
        (queue_events.fail_dead_lettered_job, encode(make_result("a"))),
    ],
)
def test_unexpected_message_kind_raises(results, handle, body):
    with pytest.raises(ContractError):
        handle(make_message(body), results)
    assert results.recorded == []


def test_only_failed_messages_of_batch_are_retried(results, log_records):
    results.failing = {"b"}
    bodies = {"1": encode(make_result("a")), "2": "{", "3": encode(make_result("b")), "4": encode(make_result("c"))}
    event = {"Records": [make_message(body, message_id=message_id) for message_id, body in bodies.items()]}
    answer = queue_events.process_batch(event, lambda message: queue_events.store_result(message, results, None))
    assert answer == {"batchItemFailures": [{"itemIdentifier": "2"}, {"itemIdentifier": "3"}]}
    assert [reply.id for reply, _ in results.recorded] == ["a", "c"]
    assert [one.getMessage() for one in log_records] == [
        "result_stored", "message_processing_failed", "message_processing_failed", "result_stored",
    ]  # fmt: skip


def test_log_lines_include_ids_but_no_customer_data(results, log_lines):
    event = {
        "Records": [make_message(encode(JOB), message_id="m1"), make_message(encode(make_result("a", stdout="secret")))]
    }
    queue_events.process_batch(event, lambda message: queue_events.fail_dead_lettered_job(message, results))
    completed, failed = [json.loads(line) for line in log_lines]
    assert (completed["event"], completed["message_id"], completed["job_id"]) == (
        "dead_lettered_job_failed",
        "m1",
        JOB.id,
    )
    assert (failed["event"], failed["message_id"], "job_id" in failed) == ("message_processing_failed", "m", False)
    assert "secret" not in str(log_lines)


EVENT_HANDLERS = {
    "results": (api.store_results, encode(make_result("1" * 32)), "error"),
    "dead_letters": (api.fail_dead_lettered_jobs, encode(JOB), "failed"),
}


@pytest.mark.usefixtures("jobs")
@pytest.mark.parametrize(("function", "body", "status"), EVENT_HANDLERS.values(), ids=EVENT_HANDLERS)
def test_lambda_event_stores_result_visible_to_its_key(job_table, function, body, status):
    event = {"Records": [make_message(body), make_message("{", message_id="bad")]}
    assert function(event, None) == {"batchItemFailures": [{"itemIdentifier": "bad"}]}
    ((job_id, record),) = job_table.records.items()
    assert record.key_id == "key"
    assert job_view.job_body(record, unpack_reply(record.reply))["status"] == status
    assert job_id in {"0" * 32, "1" * 32}
