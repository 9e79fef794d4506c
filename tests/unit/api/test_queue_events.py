import json
from functools import partial

import app as api
import pytest

from chalicelib.api import queue_events
from chalicelib.contract import ContractError, Failure, FailureReason, Job, encode
from chalicelib.jobs.job_table import JobTableError
from tests.support.records import make_result

JOB = Job(id="0" * 32, code="secret code", reply_to=None, submitted_at=1.0, reply_by=1.0, expires_at=2.0)


class FakeResults:
    """Keeps what is settled. Replies to the jobs in `failing` cannot be."""

    def __init__(self):
        self.settled = []
        self.failing = set()

    def settle(self, reply, *, key_id=None):
        if reply.id in self.failing:
            raise JobTableError("gone")
        self.settled.append((reply, key_id))


@pytest.fixture
def results():
    return FakeResults()


def record(body, *, message_id="m", group="key"):
    attributes = {"ApproximateReceiveCount": "1"} | ({"MessageGroupId": group} if group else {})
    return {"messageId": message_id, "body": body, "attributes": attributes}


def test_result_is_stored_under_message_group_key(results):
    queue_events.store_result(record(encode(make_result("a"))), results, None)
    queue_events.store_result(record(encode(make_result("b")), group=None), results, None)
    assert results.settled == [(make_result("a"), "key"), (make_result("b"), None)]


def test_dead_lettered_job_is_failed(results):
    queue_events.answer_dead_letter(record(encode(JOB)), results)
    assert results.settled == [(Failure(id=JOB.id, reason=FailureReason.HOST_LOST), "key")]


STORE = partial(queue_events.store_result, hosts=None)


@pytest.mark.parametrize(
    ("handle", "body"),
    [
        (STORE, "{"),
        (STORE, encode(JOB)),
        (queue_events.answer_dead_letter, "{"),
        (queue_events.answer_dead_letter, encode(make_result("a"))),
    ],
)
def test_unexpected_message_kind_raises(results, handle, body):
    with pytest.raises(ContractError):
        handle(record(body), results)
    assert results.settled == []


def test_only_failed_messages_of_batch_are_retried(results, log_records):
    results.failing = {"b"}
    bodies = {"1": encode(make_result("a")), "2": "{", "3": encode(make_result("b")), "4": encode(make_result("c"))}
    event = {"Records": [record(body, message_id=message_id) for message_id, body in bodies.items()]}
    answer = queue_events.each(event, lambda each: queue_events.store_result(each, results, None))
    assert answer == {"batchItemFailures": [{"itemIdentifier": "2"}, {"itemIdentifier": "3"}]}
    assert [reply.id for reply, _ in results.settled] == ["a", "c"]
    assert [one.getMessage() for one in log_records] == [
        "result_stored", "message_processing_failed", "message_processing_failed", "result_stored",
    ]  # fmt: skip


def test_log_lines_include_ids_but_no_customer_data(results, module_log_lines):
    event = {"Records": [record(encode(JOB), message_id="m1"), record(encode(make_result("a", stdout="secret")))]}
    queue_events.each(event, lambda each: queue_events.answer_dead_letter(each, results))
    answered, failed = [json.loads(line) for line in module_log_lines]
    assert (answered["event"], answered["message_id"], answered["job_id"]) == ("dead_lettered_job_failed", "m1", JOB.id)
    assert (failed["event"], failed["message_id"], "job_id" in failed) == ("message_processing_failed", "m", False)
    assert "secret" not in str(module_log_lines)


EVENT_HANDLERS = {
    "results": (api.store_results, encode(make_result("1" * 32)), "error"),
    "dead_letters": (api.fail_dead_lettered_jobs, encode(JOB), "failed"),
}


@pytest.mark.usefixtures("jobs")
@pytest.mark.parametrize(("function", "body", "status"), EVENT_HANDLERS.values(), ids=EVENT_HANDLERS)
def test_lambda_event_stores_result_visible_to_its_key(job_table, function, body, status):
    event = {"Records": [record(body), record("{", message_id="bad")]}
    assert function(event, None) == {"batchItemFailures": [{"itemIdentifier": "bad"}]}
    ((job_id, held),) = job_table.records.items()
    assert held.key_id == "key"
    assert api.job_view.of_record(held)["status"] == status
    assert job_id in {"0" * 32, "1" * 32}
