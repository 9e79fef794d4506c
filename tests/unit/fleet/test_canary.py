"""The program that the service runs every minute."""

import threading
from types import SimpleNamespace

import app as api
import pytest
from msgspec.structs import replace

from chalicelib.contract import Failure, FailureReason, Status, decode_job, encode
from chalicelib.fleet.canary import KEY_ID, Canary
from chalicelib.jobs.dispatcher import JobDispatcher
from chalicelib.jobs.reply_queue import ReplyQueues
from tests.support.emf import parse_emf_line
from tests.support.fakes.payloads import FakePayloadStore
from tests.support.fakes.sqs import client_error
from tests.support.records import make_result


@pytest.fixture
def service(sqs, job_queue_urls, components, monkeypatch):
    """The API with a canary that waits for half a second."""
    payloads = FakePayloadStore()
    canary = Canary(
        JobDispatcher(sqs, job_queue_urls=job_queue_urls, payloads=payloads),
        reply_queues=ReplyQueues(sqs, long_poll_sqs=sqs, prefix="r-", on_late_reply=lambda _: None),
        payloads=payloads,
        wait_s=0.5,
    )
    with_canary = replace(components, canary=canary)
    monkeypatch.setattr(api, "components", lambda: with_canary)
    return SimpleNamespace(sqs=sqs, urls=job_queue_urls, run=lambda: api.run_canary({}, None))


def upper_case(job):
    return make_result(job.id, status=Status.OK, stdout=job.input.upper() + "\n")


def reverse(job):
    return make_result(job.id, status=Status.OK, stdout=job.input[::-1] + "\n")


@pytest.fixture
def host(service):
    """Run the jobs of each queue as a function does, until the test ends."""
    ended, host = threading.Event(), SimpleNamespace(answers=dict.fromkeys(service.urls, reverse))

    def serve(runtime):
        while not ended.is_set():
            for message in service.sqs.receive_message(QueueUrl=service.urls[runtime], WaitTimeSeconds=0.05).get(
                "Messages", ()
            ):
                job = decode_job(message["Body"])
                service.sqs.send_message(QueueUrl=job.reply_to, MessageBody=encode(host.answers[runtime](job)))

    threads = [threading.Thread(target=serve, args=(runtime,)) for runtime in service.urls]
    for thread in threads:
        thread.start()
    yield host
    ended.set()
    for thread in threads:
        thread.join()


def outcomes(log_records):
    return [(each.runtime, each.outcome) for each in log_records if each.msg == "canary_failed"]


def test_program_that_runs_passes_and_leaves_no_reply(service, host, log_lines):
    service.run()
    assert parse_emf_line(log_lines[-1]) == [("CanaryPassed", {}, 1)]
    (queue,) = [queue for url, queue in service.sqs.queues.items() if "/r-" in url]
    assert queue.messages == []


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (upper_case, "wrong-output"),
        (lambda job: make_result(job.id, status=Status.TIMEOUT), "timeout"),
        (lambda job: Failure(id=job.id, reason=FailureReason.SANDBOX_ERROR), "sandbox-error"),
    ],
    ids=["output", "status", "failure"],
)
def test_wrong_answer_of_one_runtime_fails(service, host, log_records, answer, outcome):
    host.answers["data"] = answer
    service.run()
    assert log_records[-1].CanaryPassed == 0
    assert outcomes(log_records) == [("data", outcome)]


def test_missing_hosts_fail(service, log_lines, log_records):
    service.run()
    assert parse_emf_line(log_lines[-1]) == [("CanaryPassed", {}, 0)]
    assert outcomes(log_records) == [("python", "no-reply"), ("data", "no-reply")]
    groups = {message.group for url in service.urls.values() for message in service.sqs.queues[url].messages}
    assert groups == {KEY_ID}


def test_missing_queue_fails(service, log_lines, log_records):
    service.sqs.failures["send_message"] += [client_error("AccessDenied"), client_error("AccessDenied")]
    service.run()
    assert parse_emf_line(log_lines[-1]) == [("CanaryPassed", {}, 0)]
    assert {outcome.rpartition(":")[2] for _, outcome in outcomes(log_records)} == {"job-queue-unavailable"}
