"""Test the agent in a container as on AWS, with nothing but the Docker socket."""

import contextlib
import signal
import subprocess
import uuid
from pathlib import Path
from types import SimpleNamespace

import pytest
from docker.errors import ContainerError, NotFound

from chalicelib.contract import Status
from executor_host import termination_watcher
from executor_host.hardening import AGENT_LABEL
from infra.aws.package import USER_DATA
from infra.images import agent_image as agent_image_module
from infra.images import wheels
from infra.local.processes import free_port
from tests.support.polling import eventually

SOCKET = "/var/run/docker.sock"


@pytest.fixture(scope="module")
def agent_image(docker_client):
    return agent_image_module.ensure_image(docker_client)


@pytest.fixture
def start_container(aws, queue_client, agent_image, docker_client):
    """Return a function that starts an agent as infra/user-data.sh does."""
    with contextlib.ExitStack() as stack:

        def start(**settings):
            name = f"test-{uuid.uuid4().hex[:8]}"
            environment = {
                **aws.environment,
                "JOB_QUEUE_URL": queue_client.job_queue_url,
                "RESULTS_QUEUE_URL": queue_client.results_queue_url,
                "PAYLOAD_STORE_URL": f"{aws.environment['AWS_ENDPOINT_URL']}/payloads",
                "AGENT_NAME": name,
                "METRICS_PORT": str(free_port()),
                "RUNTIMES": "python=2",
                **settings,
            }
            container = docker_client.containers.run(
                agent_image,
                name=name,
                detach=True,
                environment=environment,
                network_mode="host",
                restart_policy={"Name": "unless-stopped"},
                volumes={SOCKET: {"bind": SOCKET}},
                user=f"900:{Path(SOCKET).stat().st_gid}",
                read_only=True,
                cap_drop=["ALL"],
                security_opt=["no-new-privileges"],
            )
            stack.callback(remove, container)
            return SimpleNamespace(name=name, container=container, metrics_port=environment["METRICS_PORT"])

        yield start


def remove(container):
    with contextlib.suppress(NotFound):
        container.stop(timeout=20)
        container.remove(force=True)


def log(agent):
    return agent.container.logs().decode()


def sandboxes_of(docker_client, agent):
    return docker_client.api.containers(all=True, filters={"label": f"{AGENT_LABEL}={agent.name}"})


def waiting_or_in_flight(sqs, url):
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    return sum(int(sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"][name]) for name in names)


def test_containerized_agent_runs_job_and_stops_cleanly(start_container, queue_client, docker_client):
    agent = start_container()
    result = queue_client.run("print(input()[::-1])", "hello")
    assert (result.status, result.stdout) == (Status.OK, "olleh\n")
    termination_watcher.stop_container(agent.name)
    agent.container.reload()
    assert agent.container.status == "exited"
    assert agent.container.attrs["State"]["ExitCode"] == 0
    eventually(lambda: not sandboxes_of(docker_client, agent), timeout_s=5)


def test_user_data_detects_ready_agent(start_container, docker_client):
    agent = start_container()
    script_start, _, _ = USER_DATA.read_text().partition("tries=")
    function = script_start[script_start.index("has_sandboxes()") :].replace("9464", agent.metrics_port)
    script = f"set -euo pipefail\n{function}\nhas_sandboxes"
    eventually(lambda: subprocess.run(["bash", "-c", script], check=False).returncode == 0, timeout_s=20)
    assert sandboxes_of(docker_client, agent)


def test_image_matches_docker_architecture(docker_client, agent_image):
    assert agent_image.endswith(f"-{wheels.docker_architecture(docker_client)}")
    assert docker_client.images.get(agent_image).attrs["Architecture"] == docker_client.version()["Arch"]


def test_image_contains_only_needed_aws_models(docker_client, agent_image):
    code = "import boto3, executor_host.termination_watcher; print(boto3.Session().get_available_services())"
    printed = docker_client.containers.run(agent_image, ["python3", "-c", code], network_mode="none", remove=True)
    assert printed.decode() == f"{list(agent_image_module.BOTOCORE_MODELS)}\n"


def test_agent_reports_missing_settings(docker_client, agent_image):
    with pytest.raises(ContainerError) as raised:
        docker_client.containers.run(agent_image, network_mode="none", remove=True)
    names = ("RESULTS_QUEUE_URL", "PAYLOAD_STORE_URL", "JOB_QUEUE_URL", "DATA_JOB_QUEUE_URL")
    assert raised.value.stderr.decode() == f"{'; '.join(f'{name} is missing' for name in names)}\n"


def test_draining_agent_loses_no_jobs(start_container, queue_client, docker_client, sqs):
    leaving, staying = start_container(), start_container()
    for agent in (leaving, staying):
        eventually(lambda agent=agent: len(sandboxes_of(docker_client, agent)) >= 2, timeout_s=20)
    code = "import time; time.sleep(0.3); print(input())"
    sent = {queue_client.send(code, str(number)): f"{number}\n" for number in range(24)}
    replies = queue_client.replies(8)
    leaving.container.kill(signal.SIGTERM)
    more = {queue_client.send(code, str(number)): f"{number}\n" for number in range(24, 36)}
    replies |= queue_client.replies(len(sent) + len(more) - len(replies))
    assert {job_id: result.stdout for job_id, result in replies.items()} == sent | more
    assert leaving.container.wait(timeout=20)["StatusCode"] == 0
    assert all('"job_completed"' in log(agent) for agent in (leaving, staying))
    # An agent logs a job after deleting it, a moment after the reply.
    eventually(lambda: sum(log(agent).count('"job_completed"') for agent in (leaving, staying)) == len(replies))
    eventually(lambda: not sandboxes_of(docker_client, leaving), timeout_s=5)
    eventually(lambda: waiting_or_in_flight(sqs, queue_client.job_queue_url) == 0)
