"""Test admission over HTTP: status, problem, headers and log line."""

import json
import random
import time
from functools import partial

import app as api
import pytest
from msgspec.structs import replace

from chalicelib.access import rate_limits
from chalicelib.access.api_keys import KeyStatus, new_key
from tests.support.api_requests import preflight, send
from tests.support.fakes.sqs import client_error
from tests.support.records import KEY

LIMITS = {"RateLimit", "RateLimit-Policy"}
KEY_ID = KEY.key_id
SLUG = "urn:python-exec:problem:"

pytestmark = pytest.mark.usefixtures("jobs")


get_usage = partial(send, method="GET", path="/usage", body="")


def test_valid_key_is_accepted_in_either_header(jobs):
    assert send()[0] == 200
    assert send({"Authorization": f"Bearer {KEY}"}, key=None)[0] == 200
    assert [submission.key_id for submission in jobs.submissions] == [KEY_ID] * 2


REFUSED = {
    "missing": {"key": None},
    "malformed": {"key": "x"},
    "unknown": {"key": str(new_key())},
    "wrong_secret": {"key": str(new_key(KEY_ID))},
    "two_headers": {"headers": {"Authorization": f"Bearer {KEY}"}},
    "two_values": {"repeated": {"x-api-key": [str(KEY), str(KEY)]}},
    "basic": {"key": None, "headers": {"Authorization": f"Basic {KEY}"}},
}


@pytest.mark.parametrize("path", ["/", "/usage"])
def test_all_401_responses_are_identical(jobs, path):
    method = "POST" if path == "/" else "GET"
    answers = [send(**how, method=method, path=path) for how in REFUSED.values()]
    assert answers == [answers[0]] * len(REFUSED)
    status, headers, problem = answers[0]
    assert (status, problem["type"]) == (401, SLUG + "unauthorized")
    assert headers["WWW-Authenticate"] == 'Bearer realm="python-exec"'
    assert jobs.submissions == []


def test_fuzzed_credentials_are_401s_without_a_read(jobs, table):
    chars = random.Random(7)  # noqa: S311 - the same ones each time
    pieces = ["", " ", "pk_", str(KEY), KEY.secret, KEY_ID, "Bearer", "bearer ", "Basic ", ",", ";", "\0", "\x7f", "\t"]
    pieces += ["ü", "\u0660", "\ufeff", "\U0001f600", "x" * 10_000, '"', "\x1b[2J", "%00", "\r"]
    tried = 0
    while tried < 2000:
        value = "".join(chars.choices(pieces, k=chars.randint(0, 4)))
        name = chars.choice(["X-Api-Key", "x-api-key", "Authorization"])
        if value.strip() == str(KEY) or value.strip().lower() == f"bearer {KEY}".lower():
            continue
        tried += 1
        table.calls.clear()
        status, _, problem = send({name: value}, key=None)
        assert (status, problem["type"]) == (401, SLUG + "unauthorized"), value
        assert table.calls == {}
    assert jobs.submissions == []


def test_response_includes_every_rate_limit_policy():
    _, headers, _ = send()
    assert headers["RateLimit-Policy"].startswith('"rate";q=200;w=2, "read";q=1000;w=2, "month";q=10000000;w=')
    assert headers["RateLimit"].startswith('"rate";r=199;t=1, "read";r=1000;t=0, "month";r=9999999;t=')


AFTER_ADMISSION = {
    "no_json": ({"body": "{"}, None, 400),
    "too_large": ({"body": json.dumps({"code": "x" * 300_000})}, None, 413),
    "media_type": ({"headers": {"Content-Type": "text/plain"}}, None, 415),
    "bug": ({}, RuntimeError("bug"), 500),
}


@pytest.mark.parametrize(("request_", "error", "status"), AFTER_ADMISSION.values(), ids=AFTER_ADMISSION)
def test_error_after_admission_consumes_quota_and_reports_limits(jobs, table, request_, error, status):
    jobs.error = error
    actual, headers, _ = send(**request_)
    assert (actual, headers.keys() >= LIMITS) == (status, True)
    assert table.records[KEY_ID].runs == 1


def test_unauthenticated_body_is_not_parsed():
    for body in ("{", json.dumps({"code": "x" * 300_000}), "x" * 5_000_000):
        assert send(key="x", body=body)[0] == 401


def test_rate_limit_exceeded_returns_429_with_retry_after(jobs, table):
    table.change(KEY_ID, plan="free", tat_us=int((time.time() + 6.5) * rate_limits.SECOND_US))
    status, headers, problem = send()
    assert (status, problem["type"], problem["plan"]) == (429, SLUG + "rate-limited", "free")
    assert headers["Retry-After"] == "3"
    assert headers["RateLimit"].startswith('"rate";r=0;t=7, "read";r=20;t=0, "month";r=1000;t=')
    assert headers.keys() >= LIMITS
    assert jobs.submissions == []


LIMITED_REQUESTS = {
    "plain": {},
    "invalid_body": {"body": "{"},
    "idempotent": {"headers": {"Idempotency-Key": "k"}},
    "async": {"headers": {"Prefer": "respond-async"}},
    "idempotent_async": {"headers": {"Idempotency-Key": "k", "Prefer": "respond-async"}},
}


@pytest.mark.parametrize("request_", LIMITED_REQUESTS.values(), ids=LIMITED_REQUESTS)
def test_known_rate_limit_is_enforced_without_any_call(monkeypatch, table, job_service, request_):
    table.change(KEY_ID, plan="free", tat_us=int((time.time() + 60) * rate_limits.SECOND_US))
    send()  # now the process knows
    table.calls.clear()
    job_service.table.is_unavailable = job_service.pending_jobs.is_unavailable = True
    monkeypatch.setattr(api, "parse_submission", lambda *_, **__: pytest.fail("the body was parsed"))
    status, headers, problem = send(**request_)
    assert (status, problem["type"], headers["Retry-After"]) == (429, SLUG + "rate-limited", headers["Retry-After"])
    assert (table.calls, headers.keys() >= LIMITS) == ({}, True)


def test_known_quota_exhaustion_still_serves_replays(table, job_service):
    request = {"headers": {"Idempotency-Key": "k", "Prefer": "respond-async"}}
    status, _, first = send(**request)
    table.change(KEY_ID, runs=2**40)
    assert send()[2]["type"] == SLUG + "quota-exceeded"
    assert (status, send(**request)[2]) == (202, first)


def test_quota_exceeded_returns_429_with_its_own_type(table):
    send()
    table.change(KEY_ID, plan="free", runs=1000)
    status, headers, problem = send()
    assert (status, problem["type"]) == (429, SLUG + "quota-exceeded")
    assert '"month";r=0;' in headers["RateLimit"]


@pytest.mark.parametrize(
    ("changes", "slug"),
    [({"status": KeyStatus.REVOKED}, "key-revoked"), ({"expires_at": 1}, "key-expired")],
    ids=["revoked", "expired"],
)
@pytest.mark.parametrize("request_", [send, get_usage], ids=["run", "usage"])
def test_revoked_or_expired_key_returns_403(table, changes, slug, request_):
    assert request_()[0] == 200
    table.change(KEY_ID, **changes)
    status, headers, problem = request_()
    assert (status, problem["type"], headers.keys() >= LIMITS) == (403, SLUG + slug, True)


def test_request_above_plan_limit_returns_403_with_limit(jobs, table):
    table.change(KEY_ID, plan="free")
    status, headers, problem = send(body=json.dumps({"code": "1", "timeout_s": 5}))
    assert (status, problem["type"], problem["field"], problem["limit_s"]) == (
        403,
        SLUG + "plan-limit-exceeded",
        "timeout_s",
        3,
    )
    assert headers.keys() >= LIMITS
    _, _, problem = send(body=json.dumps({"code": "1", "input": "x" * 70_000}))
    assert (problem["field"], problem["limit_bytes"]) == ("input", 65536)
    assert jobs.submissions == []


@pytest.mark.parametrize("known", [True, False])
def test_key_table_failure_returns_503_and_submits_nothing(jobs, table, known):
    if known:
        send()
    table.is_unavailable = True
    jobs.submissions.clear()
    status, headers, problem = send()
    assert (status, problem["type"], headers["Retry-After"]) == (503, SLUG + "authentication-unavailable", "2")
    assert (headers.keys() >= LIMITS) == known
    assert jobs.submissions == []


def test_overload_returns_503_without_consuming_quota(jobs, table, sqs, job_queue_url):
    for _ in range(5):
        sqs.send_message(QueueUrl=job_queue_url, MessageBody="job")
    status, headers, problem = send()
    assert (status, problem["type"], headers["Retry-After"]) == (503, SLUG + "overloaded", "5")
    assert (headers.keys() >= LIMITS, table.records[KEY_ID].runs, jobs.submissions) == (True, 0, [])


def test_overload_is_not_revealed_to_unauthenticated_callers(sqs, job_queue_url):
    for _ in range(3):
        sqs.send_message(QueueUrl=job_queue_url, MessageBody="job")
    assert send(key="x")[0] == 401


def test_queue_depth_failure_does_not_reject_requests(sqs):
    sqs.failures["get_queue_attributes"].append(client_error("ServiceUnavailable"))
    assert send()[0] == 200


EACH_KIND = {
    "result": (send, 200),
    "usage": (get_usage, 200),
    "problem": (partial(send, body="{"), 400),
    "stranger": (partial(send, key=None), 401),
    "method": (partial(send, method="PUT"), 405),
}


@pytest.mark.parametrize(("request_", "status"), EACH_KIND.values(), ids=EACH_KIND)
def test_every_response_has_cors_headers(request_, status):
    actual, headers, _ = request_()
    assert actual == status
    assert headers["Access-Control-Allow-Origin"] == "*"
    assert {"RateLimit", "RateLimit-Policy", "Retry-After"} <= set(headers["Access-Control-Expose-Headers"].split(","))


@pytest.mark.parametrize(("path", "method"), [("/", "POST"), ("/usage", "GET")])
def test_preflight_needs_no_key(table, path, method):
    status, headers = preflight(path)
    assert (status, headers["Access-Control-Allow-Origin"]) == (200, "*")
    assert method in headers["Access-Control-Allow-Methods"].split(",")
    assert {"Content-Type", "X-Api-Key", "Authorization"} <= set(headers["Access-Control-Allow-Headers"].split(","))
    assert not table.calls


def test_usage_uses_no_run_and_is_available_when_rate_limited(table):
    send()
    month = table.records[KEY_ID].month
    table.change(KEY_ID, plan="free", runs=1000, tat_us=int((time.time() + 60) * rate_limits.SECOND_US))
    before = table.records[KEY_ID]
    status, headers, body = get_usage()
    after = replace(table.records[KEY_ID], read_tat_us=0)
    assert (status, headers.keys() >= LIMITS, after) == (200, True, before)
    resets_at = body.pop("resets_at")
    assert resets_at.endswith("-01T00:00:00Z")
    assert resets_at > f"{month // 100}-{month % 100:02}"
    assert body == {
        "key_id": KEY_ID,
        "plan": "free",
        "limits": {
            "requests_per_second": 1,
            "burst": 5,
            "reads_per_second": 10,
            "runs_per_month": 1000,
            "timeout_s": 3.0,
            "input_bytes": 65536,
            "files_bytes": 262144,
            "batch_runs": 20,
        },
        "used": 1000,
        "left": 0,
    }


def test_rate_limit_headers_do_not_leak_between_requests():
    send()
    assert not LIMITS & send(key=None)[1].keys()


def test_log_line_includes_key_id_and_plan_but_not_secret(log_lines):
    send()
    send(key=str(replace(KEY, secret=new_key().secret)))
    good, bad = [json.loads(line) for line in log_lines]
    assert (good["key_id"], good["plan"], good["status"], good["job_status"]) == (KEY_ID, "internal", 200, "error")
    assert (bad["status"], bad["problem"], "key_id" in bad) == (401, SLUG + "unauthorized", False)
    assert KEY.secret not in str(log_lines)
