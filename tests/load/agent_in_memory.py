"""Run an agent on real sandboxes with a job queue in memory. Used by the benchmarks and the soak test."""

import contextlib
import os
import time
import uuid
from queue import Empty

from chalicelib.contract import Job, ReplyReference, decode_reply, encode, unpack_reply
from executor_host.__main__ import return_payloads_to_kernel
from executor_host.agent import Agent
from executor_host.core_scheduler import CoreScheduler
from executor_host.isolation_check import IsolationCheck
from executor_host.pool import Pool
from executor_host.visibility import VisibilityExtender
from tests.support.fakes.job_queue import FakeJobQueue
from tests.support.fakes.payloads import URL, FakePayloadClient

CORES = os.cpu_count() or 1
REPLY_TIMEOUT_S = 60.0


@contextlib.contextmanager
def agent_in_memory(engine):
    """Start an agent and yield its job queue."""
    return_payloads_to_kernel()
    queue = FakeJobQueue(wait_s=1)
    queue.payloads = FakePayloadClient()
    scheduler = CoreScheduler(CORES)
    pool = Pool(engine, size=2 * CORES, start_threads=CORES, has_spare_cores=scheduler.has_spare_cores)
    isolation = IsolationCheck(engine, pools=[pool])
    visibility = VisibilityExtender(queue)
    agent = Agent(
        queue,
        pool=pool,
        payloads=queue.payloads,
        isolation_passed=isolation.passed,
        visibility=visibility,
        results_queue_url="results",
        workers=8 * CORES,
        metrics_namespace="PythonExec",
        scheduler=scheduler,
    )
    pool.start()
    isolation.start()
    agent.start()
    try:
        yield queue
    finally:
        isolation.stop()
        agent.stop(30)
        pool.stop(10)


def run_job(queue, code, stdin="", **members):
    """Send a job and return its reply, or None if no reply arrives within REPLY_TIMEOUT_S. `members` are the Job's."""
    now, name = time.time(), uuid.uuid4().hex
    times = {"submitted_at": now, "reply_by": now + REPLY_TIMEOUT_S, "start_deadline": now + REPLY_TIMEOUT_S}
    url = f"{URL}/replies/{name}"
    queue.enqueue(encode(Job(id=name, code=code, input=stdin, reply_to=name, reply_upload_url=url, **times, **members)))
    try:
        reply = decode_reply(queue.wait_for_sent(name, timeout_s=2 * REPLY_TIMEOUT_S))
    except Empty:
        return None
    return unpack_reply(queue.payloads.objects.pop(url)) if isinstance(reply, ReplyReference) else reply
