import json
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import EndpointConnectionError

from chalicelib import dispatch
from chalicelib.contract import Failure, FailureReason, Result, Status, Truncated, Usage, decode_job, encode
from chalicelib.dispatch import Dispatcher, JobFailedError, NoReplyError, QueueUnavailableError
from chalicelib.logs import JsonFormatter
from chalicelib.replies import ReplyQueue
from chalicelib.validation import RunRequest
from tests.fakes import client_error

WANTED = RunRequest(code="print(1)", input="in", timeout_s=2.5)


def result_of(job, **changes):
    members = {
        "id": job.id,
        "status": Status.OK,
        "exit_code": 0,
        "signal": None,
        "stdout": job.code + job.input,
        "stderr": "",
        "truncated": Truncated(),
        "error": None,
        "usage": Usage(duration_ms=1, cpu_ms=1, memory_bytes=1, queued_ms=1),
        "runtime": "python 3.13",
    }
    return Result(**members | changes)


class Hosts:
    """Answers each job on the queue in a thread, with what `answer` makes of it."""

    def __init__(self, sqs, job_queue_url, answer):
        self.jobs = []
        self._sqs, self._url, self._answer = sqs, job_queue_url, answer
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def _run(self):
        while not self._stop.is_set():
            messages = self._sqs.receive_message(QueueUrl=self._url, MaxNumberOfMessages=10).get("Messages", [])
            for message in messages:
                job = decode_job(message["Body"])
                self.jobs.append(job)
                for reply in self._answer(job):
                    self._sqs.send_message(QueueUrl=job.reply_to, MessageBody=encode(reply))
            self._stop.wait(0.002)


@pytest.fixture
def replies(sqs):
    return ReplyQueue(sqs)


@pytest.fixture
def dispatcher(sqs, job_queue_url, replies):
    return Dispatcher(sqs, job_queue_url=job_queue_url, replies=replies, reply_wait_s=20.0)


def test_result_is_returned(sqs, job_queue_url, dispatcher):
    with Hosts(sqs, job_queue_url, lambda job: [result_of(job)]) as hosts:
        assert dispatcher.run(WANTED, key_id="key") == result_of(hosts.jobs[0])


def test_job_carries_request_queue_and_deadlines(sqs, job_queue_url, dispatcher, replies):
    before = time.time()
    with Hosts(sqs, job_queue_url, lambda job: [result_of(job)]) as hosts:
        dispatcher.run(WANTED, key_id="key")
    (job,) = hosts.jobs
    assert (job.code, job.input, job.timeout_s) == ("print(1)", "in", 2.5)
    assert job.reply_to == replies.url()
    assert before <= job.submitted_at <= time.time()
    assert job.reply_by == job.expires_at == job.submitted_at + 20.0


def test_job_is_grouped_by_key_so_that_hosts_take_turns(sqs, job_queue_url, dispatcher):
    with Hosts(sqs, job_queue_url, lambda job: [result_of(job)]):
        dispatcher.run(WANTED, key_id="key")
    assert [message.group for message in sqs.queues[job_queue_url].messages] == ["key"]


def test_log_lines_of_the_request_carry_the_job_id(sqs, job_queue_url, dispatcher):
    with Hosts(sqs, job_queue_url, lambda job: [result_of(job)]) as hosts:
        dispatcher.run(WANTED, key_id="key")
    record = logging.makeLogRecord({"msg": "event"})
    assert json.loads(JsonFormatter().format(record))["job_id"] == hosts.jobs[0].id


def test_jobs_have_different_ids(sqs, job_queue_url, dispatcher):
    with Hosts(sqs, job_queue_url, lambda job: [result_of(job)]) as hosts:
        dispatcher.run(WANTED, key_id="key")
        dispatcher.run(WANTED, key_id="key")
    assert len({job.id for job in hosts.jobs}) == 2


def test_job_answered_twice_returns_one_result(sqs, job_queue_url, dispatcher):
    with Hosts(sqs, job_queue_url, lambda job: [result_of(job), result_of(job)]) as hosts:
        answers = [dispatcher.run(WANTED, key_id="key") for _ in range(3)]
    assert answers == [result_of(job) for job in hosts.jobs]


@pytest.mark.parametrize(("reason", "status"), [(FailureReason.EXPIRED, 504), (FailureReason.SANDBOX, 502)], ids=str)
def test_failure_is_raised_with_job_id(sqs, job_queue_url, dispatcher, reason, status):
    with (
        Hosts(sqs, job_queue_url, lambda job: [Failure(id=job.id, reason=reason)]) as hosts,
        pytest.raises(JobFailedError) as caught,
    ):
        dispatcher.run(WANTED, key_id="key")
    assert (caught.value.problem.status, caught.value.problem.job_id) == (status, hosts.jobs[0].id)


def test_no_reply_raises_with_job_id_after_wait_and_grace(sqs, job_queue_url, replies):
    dispatcher = Dispatcher(sqs, job_queue_url=job_queue_url, replies=replies, reply_wait_s=0.1)
    started = time.monotonic()
    with Hosts(sqs, job_queue_url, lambda _: []) as hosts, pytest.raises(NoReplyError) as caught:
        dispatcher.run(WANTED, key_id="key")
    assert 0.1 + dispatch.REPLY_GRACE_S <= time.monotonic() - started < 1 + dispatch.REPLY_GRACE_S
    assert (caught.value.problem.status, caught.value.problem.job_id) == (504, hosts.jobs[0].id)


@pytest.mark.parametrize("operation", ["create_queue", "send_message"])
@pytest.mark.parametrize(
    "error",
    [client_error("ServiceUnavailable"), EndpointConnectionError(endpoint_url="http://sqs.test")],
    ids=["client_error", "connection_error"],
)
def test_queue_failing_is_unavailable_with_retry_after(sqs, dispatcher, operation, error):
    sqs.failures[operation].append(error)
    with pytest.raises(QueueUnavailableError) as caught:
        dispatcher.run(WANTED, key_id="key")
    assert (caught.value.problem.status, caught.value.headers) == (503, {"Retry-After": "2"})


def test_job_that_was_not_sent_is_not_waited_for(sqs, dispatcher, replies):
    sqs.failures["send_message"].append(client_error("AccessDenied"))
    with pytest.raises(QueueUnavailableError):
        dispatcher.run(WANTED, key_id="key")
    assert (replies._expected, sqs.calls["receive_message"]) == (set(), 0)


def test_200_requests_of_16_threads_each_gets_its_own_result(sqs, job_queue_url, dispatcher):
    with Hosts(sqs, job_queue_url, lambda job: [result_of(job)]), ThreadPoolExecutor(16) as pool:
        wanted = [RunRequest(code=f"c{n}", input=f"i{n}") for n in range(200)]
        answers = pool.map(lambda one: dispatcher.run(one, key_id="key"), wanted)
        assert [answer.stdout for answer in answers] == [f"c{n}i{n}" for n in range(200)]
