"""What the playground says when a request fails."""

import json
import re
import time
import uuid

import pytest
from playwright.sync_api import expect

from chalicelib.problems import OVERLOADED
from infra.env_file import client as aws_client
from tests.support.api_server import api_server
from tests.support.keys import exhaust_quota, exhaust_rate
from tests.support.playground import Playground
from tests.support.polling import eventually


@pytest.fixture
def opened(playground):
    return playground.open()


def test_nothing_is_sent_without_a_key(playground):
    playground.open(with_key=False)
    posts = []
    playground.page.on("request", lambda request: posts.append(request) if request.method == "POST" else None)
    playground.run("print(1)")
    playground.dialog.get_by_role("button", name="Cancel").click()
    expect(playground.dialog).to_be_hidden()
    expect(playground.result).to_contain_text("to run the program")
    assert posts == []


def test_wrong_key_is_asked_for_again(playground):
    playground.open(with_key=False)
    playground.run("print(1)")
    playground.submit_key(playground.api_key[:-1] + ("A" if playground.api_key[-1] != "A" else "B"))
    expect(playground.dialog.get_by_role("alert")).to_have_text(re.compile("does not accept this key"))
    expect(playground.result).to_contain_text("HTTP 401")
    expect(playground.page.locator("#cancel")).to_be_hidden()
    playground.submit_key(playground.api_key)
    expect(playground.status).to_have_text("ok")


def test_key_with_other_characters_is_refused_by_the_page(playground):
    playground.open(with_key=False)
    playground.run("print(1)")
    playground.submit_key("pk_ключ")
    expect(playground.dialog.get_by_role("alert")).to_have_text(re.compile("letters, digits"))


@pytest.fixture
def limited(playground, create_key):
    """An open playground with a key of the plan `free`, in which time passes only if the test says so."""
    playground.api_key = create_key("free")
    return stop_time(playground.open())


def stop_time(playground):
    """Stop the clock of the page, so that a countdown waits for the test."""
    now_ms = playground.page.evaluate("Date.now()")
    playground.page.clock.install(time=now_ms / 1000)
    playground.page.clock.pause_at(now_ms / 1000 + 1)
    return playground


def pass_time(playground, seconds):
    """Let time pass in the page."""
    playground.page.clock.run_for(seconds * 1000)


def assert_counts_down(playground, seconds):
    """Fail unless the page counts from `seconds` down to "now", and lets the program run only then."""
    countdown = playground.page.locator("#countdown")
    for left_s in range(seconds, 0, -1):
        expect(countdown).to_have_text(f"in {left_s} s")
        expect(playground.run_button).to_have_attribute("aria-disabled", "true")
        pass_time(playground, 1)
    expect(countdown).to_have_text("now")
    expect(playground.run_button).to_have_attribute("aria-disabled", "false")


def test_rate_limit_counts_down_and_lets_run_again(limited, stack):
    for _ in range(10):  # on a slow machine, the limit may be over before the request arrives
        allowed_at = time.time() + 2
        exhaust_rate(stack.environment, limited.api_key, plan="free", wait_s=2)
        limited.run("print(1)")
        expect(limited.status).to_have_text(re.compile("HTTP 429|ok"))
        if limited.status.inner_text() != "ok":
            break
    expect(limited.result).to_contain_text("Rate limit exceeded")
    expect(limited.result).to_contain_text("Plan free allows 1 request per second (burst 5).")
    expect(limited.page.locator("#limits")).to_contain_text(re.compile(r"Requests left\s*0 / 5"))
    retry_after_s = int(re.search(r"Retry in (\d) s", limited.result.inner_text())[1])
    assert_counts_down(limited, retry_after_s)
    eventually(lambda: time.time() > allowed_at)
    limited.run(status="ok")


def test_exhausted_quota_names_the_date(limited, stack):
    exhaust_quota(stack.environment, limited.api_key, plan="free")
    limited.run("print(1)")
    expect(limited.result).to_contain_text("HTTP 429")
    expect(limited.result).to_contain_text("Plan free allows 1000 runs per month. Retry after 2099-02-01T00:00:00Z.")
    expect(limited.result).to_contain_text(re.compile(r"try again after (January 31|February 1), 2099"))
    expect(limited.page.locator("#limits")).to_contain_text(re.compile(r"Runs left this month\s*0"))
    pass_time(limited, 60)
    expect(limited.run_button).to_have_attribute("aria-disabled", "true")


def test_overload_counts_down(new_context, stack, tmp_path):
    sqs = aws_client("sqs", stack.environment)
    unread = sqs.create_queue(QueueName=f"unread-{uuid.uuid4().hex}")["QueueUrl"]
    for _ in range(3):
        sqs.send_message(QueueUrl=unread, MessageBody="x")
    settings = {**stack.environment, "JOB_QUEUE_URL": unread, "MAX_QUEUE_DEPTH": "1"}
    with api_server(settings, logs=tmp_path) as url:
        overloaded = stop_time(Playground(new_context(url).new_page(), url, stack.api_key).open())
        overloaded.run("print(1)")
        expect(overloaded.result).to_contain_text("HTTP 503")
        expect(overloaded.result).to_contain_text("The service is at capacity. This request used no run")
        assert_counts_down(overloaded, OVERLOADED.retry_after_s)


def test_too_large_program_names_field_and_limit(opened):
    opened.run("#" * 300_000)
    expect(opened.result).to_contain_text("HTTP 413")
    expect(opened.result).to_contain_text("262144")
    expect(opened.result.get_by_role("alert")).to_contain_text("Field: code")


def test_failed_job_shows_its_problem(opened):
    opened.page.get_by_label("Asynchronous").check()
    body = {"id": "0" * 32, "status": "failed", "problem": {"title": "Job failed", "status": 502, "detail": "Lost."}}
    opened.answer_with("/jobs/*", status=200, body=json.dumps(body))
    opened.run("print(1)")
    expect(opened.result).to_contain_text("HTTP 502")
    expect(opened.result).to_contain_text("Lost.")


def test_answer_of_a_gateway_shows_its_status(opened):
    opened.answer_with("/", status=502, body="<h1>Bad gateway</h1>", headers={"Content-Type": "text/html"})
    opened.run("print(1)")
    expect(opened.result).to_contain_text("HTTP 502")


def test_offline_browser_is_reported_and_recovers(opened):
    opened.page.context.set_offline(True)
    banner = opened.page.locator("#banner")
    expect(banner).to_contain_text("You are offline")
    opened.run("print(1)")
    expect(opened.result).to_contain_text("Connect to the network")
    opened.page.context.set_offline(False)
    expect(banner).to_be_hidden()
    opened.run(status="ok")


def test_unreachable_service_is_reported(opened):
    opened.page.route(f"{opened.url}/", lambda route: route.abort())
    opened.run("print(1)")
    expect(opened.result).to_contain_text("The service cannot be reached")
