"""What the playground says when a request fails."""

import json
import re

import pytest
from playwright.sync_api import expect

PROBLEM = {"Content-Type": "application/problem+json"}


@pytest.fixture
def opened(playground):
    return playground.open()


def problem(status, title, **members):
    return json.dumps({"type": "urn:python-exec:problem:x", "title": title, "status": status, **members})


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
    playground.submit_key(playground.api_key)
    playground.run(status="ok")


def test_key_with_other_characters_is_refused_by_the_page(playground):
    playground.open(with_key=False)
    playground.run("print(1)")
    playground.submit_key("pk_ключ")
    expect(playground.dialog.get_by_role("alert")).to_have_text(re.compile("letters, digits"))


def test_rate_limit_counts_down_and_lets_run_again(opened):
    headers = {**PROBLEM, "Retry-After": "2", "RateLimit": '"rate";r=0;t=2', "RateLimit-Policy": '"rate";q=5;w=5'}
    opened.answer_with("/", status=429, body=problem(429, "Rate limit exceeded"), headers=headers)
    opened.run("print(1)")
    expect(opened.result).to_contain_text("Rate limit exceeded")
    expect(opened.result).to_contain_text(re.compile(r"try again in [12] s\."))
    expect(opened.run_button).to_have_attribute("aria-disabled", "true")
    expect(opened.page.locator("#limits")).to_contain_text(re.compile(r"Requests left\s*0 / 5"))
    opened.run_button.click()
    opened.page.unroute_all()
    expect(opened.run_button).to_have_attribute("aria-disabled", "false")
    opened.run(status="ok")


def test_exhausted_quota_names_the_date(opened):
    body = problem(429, "Monthly quota exceeded", detail="All runs are used.")
    opened.answer_with("/", status=429, body=body, headers={**PROBLEM, "Retry-After": "400000"})
    opened.run("print(1)")
    expect(opened.result).to_contain_text(re.compile(r"You can try again after \w+ \d+"))
    expect(opened.result).to_contain_text("All runs are used.")


def test_overload_counts_down(opened):
    body = problem(503, "Overloaded", detail="The service is at capacity.")
    opened.answer_with("/", status=503, body=body, headers={**PROBLEM, "Retry-After": "1"})
    opened.run("print(1)")
    expect(opened.result).to_contain_text("The service is at capacity.")
    expect(opened.run_button).to_have_attribute("aria-disabled", "false")


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
