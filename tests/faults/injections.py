"""Define the faults. Each function causes one, counts its hits, and returns when it began."""

import signal
import time
from functools import partial

from tests.faults.proxy import DELAY_S, DYNAMODB, S3, SQS
from tests.support.polling import eventually, poll

OUTAGE_S = 5.0
DUPLICATES_S = 3.0
DOCKER_DOWN_S = 2.0
MAX_ATTEMPTS = 3
ERROR_DELAY_S = 5.0  # the agent asks Docker for the cause first


def terminate_agent(stack, number):
    """Send a signal to the agent while it runs jobs, and start it again."""
    stack.proxy.record_hit(stack.wait_for_running_jobs("one"))
    began_at = time.monotonic()
    stack.agents["one"].terminate(number)
    stack.agents["one"].restart()
    return began_at


def kill_one_of_two_agents(stack):
    """Kill a second agent for good while it runs jobs."""
    stack.start_agent("two")
    stack.agents["two"].wait_until_ready()
    stack.proxy.record_hit(stack.wait_for_running_jobs("two"))
    began_at = time.monotonic()
    stack.remove_agent("two", signal.SIGKILL)
    return began_at


def kill_docker(stack):
    """Kill the Docker daemon while jobs run, and start it again."""

    def kill_and_restart():
        stack.kill_docker()
        time.sleep(DOCKER_DOWN_S)
        stack.restart_docker()

    return _break_sandboxes(stack, kill_and_restart)


def remove_containers(stack):
    """Remove all containers of the agent while jobs run in some."""
    return _break_sandboxes(stack, stack.remove_containers)


def _break_sandboxes(stack, fault):
    """Cause a fault while jobs run, and again if those jobs had just ended."""
    errors_before = stack.sandbox_errors()
    for _ in range(MAX_ATTEMPTS):
        stack.wait_for_started_job("one")
        began_at = time.monotonic()
        fault()
        if poll(lambda: stack.sandbox_errors() > errors_before, ERROR_DELAY_S):
            break
    stack.proxy.record_hit(stack.sandbox_errors() - errors_before)
    return began_at


def kill_api(stack):
    """Kill the API while requests wait in it, and start it again."""
    stack.proxy.record_hit(stack.wait_for_pending_requests())
    began_at = time.monotonic()
    stack.api.terminate(signal.SIGKILL)
    stack.api.restart()
    stack.api.wait_until_ready()
    return began_at


def make_unreachable(stack, service):
    """Cut every connection to an AWS service for a while."""
    began_at = time.monotonic()
    stack.proxy.outage(service, OUTAGE_S)
    return began_at


def misbehave(stack, attribute, seconds):
    """Let the proxy fail as one of its attributes says, for a while and until that has hit something."""
    hits_before = stack.proxy.hits
    began_at = time.monotonic()
    setattr(stack.proxy, attribute, True)
    time.sleep(seconds)
    eventually(lambda: stack.proxy.hits > hits_before)
    setattr(stack.proxy, attribute, False)
    return began_at


def delete_reply_queues(stack):
    """Delete the reply queues while requests wait for replies."""
    stack.wait_for_pending_requests()
    began_at = time.monotonic()
    for url in stack.reply_queues():
        stack.sqs.delete_queue(QueueUrl=url)
    return began_at


FAULTS = {
    "SIGKILL of the agent": partial(terminate_agent, number=signal.SIGKILL),
    "SIGTERM of the agent": partial(terminate_agent, number=signal.SIGTERM),
    "one of two agents killed": kill_one_of_two_agents,
    "dockerd killed, restarted": kill_docker,
    "containers removed mid-run": remove_containers,
    "API killed": kill_api,
    "queues unreachable for 5 s": partial(make_unreachable, service=SQS),
    "DynamoDB unreachable for 5 s": partial(make_unreachable, service=DYNAMODB),
    "S3 unreachable for 5 s": partial(make_unreachable, service=S3),
    "every message twice": partial(misbehave, attribute="duplicate_messages", seconds=DUPLICATES_S),
    "replies delayed": partial(misbehave, attribute="delay_replies", seconds=DELAY_S),  # until clients stop waiting
    "reply queue deleted": delete_reply_queues,
}
# Seconds that clients wait for a result, where it matters. A job that outlasts the wait has no reply to delay.
CLIENT_WAIT_S = {"replies delayed": 2}
