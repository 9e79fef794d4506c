"""An emulator for all tests of this folder, and agents as the processes that they are in production."""

import contextlib
import sys
import time
import urllib.request
import uuid

import docker
import pytest

from chalicelib.contract import HostReport, Job, decode_from_host, encode
from executor_host.hardening import AGENT_LABEL
from infra.local.emulated_aws import client, emulated_aws
from infra.local.processes import child_process, free_port
from tests.support.polling import eventually


@pytest.fixture(scope="session")
def aws(tmp_path_factory):
    with emulated_aws(logs=tmp_path_factory.mktemp("aws")) as emulated:
        yield emulated


@pytest.fixture(scope="session")
def docker_client():
    return docker.from_env()


@pytest.fixture
def sqs(aws):
    return client("sqs", aws.environment)


class Customer:
    """Sends jobs as the API does."""

    def __init__(self, sqs):
        self._sqs = sqs
        self.groups = {}  # of the replies that were received
        self.job_queue_url = sqs.create_queue(
            QueueName=f"jobs-{uuid.uuid4().hex}", Attributes={"VisibilityTimeout": "6"}
        )["QueueUrl"]
        self.results_queue_url = sqs.create_queue(QueueName=f"results-{uuid.uuid4().hex}")["QueueUrl"]
        self.reply_to = sqs.create_queue(QueueName=f"replies-{uuid.uuid4().hex}")["QueueUrl"]

    def send(self, code, text="", timeout_s=3.0, **changes):
        now = time.time()
        wanted = {"reply_to": self.reply_to, "reply_by": now + 60, "start_deadline": now + 60}
        job = Job(id=uuid.uuid4().hex, code=code, input=text, timeout_s=timeout_s, submitted_at=now, **wanted | changes)
        self._sqs.send_message(QueueUrl=self.job_queue_url, MessageBody=encode(job), MessageGroupId="a-key")
        return job.id

    def replies(self, count, timeout_s=60, queue_url=None):
        """The next `count` replies, by job id."""
        queue_url = queue_url or self.reply_to
        found = {}
        deadline = time.monotonic() + timeout_s
        while len(found) < count and time.monotonic() < deadline:
            answer = self._sqs.receive_message(
                QueueUrl=queue_url,
                MaxNumberOfMessages=min(10, count - len(found)),
                WaitTimeSeconds=1,
                MessageSystemAttributeNames=["MessageGroupId"],
            )
            for message in answer.get("Messages", ()):
                reply = decode_from_host(message["Body"])
                if not isinstance(reply, HostReport):
                    found[reply.id] = reply
                    self.groups[reply.id] = message.get("Attributes", {}).get("MessageGroupId")
                self._sqs.delete_message(QueueUrl=queue_url, ReceiptHandle=message["ReceiptHandle"])
        assert len(found) == count
        return found

    def run(self, code, text="", timeout_s=3.0):
        job_id = self.send(code, text, timeout_s)
        return self.replies(1)[job_id]


@pytest.fixture
def customer(sqs):
    return Customer(sqs)


class AgentProcess:
    """An agent, and what can be seen of it from outside."""

    def __init__(self, name, process, metrics_port, docker_client):
        self.name = name
        self.popen = process.popen
        self.log = process.log
        self._process = process
        self._metrics_url = f"http://127.0.0.1:{metrics_port}/metrics"
        self._docker = docker_client

    def metric(self, name):
        with urllib.request.urlopen(self._metrics_url, timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return next(float(line.split()[-1]) for line in lines if line.startswith(f"{name} "))

    def containers(self):
        return self._docker.api.containers(all=True, filters={"label": f"{AGENT_LABEL}={self.name}"})

    def wait_until_ready(self, sandboxes=1):
        def ready():
            with contextlib.suppress(OSError):
                return self.metric("python_exec_warm_sandboxes") >= sandboxes

        self._process.wait_until(ready, timeout_s=60)

    def wait_until_nothing_is_left(self, timeout_s):
        eventually(lambda: not self.containers(), timeout_s=timeout_s, every_s=0.1)


@pytest.fixture
def start_agent(aws, customer, image, docker_client, tmp_path):
    with contextlib.ExitStack() as agents:

        def start(name=None, docker_host=None, engine_client=None, **settings):
            name = name or f"test-{uuid.uuid4().hex[:8]}"
            metrics_port = free_port()
            environment = {
                **aws.environment,
                "JOB_QUEUE_URL": customer.job_queue_url,
                "RESULTS_QUEUE_URL": customer.results_queue_url,
                "SANDBOX_IMAGE": image,
                "AGENT_NAME": name,
                "METRICS_PORT": str(metrics_port),
                "WARM_SANDBOXES": "2",
                "WORKERS": "2",
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
