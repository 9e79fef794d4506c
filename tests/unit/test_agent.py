"""The agent with a queue and an engine in memory."""

import time
import uuid

import pytest

from chalicelib.contract import Failure, FailureReason, Job, Result, Status, decode_reply, encode
from executor_host.agent import REPLY_ATTEMPTS, SANDBOXES_PER_JOB, Agent
from executor_host.channel import SandboxError
from executor_host.job_queue import NoSuchQueueError, QueueError
from executor_host.pool import Pool
from tests.fakes import FakeEngine, FakeJobQueue
from tests.waiting import eventually


@pytest.fixture
def engine():
    return FakeEngine()


@pytest.fixture
def queue():
    return FakeJobQueue()


@pytest.fixture
def agent(engine, queue):
    pool = Pool(engine, size=2, builders=1)
    agent = Agent(queue, pool=pool, workers=2)
    pool.open()
    agent.start()
    yield agent
    agent.stop(10)
    pool.close(5)


def job(**changes):
    now = time.time()
    wanted = {
        "id": uuid.uuid4().hex,
        "code": "the code",
        "input": "the input",
        "timeout_s": 1.5,
        "reply_to": "http://queue/reply",
        "submitted_at": now - 2,
        "reply_by": now + 20,
        "expires_at": now + 20,
    }
    return Job(**(wanted | changes))


def answer(queue, sent):
    queue.send(encode(sent))
    return decode_reply(queue.next_reply(sent.reply_to))


def test_job_is_run_answered_and_deleted(agent, engine, queue):
    sent = job()
    reply = answer(queue, sent)
    assert (reply.id, reply.status, reply.stdout, reply.stderr) == (
        sent.id,
        Status.OK,
        "the code",
        "the input",
    )
    assert reply.runtime == "python 3.13"
    eventually(lambda: len(queue.deleted) == 1)
    assert [ran for sandbox in engine.started for ran in sandbox.ran] == [("the code", "the input", 1.5)]


def test_result_says_how_long_the_job_was_queued(agent, queue):
    assert 2000 <= answer(queue, job()).usage.queued_ms < 20_000


def test_job_from_a_clock_ahead_of_ours_was_queued_for_no_time(agent, queue):
    assert answer(queue, job(submitted_at=time.time() + 100)).usage.queued_ms == 0


def test_each_job_has_a_sandbox_of_its_own(agent, engine, queue):
    for _ in range(30):
        answer(queue, job())
    assert max(len(sandbox.ran) for sandbox in engine.started) == 1


def test_expired_job_is_answered_and_not_run(agent, engine, queue):
    sent = job(expires_at=time.time() - 1)
    assert answer(queue, sent) == Failure(id=sent.id, reason=FailureReason.EXPIRED)
    eventually(lambda: len(queue.deleted) == 1)
    assert [sandbox.ran for sandbox in engine.started if sandbox.ran] == []


def test_undecodable_message_is_left_for_the_dead_letter_queue(agent, queue):
    queue.send("no job")
    assert isinstance(answer(queue, job()), Result)
    eventually(lambda: len(queue.deleted) == 1)
    assert "no job" not in {delivery.body for delivery in queue.deleted}


def test_sandbox_that_breaks_is_tried_again_with_another(agent, engine, queue):
    engine.outcomes += [SandboxError("died")] * (SANDBOXES_PER_JOB - 1)
    reply = answer(queue, job())
    assert reply.status is Status.OK


def test_job_whose_sandboxes_all_break_is_answered_so(engine, queue):
    engine.outcomes += [SandboxError("died")] * SANDBOXES_PER_JOB
    pool = Pool(engine, size=1, builders=1)
    agent = Agent(queue, pool=pool, workers=1)
    pool.open()
    agent.start()
    sent = job()
    assert answer(queue, sent) == Failure(id=sent.id, reason=FailureReason.SANDBOX)
    assert agent.stop(10)
    pool.close(5)


def test_sandbox_that_dies_in_hand_is_replaced_before_the_next_job(agent, engine, queue):
    eventually(lambda: len(engine.started) == 4)  # two in hand, two in the pool
    for sandbox in engine.started[:2]:
        sandbox.alive = False
    assert answer(queue, job()).status is Status.OK


def test_queue_service_that_comes_back_is_used_again(agent, queue, monkeypatch):
    monkeypatch.setattr("executor_host.agent.QUEUE_PAUSE_S", 0.01)
    queue.failures["receive"] += [QueueError("gone")] * 5
    assert answer(queue, job()).status is Status.OK


def test_reply_queue_that_is_too_new_is_tried_again(agent, queue, monkeypatch):
    monkeypatch.setattr("executor_host.agent.REPLY_PAUSE_S", 0.01)
    queue.failures["reply"] += [NoSuchQueueError("new")] * (REPLY_ATTEMPTS - 1)
    assert answer(queue, job()).status is Status.OK


def test_job_that_nobody_waits_for_any_more_is_deleted(agent, queue, monkeypatch):
    monkeypatch.setattr("executor_host.agent.REPLY_PAUSE_S", 0.01)
    queue.failures["reply"] += [NoSuchQueueError("gone")] * REPLY_ATTEMPTS
    queue.send(encode(job()))
    eventually(lambda: len(queue.deleted) == 1)


def test_job_whose_reply_could_not_be_sent_is_not_deleted(agent, queue, monkeypatch):
    monkeypatch.setattr("executor_host.agent.QUEUE_PAUSE_S", 0.01)
    queue.failures["reply"] += [QueueError("unreachable")]
    unanswered, answered = job(), job()
    queue.send(encode(unanswered))
    eventually(lambda: not queue.failures["reply"])
    answer(queue, answered)
    eventually(lambda: queue.deleted)
    assert [delivery.body for delivery in queue.deleted] == [encode(answered)]


def test_agent_takes_no_job_without_a_sandbox(engine, queue):
    engine.failing = True
    pool = Pool(engine, size=1, builders=1)
    agent = Agent(queue, pool=pool, workers=1)
    queue.failures["receive"] += [QueueError("must not be asked")]
    pool.open()
    agent.start()
    time.sleep(0.3)
    assert len(queue.failures["receive"]) == 1
    assert agent.stop(10)
    pool.close(1)


def test_stopped_agent_gives_back_what_it_has_not_begun(agent, engine, queue):
    eventually(lambda: len(engine.started) == 4)
    agent._stopping.set()
    queue.send(encode(job()))
    assert agent.stop(10)
    assert [sandbox.ran for sandbox in engine.started if sandbox.ran] == []
    assert queue.deleted == []
