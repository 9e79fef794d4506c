"""Test pending and finished jobs over HTTP: preferences, 202 responses, results and deletion."""

import json
import time
import uuid

import app as api
import msgspec
import pytest

from chalicelib.access.api_keys import KeyStatus, new_key, new_signing_secret
from chalicelib.access.load_shedding import QueueLoad
from chalicelib.contract import Failure, FailureReason, encode, pack
from chalicelib.jobs import job_view
from chalicelib.jobs.job_table import JobRecord, JobState
from chalicelib.jobs.submit import PendingJob
from tests.support.api_requests import BODY, preflight, send
from tests.support.records import KEY, make_key_record, make_result

SLUG = "urn:python-exec:problem:"

pytestmark = pytest.mark.usefixtures("jobs")


def job(job_id, *, method="GET", key=str(KEY)):
    return send(method=method, path=f"/jobs/{job_id}", body="", key=key)


def accept_job(job_table, **changes):
    """Store an accepted job of the key."""
    now_s = int(time.time())
    members = {"job_id": uuid.uuid4().hex, "key_id": KEY.key_id, "state": JobState.ACCEPTED, "holds_slot": True}
    times = {"start_deadline": now_s + 3600, "retained_until": now_s + 90_000}
    return job_table.claim(JobRecord(**members | times | changes), now_s=now_s)


def finish_job(job_table, **changes):
    record = accept_job(job_table, **changes)
    return job_table.set_reply(record.job_id, pack(make_result(record.job_id, stdout="\u00fc\ufffe")))


PENDING = PendingJob("a" * 32)


@pytest.mark.parametrize(
    ("prefer", "applied"), [("respond-async", "respond-async"), ("wait=7", "wait=7"), ("wait=99", "wait=23")]
)
def test_pending_job_returns_202_with_location_and_retry_after(jobs, prefer, applied):
    jobs.outcome = PENDING
    status, headers, body = send({"Prefer": prefer})
    assert (status, body) == (202, {"id": "a" * 32, "status": "pending"})
    assert (headers["Location"], headers["Retry-After"]) == (f"/jobs/{'a' * 32}", "1")
    assert (headers["Preference-Applied"], headers["Content-Type"]) == (applied, "application/json")


def test_unrequested_202_has_no_preference_applied(jobs):
    jobs.outcome = PENDING
    status, headers, _ = send()
    assert (status, "Preference-Applied" in headers) == (202, False)


def test_result_within_wait_reports_preference_applied(jobs):
    status, headers, _ = send({"Prefer": "wait=7"})
    assert (status, headers["Preference-Applied"], jobs.submissions[0].wait_s) == (200, "wait=7", 7)


def test_default_wait_is_used_without_prefer_header(jobs):
    send()
    (submission,) = jobs.submissions
    assert (submission.wait_s, submission.is_async, submission.idempotency_key) == (20.0, False, None)
    assert (submission.body, submission.caller.plan.name, submission.key_id) == (BODY.encode(), "internal", KEY.key_id)


def test_multiple_prefer_headers_are_combined(jobs):
    _, headers, _ = send(repeated={"Prefer": ["wait=3", "respond-async"]})
    (submission,) = jobs.submissions
    assert (submission.wait_s, submission.is_async) == (3, False)
    assert headers["Preference-Applied"] == "respond-async, wait=3"


def test_callback_url_disables_wait(jobs, table):
    jobs.outcome = PENDING
    table.change(KEY.key_id, signing_secret=new_signing_secret())
    body = json.dumps({"code": "1", "callback_url": "https://receiver.example/"})
    _, headers, _ = send({"Prefer": "respond-async, wait=3"}, body=body)
    assert (jobs.submissions[0].is_async, headers["Preference-Applied"]) == (True, "respond-async")


@pytest.mark.parametrize(("path", "location"), [("/", "/jobs/"), ("/api/", "/api/jobs/"), ("/api", "/api/jobs/")])
def test_location_includes_gateway_stage(jobs, path, location):
    jobs.outcome = PENDING
    _, headers, _ = send(stage_path=path)  # of a stage api, or a domain of one's own
    assert headers["Location"] == location + PENDING.job_id


@pytest.mark.parametrize(("queued", "load"), [(0, QueueLoad.NORMAL), (1, QueueLoad.HIGH)])
def test_load_of_the_queue_decides_which_jobs_need_a_slot(jobs, sqs, job_queue_url, queued, load):
    for _ in range(queued):
        sqs.send_message(QueueUrl=job_queue_url, MessageBody="job")
    send()
    assert jobs.submissions[0].queue_load is load


def test_result_has_no_location(jobs):
    status, headers, _ = send({"Idempotency-Key": "k"})
    assert (status, "Location" in headers) == (200, False)


@pytest.mark.parametrize(
    ("reason", "status"),
    [(FailureReason.START_TIMEOUT, 504), (FailureReason.SANDBOX_ERROR, 502), (FailureReason.HOST_LOST, 502)],
    ids=str,
)
def test_failed_job_returns_problem_with_job_id_and_reason(jobs, reason, status):
    jobs.outcome = Failure(id="a" * 32, reason=reason)
    actual_status, headers, problem = send()
    assert (actual_status, headers["Content-Type"]) == (status, "application/problem+json")
    assert (problem["type"], problem["job_id"]) == (f"{SLUG}job-failed:{reason}", "a" * 32)


@pytest.mark.parametrize("value", ["k", " ~!", "x" * 255, "8e03978e-40d5-43e8-bc93-6894a57f9324"])
def test_idempotency_key_is_passed_through_unchanged(jobs, value):
    assert send(repeated={"idempotency-key": [value]})[0] == 200
    assert jobs.submissions[0].idempotency_key == value


BAD_KEYS = {
    "empty": [""],
    "too_long": ["x" * 256],
    "tab": ["a\tb"],
    "newline": ["a\n"],
    "not_ascii": ["\u00fc"],
    "two": ["a", "b"],
    "same_twice": ["a", "a"],
}


@pytest.mark.parametrize("values", BAD_KEYS.values(), ids=BAD_KEYS)
def test_invalid_idempotency_key_returns_400_and_consumes_quota(jobs, table, values):
    status, headers, problem = send(repeated={"Idempotency-Key": values})
    assert (status, problem["type"]) == (400, SLUG + "invalid-idempotency-key")
    assert (jobs.submissions, table.records[KEY.key_id].runs, "RateLimit" in headers) == ([], 1, True)


def test_get_job_matches_post_response(job_table):
    record = finish_job(job_table)
    status, headers, body = job(record.job_id)
    assert (status, headers["Content-Type"]) == (200, "application/json")
    result = make_result(record.job_id, stdout="\u00fc\ufffe")
    assert body == json.loads(msgspec.json.encode(job_view.result_body(result)))
    assert "webhook" not in body


def test_get_unfinished_job_returns_202_with_retry_after(job_table):
    record = accept_job(job_table)
    status, headers, body = job(record.job_id)
    assert (status, body) == (202, {"id": record.job_id, "status": "pending"})
    assert (headers["Retry-After"], "Location" in headers) == ("1", False)


def test_get_job_polls_own_reply_queue(sqs, job_table):
    record = accept_job(job_table)
    with api.components().reply_queues.lease(record.job_id) as queue:
        assert queue.wait(record.job_id, deadline=0.0) is None
    sqs.send_message(QueueUrl=queue.url, MessageBody=encode(make_result(record.job_id)))
    assert job(record.job_id)[0] == 200


@pytest.mark.parametrize("reason", FailureReason, ids=str)
def test_get_failed_job_returns_200_with_problem(job_table, reason):
    record = accept_job(job_table)
    job_table.set_reply(record.job_id, pack(Failure(id=record.job_id, reason=reason)))
    status, _, body = job(record.job_id)
    assert (status, body["id"], body["status"]) == (200, record.job_id, "failed")
    assert (body["problem"]["type"], body["problem"]["job_id"]) == (f"{SLUG}job-failed:{reason}", record.job_id)


def test_get_unfinished_job_includes_webhook_state(job_table):
    record = accept_job(job_table, webhook_url="https://receiver.example/secret-path")
    status, _, body = job(record.job_id)
    webhook = {"state": "pending", "attempts": 0, "error": None}
    assert (status, body) == (202, {"id": record.job_id, "status": "pending", "webhook": webhook})


def test_get_job_includes_webhook_state(job_table):
    record = finish_job(job_table, webhook_url="https://receiver.example/secret-path")
    _, _, body = job(record.job_id)
    assert body["webhook"] == {"state": "pending", "attempts": 0, "error": None}
    assert "secret-path" not in json.dumps(body)


NO_IDS = ("x", "A" * 32, "0" * 31, "0" * 33, "slots:0", "%0a" + "0" * 31, "..")


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_unknown_and_foreign_jobs_return_identical_404(job_table, table, method):
    other = new_key()
    table.records[other.key_id] = make_key_record(other, plan="internal")
    ids = [finish_job(job_table).job_id, accept_job(job_table).job_id, "0" * 32, f"slots:{KEY.key_id}", *NO_IDS]
    before = dict(job_table.records)
    answers = [job(job_id, method=method, key=str(other)) for job_id in ids]
    assert {(status, json.dumps(body)) for status, _, body in answers} == {(404, json.dumps(answers[0][2]))}
    assert (answers[0][2]["type"], job_table.records) == (SLUG + "job-not-found", before)


@pytest.mark.parametrize("job_id", NO_IDS)
def test_malformed_job_id_is_not_looked_up(job_table, job_id):
    job_table.is_unavailable = True
    assert job(job_id)[0] == 404


def test_delete_returns_204_then_410(job_table):
    for record in (finish_job(job_table), accept_job(job_table)):
        status, _, body = job(record.job_id, method="DELETE")
        assert (status, body) == (204, None)
        status, _, problem = job(record.job_id)
        assert (status, problem["type"]) == (410, SLUG + "job-expired-or-deleted")
        assert job(record.job_id, method="DELETE")[0] == 204


def test_expired_result_returns_410(job_table):
    record = finish_job(job_table, retained_until=int(time.time()))
    assert job(record.job_id)[0] == 410


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_get_job_requires_valid_key(job_table, table, method):
    record = finish_job(job_table)
    assert job(record.job_id, method=method, key="x")[0] == 401
    table.change(KEY.key_id, status=KeyStatus.REVOKED)
    assert job(record.job_id, method=method)[0] == 403
    assert job_table.read(record.job_id) == record


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_get_job_is_free_and_reports_limits(job_table, table, method):
    status, headers, _ = job(finish_job(job_table).job_id, method=method)
    assert (status < 300, headers.keys() >= {"RateLimit", "RateLimit-Policy"}) == (True, True)
    assert table.records[KEY.key_id].runs == 0


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_job_table_failure_returns_503(job_table, method):
    job_table.is_unavailable = True
    status, headers, problem = job("0" * 32, method=method)
    assert (status, problem["type"], headers["Retry-After"]) == (503, SLUG + "job-store-unavailable", "2")


def test_corrupt_stored_result_returns_500(job_table):
    assert job(job_table.set_reply(accept_job(job_table).job_id, b"{}").job_id)[0] == 500


def test_every_response_has_cors_headers(jobs, job_table):
    jobs.outcome = PENDING
    answers = [send(), job(finish_job(job_table).job_id), job(accept_job(job_table).job_id), job("x")]
    answers.append(job(accept_job(job_table).job_id, method="DELETE"))
    assert [status for status, _, _ in answers] == [202, 200, 202, 404, 204]
    for _, headers, _ in answers:
        assert (headers["Access-Control-Allow-Origin"], headers["Cache-Control"]) == ("*", "no-store")
        exposed = headers["Access-Control-Expose-Headers"].split(",")
        assert {"Location", "Retry-After", "Preference-Applied"} <= set(exposed)


@pytest.mark.parametrize(("path", "methods"), [("/", {"POST"}), (f"/jobs/{'0' * 32}", {"GET", "DELETE"})])
def test_preflight_allows_the_headers_and_methods(path, methods):
    _, headers = preflight(path)
    assert methods <= set(headers["Access-Control-Allow-Methods"].split(","))
    assert {"Prefer", "Idempotency-Key"} <= set(headers["Access-Control-Allow-Headers"].split(","))


def test_log_line_includes_job_id_but_no_content(job_table, log_lines):
    record = finish_job(job_table)
    job(record.job_id)
    (line,) = [json.loads(line) for line in log_lines]
    assert (line["job_id"], line["status"]) == (record.job_id, 200)
    assert line["route"] == "GET /jobs/{job_id}"
