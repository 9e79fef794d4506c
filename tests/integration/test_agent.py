"""Test an agent process with real Docker and emulated SQS: how it starts, stops and crashes."""

import os
import signal
import uuid
from pathlib import Path

import pytest

from chalicelib.contract import Status
from executor_host.hardening import AGENT_LABEL, RUNTIME_LABEL
from infra.local.docker_daemon import running_daemon
from tests.support.docker_daemons import client_with_image, isolated_daemon
from tests.support.polling import eventually


def test_jobs_on_the_queue_are_answered_and_counted(start_agent, queue_client):
    agent = start_agent()
    result = queue_client.run("print(input()[::-1])", "hello")
    assert (result.status, result.stdout) == (Status.OK, "olleh\n")
    queue_client.run("1/0")
    eventually(lambda: agent.metric('python_exec_jobs_total{runtime="python",status="error"}') == 1)
    assert agent.metric('python_exec_jobs_total{runtime="python",status="ok"}') == 1
    assert agent.metric("python_exec_job_duration_seconds_count") == 2
    assert agent.metric("python_exec_sandbox_acquire_seconds_count") >= 2
    assert agent.metric("python_exec_queue_wait_seconds_count") == 2
    assert agent.metric("python_exec_sandbox_start_seconds_count") >= 2


def test_log_is_json_and_holds_neither_code_nor_input_nor_output(start_agent, queue_client):
    agent = start_agent()
    secret = uuid.uuid4().hex
    queue_client.run(f"print('{secret}', input()); raise SystemExit('{secret}')", secret)
    agent.wait_until_ready()
    agent.popen.send_signal(signal.SIGTERM)
    assert agent.popen.wait(15) == 0
    assert agent.containers() == []
    log = agent.log.read_text()
    assert secret not in log
    assert {line[0] + line[-1] for line in log.splitlines()} == {"{}"}


def test_stopping_agent_finishes_running_jobs(start_agent, queue_client):
    agent = start_agent()
    agent.wait_until_ready()
    job_id = queue_client.send("import time; time.sleep(2); print('done')")
    eventually(lambda: agent.metric("python_exec_jobs_running") == 1)
    agent.popen.send_signal(signal.SIGTERM)
    assert agent.popen.wait(15) == 0
    assert queue_client.replies(1)[job_id].stdout == "done\n"
    assert agent.containers() == []


def test_killed_agent_leaves_no_containers(start_agent, queue_client):
    agent = start_agent()
    agent.wait_until_ready(2)
    queue_client.send("import time; time.sleep(10)", timeout_s=10.0)
    eventually(lambda: agent.metric("python_exec_jobs_running") == 1)
    eventually(lambda: len(agent.containers()) >= 4)
    agent.popen.kill()
    agent.wait_until_no_containers(timeout_s=5)


def test_new_agent_removes_orphans_of_same_name(start_agent, docker_client, image):
    name = f"test-{uuid.uuid4().hex[:8]}"
    labels = {AGENT_LABEL: name, RUNTIME_LABEL: "python"}
    orphan = docker_client.api.create_container(image, ["python3"], labels=labels)["Id"]
    agent = start_agent(name=name)
    agent.wait_until_ready()
    eventually(lambda: orphan not in {container["Id"] for container in agent.containers()})


def test_idle_sandbox_killed_externally_is_replaced(start_agent, queue_client, docker_client):
    agent = start_agent()
    agent.wait_until_ready(2)
    killed = [container["Id"] for container in agent.containers()]
    for container_id in killed:
        docker_client.api.remove_container(container_id, force=True)
    assert queue_client.run("print(1)").stdout == "1\n"
    eventually(lambda: agent.metric("python_exec_warm_sandboxes") == 2)


def test_busy_sandbox_removed_externally_is_retried(start_agent, queue_client, docker_client):
    agent = start_agent(RUNTIMES="python=1")
    agent.wait_until_ready()
    before = {container["Id"] for container in agent.containers()}
    job_id = queue_client.send("import time; time.sleep(1); print('done')")
    eventually(lambda: agent.metric("python_exec_jobs_running") == 1)
    for container_id in before:
        docker_client.api.remove_container(container_id, force=True)
    assert queue_client.replies(1)[job_id].stdout == "done\n"


def test_long_job_is_not_redelivered(start_agent, queue_client):
    agent = start_agent()
    agent.wait_until_ready()
    job_id = queue_client.send("import time; time.sleep(8); print('done')", timeout_s=10.0)
    assert queue_client.replies(1)[job_id].stdout == "done\n"
    eventually(lambda: agent.metric('python_exec_jobs_total{runtime="python",status="ok"}') == 1)
    assert agent.metric("python_exec_jobs_running") == 0
    assert agent.metric("python_exec_visibility_extension_failures_total") == 0


def test_result_without_a_waiting_client_goes_to_results_queue(start_agent, queue_client, sqs):
    gone = sqs.create_queue(QueueName=f"gone-{uuid.uuid4().hex}")["QueueUrl"]
    sqs.delete_queue(QueueUrl=gone)
    start_agent()
    changes = {"asynchronous": {"reply_to": None}, "late": {"reply_by": 1.0}, "gone": {"reply_to": gone}}
    names = {queue_client.send(f"print({name!r})", **changes[name]): name for name in changes}
    replies = queue_client.replies(3, queue_url=queue_client.results_queue_url)
    assert {job_id: reply.stdout for job_id, reply in replies.items()} == {
        job_id: f"{name}\n" for job_id, name in names.items()
    }
    assert queue_client.groups == dict.fromkeys(names, "a-key")


def test_all_missing_settings_are_reported(start_agent):
    agent = start_agent(JOB_QUEUE_URL="", RUNTIMES="python=none")
    assert agent.popen.wait(20) == 2
    log = agent.log.read_text()
    assert "JOB_QUEUE_URL" in log
    assert "RUNTIMES" in log


@pytest.fixture
def own_daemon(tmp_path_factory):
    """Return a Docker daemon that a test may kill."""
    with isolated_daemon(tmp_path_factory.mktemp("d")) as daemon:
        yield daemon


def test_job_moves_to_another_host_when_docker_fails(start_agent, queue_client, own_daemon, image):
    own_daemon.run.mkdir()
    with running_daemon(own_daemon):
        client = client_with_image(own_daemon, image=image)
        agent = start_agent(docker_host=own_daemon.address, engine_client=client)
        agent.wait_until_ready(2)
        job_id = queue_client.send("import time; time.sleep(5); print('done')", timeout_s=10.0)
        eventually(lambda: agent.metric("python_exec_jobs_running") == 1)
        containers = [container.id for container in client.containers.list()]
        os.kill(int(own_daemon.pidfile.read_text()), signal.SIGKILL)  # SIGTERM would let the job finish
    cgroups = [path for container_id in containers for path in Path("/sys/fs/cgroup").rglob(container_id)]
    assert (len(containers) >= 2, cgroups) == (True, [])
    start_agent()
    assert queue_client.replies(1, timeout_s=40)[job_id].stdout == "done\n"
    assert agent.metric("python_exec_sandbox_errors_total") >= 1
    agent.popen.kill()  # SIGTERM would wait for Docker


def test_agent_survives_docker_restart(start_agent, queue_client, own_daemon, image):
    own_daemon.run.mkdir()
    with running_daemon(own_daemon):
        client = client_with_image(own_daemon, image=image)
        agent = start_agent(docker_host=own_daemon.address, engine_client=client)
        agent.wait_until_ready(2)
        assert queue_client.run("print(1)").stdout == "1\n"
    eventually(lambda: agent.metric("python_exec_warm_sandboxes") == 0)
    job_id = queue_client.send("print(2)")
    with running_daemon(own_daemon):
        assert queue_client.replies(1)[job_id].stdout == "2\n"
        agent.popen.send_signal(signal.SIGTERM)
        assert agent.popen.wait(20) == 0
        assert agent.containers() == []
