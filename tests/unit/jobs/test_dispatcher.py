import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import EndpointConnectionError

from chalicelib import problems
from chalicelib.contract import Failure, FailureReason, Job, decode_job, encode
from chalicelib.jobs import dispatcher as dispatcher_module
from chalicelib.jobs.dispatcher import Dispatcher
from chalicelib.jobs.reply_queue import ReplyQueue
from chalicelib.telemetry import metrics
from tests.support.fakes.sqs import client_error
from tests.support.problems import raises_problem
from tests.support.records import make_result


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
def late():
    return []


@pytest.fixture
def replies(sqs, late):
    return ReplyQueue(sqs, polls=sqs, prefix="python-exec-reply-", settle_late=late.append)


@pytest.fixture
def dispatcher(sqs, job_queue_url, replies):
    return Dispatcher(sqs, job_queue_url=job_queue_url, replies=replies)


def run(dispatcher, *, wait_s=20.0, if_late=lambda: None, code="c"):
    now = time.time()
    times = {"submitted_at": now, "reply_by": now + wait_s, "expires_at": now + 60}
    sent = Job(id=uuid.uuid4().hex, code=code, reply_to=dispatcher.reply_to(), **times)
    return sent, dispatcher.run(sent, key_id="key", if_late=if_late)


def test_reply_is_returned(sqs, job_queue_url, dispatcher):
    with Hosts(sqs, job_queue_url, lambda job: [make_result(job.id)]) as hosts:
        sent, reply = run(dispatcher)
    assert (hosts.jobs, reply) == ([sent], make_result(sent.id))


def test_failure_is_returned(sqs, job_queue_url, dispatcher):
    with Hosts(sqs, job_queue_url, lambda job: [Failure(id=job.id, reason=FailureReason.SANDBOX_ERROR)]):
        sent, reply = run(dispatcher)
    assert reply == Failure(id=sent.id, reason=FailureReason.SANDBOX_ERROR)


def test_job_message_group_is_key_id(sqs, job_queue_url, dispatcher):
    with Hosts(sqs, job_queue_url, lambda job: [make_result(job.id)]):
        run(dispatcher)
    assert [message.group for message in sqs.queues[job_queue_url].messages] == ["key"]


def test_job_answered_twice_returns_one_reply(sqs, job_queue_url, dispatcher):
    with Hosts(sqs, job_queue_url, lambda job: [make_result(job.id), make_result(job.id)]):
        answers = [run(dispatcher) for _ in range(3)]
    assert [reply.id for _, reply in answers] == [sent.id for sent, _ in answers]


def test_missing_reply_returns_none_after_wait_plus_grace(sqs, job_queue_url, dispatcher):
    started, told = time.monotonic(), []
    _, reply = run(dispatcher, wait_s=0.1, if_late=lambda: told.append(time.monotonic() - started))
    assert reply is None
    assert 0.1 + dispatcher_module.REPLY_GRACE_S <= told[0] < 1 + dispatcher_module.REPLY_GRACE_S


def test_reply_wait_and_late_replies_are_recorded_as_metrics(sqs, job_queue_url, dispatcher, monkeypatch):
    monkeypatch.setattr(dispatcher_module, "REPLY_GRACE_S", 0.0)
    metrics.begin()
    with Hosts(sqs, job_queue_url, lambda job: [make_result(job.id)]):
        run(dispatcher)
    in_time = metrics.of_request(None)
    run(dispatcher, wait_s=0.1)
    late = metrics.of_request(None)
    assert "LateReplies" not in in_time
    assert (late["LateReplies"], in_time["ReplyWaitMs"] < 100 <= late["ReplyWaitMs"]) == (1, True)


def test_reply_arriving_during_on_timeout_callback_is_returned(sqs, dispatcher, replies, monkeypatch):
    monkeypatch.setattr(dispatcher_module, "REPLY_GRACE_S", 0.0)

    def if_late():
        for job_id in (*replies._expected, "other"):
            sqs.send_message(QueueUrl=replies.url(), MessageBody=encode(make_result(job_id)))
        with replies.expecting("other"):
            replies.wait("other", deadline=time.monotonic() + 5)

    sent, reply = run(dispatcher, wait_s=0.1, if_late=if_late)
    assert reply == make_result(sent.id)


def test_reply_after_timeout_goes_to_late_handler(sqs, job_queue_url, dispatcher, late, monkeypatch):
    monkeypatch.setattr(dispatcher_module, "REPLY_GRACE_S", 0.0)
    sent, reply = run(dispatcher, wait_s=0.1)
    sqs.send_message(QueueUrl=sent.reply_to, MessageBody=encode(make_result(sent.id)))
    with Hosts(sqs, job_queue_url, lambda job: [make_result(job.id)]):
        run(dispatcher)
    assert (reply, late[0]) == (None, make_result(sent.id))


@pytest.mark.parametrize("operation", ["create_queue", "send_message"])
@pytest.mark.parametrize(
    "error",
    [client_error("ServiceUnavailable"), EndpointConnectionError(endpoint_url="http://sqs.test")],
    ids=["client_error", "connection_error"],
)
def test_send_failure_returns_503_with_retry_after(sqs, dispatcher, operation, error):
    sqs.failures[operation].append(error)
    with raises_problem(problems.JOB_QUEUE_UNAVAILABLE) as caught:
        run(dispatcher)
    assert (caught.value.problem.status, caught.value.headers) == (503, {"Retry-After": "2"})


def test_send_failure_does_not_wait_for_reply(sqs, dispatcher, replies):
    sqs.failures["send_message"].append(client_error("AccessDenied"))
    with raises_problem(problems.JOB_QUEUE_UNAVAILABLE):
        run(dispatcher)
    assert (replies._expected, sqs.calls["receive_message"]) == (set(), 0)


def test_concurrent_requests_receive_their_own_results(sqs, job_queue_url, dispatcher):
    echo = Hosts(sqs, job_queue_url, lambda job: [make_result(job.id, stdout=job.code)])
    with echo, ThreadPoolExecutor(16) as pool:
        answers = pool.map(lambda n: run(dispatcher, code=f"c{n}")[1], range(200))
        assert [answer.stdout for answer in answers] == [f"c{n}" for n in range(200)]
