import pytest
from botocore.exceptions import EndpointConnectionError

from chalicelib import problems
from chalicelib.contract import Job, decode_job
from chalicelib.jobs.dispatcher import JobDispatcher
from tests.support.fakes.sqs import client_error
from tests.support.problems import raises_problem

JOB = Job(id="0" * 32, code="c", reply_to=None, submitted_at=1.0, reply_by=2.0, start_deadline=3.0)


@pytest.fixture
def dispatcher(sqs, job_queue_url):
    return JobDispatcher(sqs, job_queue_urls={"python": job_queue_url})


def test_job_is_sent_in_the_message_group_of_its_key(sqs, job_queue_url, dispatcher):
    dispatcher.send(JOB, key_id="key")
    (message,) = sqs.queues[job_queue_url].messages
    assert (decode_job(message.body), message.group) == (JOB, "key")


@pytest.mark.parametrize(
    "error",
    [client_error("ServiceUnavailable"), EndpointConnectionError(endpoint_url="http://sqs.test")],
    ids=["client_error", "connection_error"],
)
def test_send_failure_returns_503_with_retry_after(sqs, dispatcher, error):
    sqs.failures["send_message"].append(error)
    with raises_problem(problems.JOB_QUEUE_UNAVAILABLE) as raised:
        dispatcher.send(JOB, key_id="key")
    assert (raised.value.problem.status, raised.value.headers) == (503, {"Retry-After": "2"})
