"""Send batches through the API to a service with its tables in memory."""

import json
from functools import partial

import pytest

from chalicelib.access.plans import PLANS
from chalicelib.contract import Run, decode_job
from chalicelib.jobs.expectations import output_digest
from tests.support.api_requests import send
from tests.support.records import KEY, make_batch_result, make_run_result

BATCH = {
    "code": "c",
    "runs": [{"input": "1", "args": ["a"], "expected_output": "SECRET-1"}, {"expected_output": "SECRET-2"}, {}],
    "stop_on_failure": True,
}
KEY_ID = KEY.key_id
PLAN = PLANS["internal"]  # of the key

send_batch = partial(send, {"Prefer": "respond-async"}, path="/batch", body=json.dumps(BATCH))


@pytest.fixture
def bodies(job_service, sqs, job_queue_url):
    """Return a function that returns the messages that hosts receive."""
    return lambda: [
        message["Body"]
        for message in sqs.receive_message(QueueUrl=job_queue_url, MaxNumberOfMessages=10).get("Messages", ())
    ]


def test_batch_becomes_one_job_without_expected_outputs(bodies):
    status, headers, body = send_batch()
    assert (status, headers["Location"], body["status"]) == (202, f"/jobs/{body['id']}", "pending")
    (message,) = bodies()
    job = decode_job(message)
    assert job.runs == (Run(input="1", args=("a",)), Run(), Run())
    assert (job.id, job.stop_on_failure, job.input, job.args) == (body["id"], True, "", ())
    assert "SECRET" not in message


def test_stored_batch_is_returned_with_verdicts(job_service, components):
    job_id = send_batch()[2]["id"]
    runs = (make_run_result(stdout="SECRET-1\n"), make_run_result(stdout="else"), make_run_result())
    components.results.record_reply(make_batch_result(job_id, runs=runs))
    status, _, body = send(method="GET", path=f"/jobs/{job_id}")
    assert (status, body["id"], body["status"]) == (200, job_id, "finished")
    assert (body["passed"], body["failed"], body["not_run"]) == (1, 1, 1)
    assert [run["passed"] for run in body["runs"]] == [True, False, None]
    assert [run["status"] for run in body["runs"]] == ["ok", "ok", "not_run"]


def test_record_of_a_batch_has_digests_until_it_is_deleted(job_service, components):
    job_id = send_batch()[2]["id"]
    record = job_service.table.read(job_id)
    assert output_digest("SECRET-1") in record.expectations
    assert b"SECRET" not in record.expectations
    assert send(method="DELETE", path=f"/jobs/{job_id}")[0] == 204
    assert job_service.table.read(job_id).expectations == b""


def test_batch_uses_a_run_for_each_of_its_runs(job_service, table):
    assert send_batch()[0] == 202
    assert table.records[KEY_ID].runs == 3


def test_batch_is_refused_as_a_whole_if_too_few_runs_are_left(job_service, table):
    send_batch()
    table.change(KEY_ID, runs=PLAN.runs_per_month - 2)
    status, _, problem = send_batch()
    assert (status, problem["type"]) == (429, "urn:python-exec:problem:quota-exceeded")
    assert table.records[KEY_ID].runs == PLAN.runs_per_month - 2


def test_invalid_batch_names_the_run_and_uses_one_run(job_service, table):
    body = json.dumps({"code": "c", "runs": [{}, {"input": 1}]})
    status, _, problem = send(path="/batch", body=body)
    assert (status, problem["field"], problem["code"]) == (400, "runs[1].input", "wrong_type")
    assert table.records[KEY_ID].runs == 1


def test_repeated_batch_with_the_same_idempotency_key_is_one_job(bodies, table):
    headers = {"Prefer": "respond-async", "Idempotency-Key": "k"}
    first, second = (send(headers, path="/batch", body=json.dumps(BATCH))[2]["id"] for _ in range(2))
    assert first == second
    assert len(bodies()) == 1
    assert table.records[KEY_ID].runs == 3
