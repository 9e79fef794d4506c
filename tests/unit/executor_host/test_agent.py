"""Test the agent with an in-memory queue and engine."""

import contextlib
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from chalicelib.contract import (
    MAX_MESSAGE_BYTES,
    Artifact,
    BatchResult,
    Failure,
    FailureReason,
    InputFile,
    Job,
    JobHeader,
    JobReference,
    ReplyReference,
    Result,
    Run,
    Status,
    decode_reply,
    encode,
    pack,
    unpack_reply,
)
from executor_host import metrics
from executor_host.agent import PAYLOAD_PAUSE_S, REPLY_ATTEMPTS, Agent
from executor_host.channel import SandboxError
from executor_host.core_scheduler import CoreScheduler
from executor_host.job_queue import NoSuchQueueError, QueueError
from executor_host.job_runner import MAX_SANDBOX_ATTEMPTS
from executor_host.payloads import PayloadError, PayloadRejectedError
from executor_host.poll_pacer import IDLE_RECEIVE_WAIT_S
from executor_host.pool import Pool
from executor_host.visibility import VISIBILITY_TIMEOUT_S, VisibilityExtender
from tests.support.fakes.docker_engine import FakeDockerEngine, make_outcome
from tests.support.fakes.job_queue import FakeJobQueue
from tests.support.fakes.payloads import FakePayloadClient
from tests.support.polling import eventually
from tests.support.records import UPLOAD_URL

REPLIES, RESULTS = "http://queue/reply", "http://queue/results"
INTERVAL_S = 0.02


@pytest.fixture
def engine():
    return FakeDockerEngine()


@pytest.fixture
def queue():
    return FakeJobQueue()


@pytest.fixture
def payloads():
    return FakePayloadClient()


@pytest.fixture
def isolation_passed():
    passed = Event()
    passed.set()
    return passed


@pytest.fixture
def start(queue, payloads, isolation_passed):
    """Return a function that starts an agent and its pool on an engine."""
    with contextlib.ExitStack() as started:

        def start(engine, size=2, workers=2, queue=queue):
            pool = Pool(engine, size=size, start_threads=1)
            visibility = VisibilityExtender(queue, interval_s=INTERVAL_S)
            agent = Agent(
                queue,
                pool=pool,
                payloads=payloads,
                isolation_passed=isolation_passed,
                visibility=visibility,
                results_queue_url=RESULTS,
                workers=workers,
                metrics_namespace="PythonExec",
                scheduler=CoreScheduler(workers),
            )
            pool.start()
            agent.start()
            started.callback(pool.stop, 5)
            started.callback(vars(engine).update, failing=False)  # a pool stops only once no container is left
            started.callback(agent.stop, 60)
            return agent

        yield start


@pytest.fixture
def agent(engine, start):
    return start(engine)


def job(**changes):
    now = time.time()
    members = {
        "id": uuid.uuid4().hex,
        "code": "the code",
        "input": "the input",
        "args": ("an", "arg"),
        "timeout_s": 1.5,
        "reply_to": REPLIES,
        "reply_upload_url": UPLOAD_URL,
        "submitted_at": now - 2,
        "reply_by": now + 20,
        "start_deadline": now + 20,
    }
    return Job(**(members | changes))


def send_and_wait(queue, sent):
    queue.enqueue(encode(sent))
    return decode_reply(queue.wait_for_sent(sent.reply_to or RESULTS))


def reply_count(reply, status):
    return [run and run.status for run in reply.runs].count(status)


def test_job_is_run_answered_and_deleted(agent, engine, queue):
    sent = job()
    reply = send_and_wait(queue, sent)
    assert (reply.id, reply.status, reply.stdout, reply.stderr) == (
        sent.id,
        Status.OK,
        "the code",
        "the input",
    )
    assert (reply.runtime, reply.python_version) == ("python", "3.13")
    eventually(lambda: len(queue.deleted) == 1)
    assert [ran for sandbox in engine.started for ran in sandbox.ran] == [("the code", "the input", ("an", "arg"), 1.5)]


def test_files_reach_the_sandbox_and_artifacts_the_caller(agent, queue):
    file = InputFile(path="a/b", content=b"\xff\0")
    reply = send_and_wait(queue, job(files=(file, InputFile(path="c", content=b"")), artifacts=("a/b",)))
    assert reply.artifacts == (Artifact(path="a/b", content=b"\xff\0"),)


def test_result_includes_queue_time(agent, queue):
    assert 2000 <= send_and_wait(queue, job()).usage.queued_ms < 20_000


def test_queue_time_is_never_negative(agent, queue):
    assert send_and_wait(queue, job(submitted_at=time.time() + 100)).usage.queued_ms == 0


def test_each_job_gets_a_fresh_sandbox(agent, engine, queue):
    for _ in range(30):
        send_and_wait(queue, job())
    assert max(len(sandbox.ran) for sandbox in engine.started) == 1


def test_expired_job_is_failed_without_running(agent, engine, queue):
    sent = job(start_deadline=time.time() - 1)
    assert send_and_wait(queue, sent) == Failure(id=sent.id, reason=FailureReason.START_TIMEOUT)
    eventually(lambda: len(queue.deleted) == 1)
    assert [sandbox.ran for sandbox in engine.started if sandbox.ran] == []


def test_malformed_message_is_not_deleted(agent, queue):
    queue.enqueue("no job")
    assert isinstance(send_and_wait(queue, job()), Result)
    eventually(lambda: len(queue.deleted) == 1)
    assert "no job" not in {message.body for message in queue.deleted}


def test_job_of_another_runtime_is_malformed(agent, queue):
    queue.enqueue(encode(job(runtime="data")))
    assert isinstance(send_and_wait(queue, job()), Result)
    eventually(lambda: len(queue.deleted) == 1)


def test_sandbox_failure_retries_job_in_new_sandbox(agent, engine, queue):
    engine.outcomes += [SandboxError("died")] * (MAX_SANDBOX_ATTEMPTS - 1)
    reply = send_and_wait(queue, job())
    assert reply.status is Status.OK


def test_repeated_sandbox_failure_returns_sandbox_error(engine, queue, start):
    engine.outcomes += [SandboxError("died")] * MAX_SANDBOX_ATTEMPTS
    start(engine, size=1, workers=1)
    sent = job()
    assert send_and_wait(queue, sent) == Failure(id=sent.id, reason=FailureReason.SANDBOX_ERROR)


def test_dead_sandbox_is_replaced_before_next_job(agent, engine, queue):
    eventually(lambda: len(engine.started) == 4)  # two acquired, two idle
    for sandbox in engine.started[:2]:
        sandbox.alive = False
    assert send_and_wait(queue, job()).status is Status.OK


def test_agent_recovers_after_queue_outage(agent, queue, monkeypatch):
    monkeypatch.setattr("executor_host.agent.RETRY_DELAY_S", 0.01)
    queue.failures["receive"] += [QueueError("gone")] * 5
    assert send_and_wait(queue, job()).status is Status.OK


def test_queue_outage_does_not_use_up_sandboxes(agent, engine, queue, monkeypatch):
    monkeypatch.setattr("executor_host.agent.RETRY_DELAY_S", 0.01)
    eventually(lambda: len(engine.started) == 4)
    queue.failures["receive"] += [QueueError("gone")] * 20
    eventually(lambda: not queue.failures["receive"])
    assert len(engine.started) == 4


def test_unused_sandbox_runs_the_next_job(engine, queue, start):
    start(engine, size=1, workers=1)
    eventually(lambda: len(engine.started) == 2)
    queue.enqueue("malformed")
    send_and_wait(queue, job(start_deadline=time.time() - 1))
    send_and_wait(queue, job())
    assert [len(sandbox.ran) for sandbox in engine.started[:2]] == [1, 0]


def test_completed_job_is_logged_with_its_metrics(agent, queue, caplog):
    caplog.set_level("INFO", logger="executor_host")
    sent = job()
    result = send_and_wait(queue, sent)
    eventually(lambda: "job_completed" in [record.message for record in caplog.records])
    (line,) = [record for record in caplog.records if record.message == "job_completed"]
    assert (line.job_id, line.status, line.Status, line.QueueWaitMs) == (sent.id, "ok", "ok", result.usage.queued_ms)


def test_reply_to_newly_created_queue_is_retried(agent, queue, monkeypatch):
    monkeypatch.setattr("executor_host.agent.REPLY_RETRY_DELAY_S", 0.01)
    queue.failures[f"send to {REPLIES}"] += [NoSuchQueueError("new")] * (REPLY_ATTEMPTS - 1)
    assert send_and_wait(queue, job()).status is Status.OK


def test_reply_falls_back_to_results_queue_when_reply_queue_is_missing(agent, queue, monkeypatch):
    monkeypatch.setattr("executor_host.agent.REPLY_RETRY_DELAY_S", 0.01)
    queue.failures[f"send to {REPLIES}"] += [NoSuchQueueError("gone")] * REPLY_ATTEMPTS
    sent = job()
    queue.enqueue(encode(sent), group="key")
    reply = queue.wait_for_sent(RESULTS)
    assert decode_reply(reply).id == sent.id
    assert queue.groups[reply] == "key"
    eventually(lambda: len(queue.deleted) == 1)


LATE = {"asynchronous": {"reply_to": None}, "late": {"reply_by": 1.0}}


@pytest.mark.parametrize("changes", LATE.values(), ids=LATE)
def test_late_or_async_reply_goes_to_results_queue(agent, queue, changes):
    sent = job(**changes)
    queue.enqueue(encode(sent), group="key")
    reply = queue.wait_for_sent(RESULTS)
    assert (decode_reply(reply).id, queue.groups[reply]) == (sent.id, "key")


def test_result_is_retried_during_queue_outage(agent, engine, queue, monkeypatch):
    monkeypatch.setattr("executor_host.agent.RETRY_DELAY_S", 0.01)
    queue.failures[f"send to {REPLIES}"] += [QueueError("unreachable")] * 5
    assert send_and_wait(queue, job()).status is Status.OK
    assert [len(sandbox.ran) for sandbox in engine.started if sandbox.ran] == [1]


def test_job_is_not_deleted_when_result_cannot_be_sent(agent, queue, monkeypatch):
    monkeypatch.setattr("executor_host.agent.REPLY_SEND_TIMEOUT_S", 0.0)
    queue.failures[f"send to {REPLIES}"] += [QueueError("unreachable")]
    failed, completed = job(), job()
    queue.enqueue(encode(failed))
    eventually(lambda: not queue.failures[f"send to {REPLIES}"])
    send_and_wait(queue, completed)
    eventually(lambda: queue.deleted)
    assert [message.body for message in queue.deleted] == [encode(completed)]


def test_visibility_is_extended_only_while_job_runs(agent, engine, queue, monkeypatch):
    monkeypatch.setattr("executor_host.agent.RETRY_DELAY_S", 10 * INTERVAL_S)
    queue.failures[f"send to {REPLIES}"] += [QueueError("unreachable")]  # keeps the job in flight
    queue.failures["extend_visibility"] += [QueueError("unreachable")]  # has no effect on the job
    sent = encode(job())
    queue.enqueue(sent)
    queue.wait_for_sent(REPLIES)
    eventually(lambda: queue.deleted)
    time.sleep(5 * INTERVAL_S)  # an extension that began before the end of the job may still arrive
    extensions = len(queue.extended)
    assert extensions > 1
    assert set(queue.extended) == {(sent, VISIBILITY_TIMEOUT_S)}
    time.sleep(5 * INTERVAL_S)
    assert len(queue.extended) == extensions


def test_agent_does_not_receive_without_sandbox(engine, queue, start):
    engine.failing = True
    queue.failures["receive"] += [QueueError("must not be called")]
    start(engine, size=1, workers=1)
    time.sleep(0.3)
    assert len(queue.failures["receive"]) == 1


def test_agent_does_not_receive_before_isolation_check_passes(engine, queue, start, isolation_passed, monkeypatch):
    monkeypatch.setattr("executor_host.agent.ACQUIRE_POLL_S", 0.01)
    isolation_passed.clear()
    queue.failures["receive"] += [QueueError("must not be called")]
    start(engine)
    time.sleep(0.3)
    assert len(queue.failures["receive"]) == 1
    isolation_passed.set()
    assert send_and_wait(queue, job()).status is Status.OK


def test_agent_stops_receiving_when_isolation_check_fails(agent, queue, isolation_passed):
    send_and_wait(queue, job())
    isolation_passed.clear()
    time.sleep(0.2)  # longer than an open poll
    queue.failures["receive"] += [QueueError("must not be called")]
    time.sleep(0.2)
    assert len(queue.failures["receive"]) == 1


def test_job_received_after_failed_isolation_check_is_released(engine, queue, start, isolation_passed, monkeypatch):
    receive = queue.receive

    def receive_while_check_fails(**options):
        message = receive(**options)
        isolation_passed.clear()
        return message

    monkeypatch.setattr(queue, "receive", receive_while_check_fails)
    queue.enqueue(encode(job()))
    start(engine, size=1, workers=1)
    eventually(lambda: queue.released)
    assert [sandbox.ran for sandbox in engine.started if sandbox.ran] == []


def test_docker_outage_is_logged_once_and_agent_recovers(engine, queue, agent, caplog):
    caplog.set_level("INFO", logger="executor_host")
    eventually(lambda: metrics.DOCKER_UP.labels("python")._value.get() == 1)
    engine.failing = True
    for sandbox in engine.started:
        sandbox.alive = False
    eventually(lambda: metrics.DOCKER_UP.labels("python")._value.get() == 0)
    engine.failing = False
    assert send_and_wait(queue, job()).status is Status.OK
    assert metrics.DOCKER_UP.labels("python")._value.get() == 1
    assert [record.message for record in caplog.records].count("docker_unavailable") == 1
    assert "docker_available" in [record.message for record in caplog.records]


def test_job_received_during_shutdown_is_run(agent, engine, queue):
    eventually(lambda: len(engine.started) == 4)
    agent._stopping.set()
    queue.enqueue(encode(job()))
    assert agent.stop(60)
    assert len(queue.deleted) == sum(len(sandbox.ran) for sandbox in engine.started) <= 1
    assert queue.released == []


def test_job_that_arrives_after_the_last_short_poll_of_a_stopping_agent_is_released(engine, start, monkeypatch):
    monkeypatch.setattr("executor_host.poll_pacer.IDLE_AFTER_S", 0.0)
    monkeypatch.setattr("executor_host.agent.RECEIVE_WAIT_S", -1)
    queue = FakeJobQueue(wait_s=10)
    agent = start(engine, queue=queue)
    eventually(lambda: queue.waits_s)
    with ThreadPoolExecutor(1) as thread:
        stopped = thread.submit(agent.stop, 60)
        eventually(agent._stopping.is_set)
        queue.enqueue(encode(job()))
        assert stopped.result()
    assert (len(queue.released), queue.waits_s) == (1, [IDLE_RECEIVE_WAIT_S])
    assert not any(sandbox.ran for sandbox in engine.started)


def test_stopping_agent_finishes_the_run_of_a_batch_and_releases_it(engine, queue, start):
    agent = start(engine, size=1, workers=1)
    eventually(lambda: len(engine.started) == 2)
    engine.on_run = agent._stopping.set
    sent = encode(job(input="", args=(), runs=(Run(), Run())))
    queue.enqueue(sent)
    eventually(lambda: queue.released)
    assert agent.stop(60)
    assert [message.body for message in queue.released] == [sent]
    assert (sum(len(sandbox.ran) for sandbox in engine.started), queue.deleted) == (1, [])


def test_completed_batch_is_counted_with_its_runs(agent, engine, queue):
    runs = [metrics.BATCH_RUNS.labels("python", status)._value.get() for status in ("ok", "not_run")]
    engine.outcomes += [[make_outcome(), make_outcome(status=Status.ERROR)]] * 4
    reply = send_and_wait(queue, job(input="", args=(), runs=(Run(), Run(), Run()), stop_on_failure=True))
    assert isinstance(reply, BatchResult)
    eventually(lambda: metrics.BATCH_RUNS.labels("python", "ok")._value.get() == runs[0] + reply_count(reply, "ok"))
    assert metrics.BATCH_RUNS.labels("python", "not_run")._value.get() == runs[1] + reply_count(reply, None)


def test_shutdown_releases_job_without_sandbox(engine, queue, start):
    engine.outcomes += [SandboxError("died")] * 6
    agent = start(engine, size=1, workers=1)
    eventually(lambda: len(engine.started) == 2)
    engine.failing = True
    queue.enqueue(encode(job()))
    eventually(lambda: len([sandbox for sandbox in engine.started if sandbox.ran]) == 2)
    agent.stop(10)
    assert len(queue.released) == 1
    assert queue.deleted == []


@pytest.fixture
def start_without_docker(engine, queue, start, monkeypatch):
    """Return a function that starts an agent whose engine fails once it has two sandboxes, which both fail too."""
    monkeypatch.setattr("executor_host.job_runner.ACQUIRE_POLL_S", 0.01)
    monkeypatch.setattr("executor_host.job_runner.SANDBOX_ACQUIRE_TIMEOUT_S", 0.05)

    def start_without_docker():
        engine.outcomes += [SandboxError("died")] * 2
        start(engine, size=1, workers=1)
        eventually(lambda: len(engine.started) == 2)
        engine.failing = True

    return start_without_docker


def test_job_without_sandbox_is_released(engine, queue, start_without_docker):
    start_without_docker()
    sent = job()
    queue.enqueue(encode(sent))
    eventually(lambda: queue.released)
    time.sleep(0.3)
    assert (len(queue.released), queue.deleted) == (1, [])
    engine.failing = False
    assert decode_reply(queue.wait_for_sent(REPLIES)).status is Status.OK


def test_failed_release_stops_extending_visibility(engine, queue, start_without_docker, monkeypatch):
    monkeypatch.setattr("executor_host.agent.RETRY_DELAY_S", 0.01)
    queue.failures["release"] += [QueueError("unreachable")]
    start_without_docker()
    queue.enqueue(encode(job()))
    eventually(lambda: not queue.failures["release"])
    time.sleep(5 * INTERVAL_S)
    extensions = len(queue.extended)
    time.sleep(5 * INTERVAL_S)
    assert len(queue.extended) == extensions
    engine.failing = False
    assert send_and_wait(queue, job()).status is Status.OK  # the worker survived
    assert queue.released == []


JOB_URL = "https://payloads.test/jobs/1"


def store(payloads, sent, url=JOB_URL):
    """Store a job as the API does, and return its reference."""
    payloads.objects[url] = pack(sent)
    return JobReference(url=url, **{name: getattr(sent, name) for name in JobHeader.__struct_fields__})


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr("executor_host.agent.RETRY_DELAY_S", 0.01)
    monkeypatch.setattr("executor_host.agent.FETCH_TIMEOUT_S", 0.05)


def test_stored_job_is_fetched_and_run(agent, engine, queue, payloads):
    payloads.failures["get"] += [PayloadError("gone")] * 2
    sent = job()
    assert send_and_wait(queue, store(payloads, sent)).id == sent.id
    assert [ran for sandbox in engine.started for ran in sandbox.ran] == [("the code", "the input", ("an", "arg"), 1.5)]


@pytest.mark.usefixtures("impatient")
def test_job_is_released_while_payload_store_fails(agent, engine, queue, payloads):
    payloads.failures["get"] += [PayloadError("gone")] * 1000
    queue.enqueue(encode(store(payloads, job())))
    eventually(lambda: queue.released)
    assert (queue.pauses_s[0], queue.deleted) == (PAYLOAD_PAUSE_S, [])
    payloads.failures["get"].clear()
    assert decode_reply(queue.wait_for_sent(REPLIES)).status is Status.OK


@pytest.mark.usefixtures("impatient")
def test_job_that_stays_unfetched_until_its_start_deadline_is_failed(agent, queue, payloads):
    payloads.failures["get"] += [PayloadError("gone")] * 1000
    sent = job(start_deadline=time.time() - 1)
    assert send_and_wait(queue, store(payloads, sent)) == Failure(id=sent.id, reason=FailureReason.START_TIMEOUT)
    eventually(lambda: len(queue.deleted) == 1)


@pytest.mark.usefixtures("impatient")
def test_lost_job_payload_fails_the_job_at_once(agent, engine, queue, payloads):
    sent = store(payloads, job())
    payloads.objects.clear()
    assert send_and_wait(queue, sent) == Failure(id=sent.id, reason=FailureReason.PAYLOAD_LOST)
    eventually(lambda: len(queue.deleted) == 1)
    assert [sandbox.ran for sandbox in engine.started if sandbox.ran] == []


@pytest.mark.parametrize("data", [b"no job", pack(job())], ids=["garbage", "another_job"])
def test_malformed_job_payload_is_not_deleted(agent, queue, payloads, data):
    malformed = store(payloads, job())
    payloads.objects[JOB_URL] = data
    queue.enqueue(encode(malformed))
    send_and_wait(queue, job())
    eventually(lambda: len(queue.deleted) == 1)
    assert encode(malformed) not in {message.body for message in queue.deleted}


LARGE_OUTPUT = "x" * MAX_MESSAGE_BYTES  # the fake sandbox returns the code as output


def test_large_reply_is_uploaded_and_its_reference_sent(agent, queue, payloads):
    payloads.failures["put"] += [PayloadError("gone")]
    sent = job(code=LARGE_OUTPUT)
    assert send_and_wait(queue, sent) == ReplyReference(id=sent.id)
    assert unpack_reply(payloads.objects[UPLOAD_URL]).stdout == LARGE_OUTPUT
    eventually(lambda: len(queue.deleted) == 1)


@pytest.mark.parametrize("error", [PayloadError("gone"), PayloadRejectedError("HTTP 403")])
def test_job_is_not_deleted_when_reply_cannot_be_uploaded(agent, queue, payloads, error, monkeypatch):
    monkeypatch.setattr("executor_host.agent.REPLY_SEND_TIMEOUT_S", 0.0)
    payloads.failures["put"] += [error]
    failed, completed = job(code=LARGE_OUTPUT), job()
    queue.enqueue(encode(failed))
    eventually(lambda: not payloads.failures["put"])
    send_and_wait(queue, completed)
    eventually(lambda: queue.deleted)
    assert [message.body for message in queue.deleted] == [encode(completed)]
