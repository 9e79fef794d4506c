"""Attack the rates: no request that reads or writes a table, or whose body is parsed, is free."""

import itertools
import time
from functools import partial

import pytest

from chalicelib.access.plans import PLANS
from tests.support.api_requests import send
from tests.support.records import KEY

REQUESTS = 80
IDLE_S = 60.0  # after which the whole burst is left
FREE = PLANS["free"]
KEY_ID = KEY.key_id
SLUG = "urn:python-exec:problem:"
NUMBERS = itertools.count(10)

send_async = partial(send, {"Prefer": "respond-async"})


def send_idempotent(key="k", **options):
    return send({"Prefer": "respond-async", "Idempotency-Key": key}, **options)


@pytest.fixture
def free_key(monkeypatch, components, table, job_service):
    """Put the key of the test on plan free, with each of its slots in use: one by the job of an Idempotency-Key."""
    table.change(KEY_ID, plan="free")
    statuses = [send_idempotent()[0], *(send_async()[0] for _ in range(1, FREE.max_pending_jobs))]
    assert statuses == [202] * FREE.max_pending_jobs
    monkeypatch.setattr(components.admission, "_clock", lambda: time.time() + IDLE_S)
    return job_service


def attack(request, job_service):
    """Send many requests. Return how often each problem was the answer, the calls of the jobs table, and the time."""
    calls, started_at = job_service.calls(), time.monotonic()
    slugs = [request()[2]["type"].removeprefix(SLUG) for _ in range(REQUESTS)]
    return {slug: slugs.count(slug) for slug in slugs}, job_service.calls() - calls, time.monotonic() - started_at


REFUSALS = {
    "reused_idempotency_key": (
        lambda: send_idempotent(body=f'{{"code": "{next(NUMBERS)}"}}'),
        "idempotency-key-reused",
    ),
    "too_many_pending_jobs": (send_async, "too-many-pending-jobs"),
    "too_many_pending_idempotent_jobs": (lambda: send_idempotent(f"{next(NUMBERS)}"), "too-many-pending-jobs"),
}


@pytest.mark.parametrize(("request_", "slug"), REFUSALS.values(), ids=REFUSALS)
def test_refusals_count_toward_the_rate_and_use_no_run(free_key, table, request_, slug):
    counts, calls, elapsed_s = attack(request_, free_key)
    assert counts.keys() == {slug, "rate-limited"}
    assert FREE.burst <= counts[slug] <= FREE.burst + elapsed_s * FREE.requests_per_second
    assert calls <= 3 * counts[slug]
    assert table.records[KEY_ID].runs == FREE.max_pending_jobs


EXHAUSTED = {
    "idempotent": lambda: send_idempotent(f"{next(NUMBERS)}"),
    "invalid": lambda: send_idempotent(f"{next(NUMBERS)}", body="{"),
}


@pytest.mark.parametrize("request_", EXHAUSTED.values(), ids=EXHAUSTED)
def test_requests_beyond_the_quota_count_toward_the_rate(free_key, table, request_):
    free_key.pending_jobs.entries.clear()
    table.change(KEY_ID, runs=FREE.runs_per_month)
    counts, calls, elapsed_s = attack(request_, free_key)
    assert counts.keys() == {"quota-exceeded", "rate-limited"}
    assert FREE.burst <= counts["quota-exceeded"] <= FREE.burst + 1 + elapsed_s * FREE.requests_per_second
    assert calls <= 4 * counts["quota-exceeded"]
    assert table.records[KEY_ID].runs == FREE.runs_per_month


READS = {
    "get_job": {"method": "GET", "path": f"/jobs/{'0' * 32}"},
    "delete_job": {"method": "DELETE", "path": f"/jobs/{'0' * 32}"},
    "usage": {"method": "GET", "path": "/usage"},
    "health": {"method": "GET", "path": "/health"},
}


@pytest.mark.parametrize("request_", READS.values(), ids=READS)
def test_reads_have_a_rate_of_their_own(free_key, table, request_):
    rate = FREE.read_rate
    calls, started_at = free_key.calls(), time.monotonic()
    answers = [send(**request_, body="") for _ in range(REQUESTS)]
    limited = [problem for status, _, problem in answers if status == 429]
    elapsed_s = time.monotonic() - started_at
    assert rate.burst <= REQUESTS - len(limited) <= rate.burst + elapsed_s * rate.per_second
    assert {problem["type"] for problem in limited} == {SLUG + "rate-limited"}
    assert free_key.calls() - calls <= 2 * (REQUESTS - len(limited))
    assert '"read";r=0;' in answers[-1][1]["RateLimit"]
    assert send(body="{")[0] == 400  # the rate of runs is another one


def test_reads_of_a_revoked_key_are_rejected_at_once(free_key, table):
    path = f"/jobs/{'0' * 32}"
    assert send(method="GET", path=path, body="")[0] == 404
    table.change(KEY_ID, status="revoked")
    calls = free_key.calls()
    assert send(method="GET", path=path, body="")[0] == 403
    assert free_key.calls() == calls


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_polling_each_pending_job_once_per_second_is_not_limited(monkeypatch, components, job_service, table, plan):
    seconds = itertools.count(int(time.time()))
    table.change(KEY_ID, plan=plan.name)
    for now_s in itertools.islice(seconds, 5):
        monkeypatch.setattr(components.admission, "_clock", lambda now_s=now_s: now_s)
        paths = [f"/jobs/{number:032x}" for number in range(plan.max_pending_jobs)]
        assert {send(method="GET", path=path, body="")[0] for path in paths} == {404}
