"""Start one AWS emulator for all tests in this directory, and agents as separate processes."""

import contextlib
import os
import subprocess
import sys
import time
import uuid

import docker
import pytest

from chalicelib.contract import HostReport, Job, decode_from_host, encode
from executor_host.hardening import AGENT_LABEL
from infra.env_file import client
from infra.local.emulated_aws import create_resources, emulated_aws
from infra.local.processes import child_process, free_port
from tests.support.http_client import read_metric
from tests.support.plain_python import plain_python_container
from tests.support.polling import eventually
from tests.support.records import UPLOAD_URL


@pytest.fixture(scope="session")
def aws(tmp_path_factory):
    with emulated_aws(logs=tmp_path_factory.mktemp("aws")) as emulated:
        yield emulated


@pytest.fixture(scope="session")
def plain_python(image, engine):
    """Return a function that runs a program without the supervisor."""
    with plain_python_container(image, agent=engine._agent) as container:
        yield container.run


@pytest.fixture(scope="session")
def docker_client():
    return docker.from_env()


@pytest.fixture
def busy_host():
    """Keep every core busy, for a minute at most."""
    loop = "import time\nend = time.monotonic() + 60\nwhile time.monotonic() < end: pass"
    with contextlib.ExitStack() as processes:
        for _ in range(os.cpu_count()):
            process = processes.enter_context(subprocess.Popen([sys.executable, "-c", loop]))
            processes.callback(process.kill)
        yield


@pytest.fixture
def sqs(aws):
    return client("sqs", aws.environment)


@pytest.fixture(scope="session")
def dynamodb(aws):
    return client("dynamodb", aws.environment)


@pytest.fixture
def resources(aws):
    """Return the names of new queues and tables, as settings."""
    return create_resources(aws.environment, stack=f"s-{uuid.uuid4().hex}")


@pytest.fixture(scope="session")
def shared_resources(aws):
    return create_resources(aws.environment, stack=f"s-{uuid.uuid4().hex}")


@pytest.fixture
def keys_table(shared_resources, dynamodb):
    """Return the name of an empty table."""
    name = shared_resources["KEYS_TABLE"]
    yield name
    for page in dynamodb.get_paginator("scan").paginate(TableName=name, ProjectionExpression="key_id"):
        for key in page["Items"]:
            dynamodb.delete_item(TableName=name, Key=key)


class QueueClient:
    """Sends jobs and receives replies as the API does."""

    def __init__(self, sqs):
        self._sqs = sqs
        self.groups = {}  # message group of each received reply
        self.job_queue_url = sqs.create_queue(
            QueueName=f"jobs-{uuid.uuid4().hex}", Attributes={"VisibilityTimeout": "6"}
        )["QueueUrl"]
        self.results_queue_url = sqs.create_queue(QueueName=f"results-{uuid.uuid4().hex}")["QueueUrl"]
        self.reply_to = sqs.create_queue(QueueName=f"replies-{uuid.uuid4().hex}")["QueueUrl"]

    def send(self, code, text="", timeout_s=3.0, **changes):
        now = time.time()
        defaults = {"reply_to": self.reply_to, "reply_by": now + 60, "start_deadline": now + 60}
        defaults["reply_upload_url"] = UPLOAD_URL
        job = Job(
            id=uuid.uuid4().hex, code=code, input=text, timeout_s=timeout_s, submitted_at=now, **defaults | changes
        )
        self._sqs.send_message(QueueUrl=self.job_queue_url, MessageBody=encode(job), MessageGroupId="a-key")
        return job.id

    def replies(self, count, timeout_s=60, queue_url=None):
        """Receive `count` replies, and return them by job id."""
        queue_url = queue_url or self.reply_to
        replies = {}
        deadline = time.monotonic() + timeout_s
        while len(replies) < count and time.monotonic() < deadline:
            answer = self._sqs.receive_message(
                QueueUrl=queue_url,
                MaxNumberOfMessages=min(10, count - len(replies)),
                WaitTimeSeconds=1,
                MessageSystemAttributeNames=["MessageGroupId"],
            )
            for message in answer.get("Messages", ()):
                reply = decode_from_host(message["Body"])
                if not isinstance(reply, HostReport):
                    replies[reply.id] = reply
                    self.groups[reply.id] = message.get("Attributes", {}).get("MessageGroupId")
                self._sqs.delete_message(QueueUrl=queue_url, ReceiptHandle=message["ReceiptHandle"])
        assert len(replies) == count
        return replies

    def run(self, code, text="", timeout_s=3.0):
        job_id = self.send(code, text, timeout_s)
        return self.replies(1)[job_id]


@pytest.fixture
def queue_client(sqs):
    return QueueClient(sqs)


class AgentProcess:
    """An agent, as seen from outside its process."""

    def __init__(self, name, process, metrics_port, docker_client):
        self.name = name
        self.popen = process.popen
        self.log = process.log
        self._process = process
        self._metrics_url = f"http://127.0.0.1:{metrics_port}/metrics"
        self._docker = docker_client

    def metric(self, name):
        return read_metric(self._metrics_url, name)

    def containers(self):
        return self._docker.api.containers(all=True, filters={"label": f"{AGENT_LABEL}={self.name}"})

    def wait_until_ready(self, sandboxes=1):
        def ready():
            with contextlib.suppress(OSError):
                has_passed = self.metric("python_exec_isolation_check_passed") == 1
                return has_passed and self.metric("python_exec_warm_sandboxes") >= sandboxes

        self._process.wait_until(ready, timeout_s=60)

    def wait_until_no_containers(self, timeout_s):
        eventually(lambda: not self.containers(), timeout_s=timeout_s, every_s=0.1)


@pytest.fixture
def start_agent(aws, queue_client, image, docker_client, tmp_path):
    with contextlib.ExitStack() as agents:

        def start(name=None, docker_host=None, engine_client=None, **settings):
            name = name or f"test-{uuid.uuid4().hex[:8]}"
            metrics_port = free_port()
            environment = {
                **aws.environment,
                "JOB_QUEUE_URL": queue_client.job_queue_url,
                "RESULTS_QUEUE_URL": queue_client.results_queue_url,
                "PAYLOAD_STORE_URL": f"{aws.environment['AWS_ENDPOINT_URL']}/payloads",
                "SANDBOX_IMAGE": image,
                "AGENT_NAME": name,
                "METRICS_PORT": str(metrics_port),
                "RUNTIMES": "python=2",
                **settings,
            }
            if docker_host is not None:
                environment["DOCKER_HOST"] = docker_host
            command = [sys.executable, "-m", "executor_host"]
            process = agents.enter_context(
                child_process(name, command, grace_s=20, settings=environment, logs=tmp_path)
            )
            return AgentProcess(name, process, metrics_port, engine_client or docker_client)

        yield start
