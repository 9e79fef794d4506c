"""The parts that the fault suite breaks: an engine of its own, queues behind a proxy, agents, API, triggers.

What restarts a process in production, systemd or Docker on a host and Lambda itself, is played by `restart`.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import docker

from chalicelib.keys import new_key
from executor_host.hardening import AGENT_LABEL
from executor_host.image.build import ensure_image
from infra.aws import client, create_platform, emulated_aws
from infra.engine import Daemon, started
from infra.key_store import KeyStore
from infra.processes import accepts, free_port, running
from tests.e2e.client import metric
from tests.fault_proxy import FaultProxy
from tests.waiting import eventually

WORKERS = 4
POOL = 2
SETTINGS = {"CONCURRENCY": str(WORKERS), "POOL_SIZE": str(POOL), "REPLY_WAIT_S": "5"}
START_S = 30


class Part:
    """A process that can be killed and started again under the same name."""

    def __init__(self, start):
        self._start = start
        self._running = contextlib.ExitStack()
        self.restart()

    def restart(self):
        self._running.close()
        self.process, self.ready = self._start(self._running)

    def end(self, number):
        self.process.popen.send_signal(number)
        self.process.popen.wait(30)

    def wait(self):
        self.process.wait_until(self.ready, timeout_s=START_S)

    def close(self):
        self._running.close()


class World:
    """Everything, as clients and faults see it."""

    def __init__(self, resources, logs):
        self._logs, self._resources = Path(logs), resources
        self._start_engine()
        image = self._load_image()
        aws = resources.enter_context(emulated_aws(logs=self._logs))
        self.proxy = resources.enter_context(FaultProxy(aws.environment["AWS_ENDPOINT_URL"]).running())
        self.environment = {**aws.environment, "AWS_ENDPOINT_URL": self.proxy.url}
        self.sqs = client("sqs", aws.environment)  # beside the proxy
        self.settings = {**self.environment, **create_platform(self.environment), **SETTINGS, "LOCAL_WEBHOOKS": "true"}
        key = new_key()
        KeyStore(client("dynamodb", aws.environment), table=self.settings["KEYS_TABLE"]).create(
            key, plan="internal", owner="faults", now_s=int(time.time())
        )
        self.api_key, self.port = str(key), free_port()
        self._image = image
        self.agents = {}
        self.api = self._part(self._start_api)
        self.triggers = self._part(self._start_triggers)
        self.start_agent("one")
        for part in (self.api, self.triggers, self.agents["one"]):
            part.wait()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def start_agent(self, name):
        full = f"faults-{name}-{uuid.uuid4().hex[:6]}"
        self.agents[name] = self._part(lambda stack: self._start_agent(stack, full))
        self.agents[name].name = full

    def end_agent(self, name, number=signal.SIGTERM):
        self.agents[name].end(number)
        self.agents.pop(name).close()

    def _part(self, start):
        part = Part(start)
        self._resources.callback(part.close)
        return part

    def _start_agent(self, stack, name):
        port = free_port()
        settings = {
            **self.settings,
            "DOCKER_HOST": self.daemon.address,
            "SANDBOX_IMAGE": self._image,
            "AGENT_NAME": name,
            "METRICS_PORT": str(port),
        }
        command = [sys.executable, "-m", "executor_host"]
        process = stack.enter_context(running(name, command, grace_s=20, settings=settings, logs=self._logs))

        def ready():
            with contextlib.suppress(OSError, StopIteration):
                return metric(f"http://127.0.0.1:{port}/metrics", "python_exec_engine_up") > 0

        return process, ready

    def _start_api(self, stack):
        command = [sys.executable, "-m", "infra.api", "--host=127.0.0.1", f"--port={self.port}"]
        process = stack.enter_context(running("api", command, grace_s=2, settings=self.settings, logs=self._logs))
        return process, lambda: accepts("127.0.0.1", self.port)

    def _start_triggers(self, stack):
        command = [sys.executable, "-m", "infra.triggers"]
        process = stack.enter_context(running("triggers", command, grace_s=2, settings=self.settings, logs=self._logs))
        return process, lambda: True

    def _start_engine(self):
        directory = self._logs / "engine"
        directory.mkdir()
        self.daemon = Daemon(run=directory / "run", data=directory / "data")
        self.daemon.run.mkdir()
        self._engine = contextlib.ExitStack()
        # A dockerd that was killed leaves its data mounted on itself, which nobody could remove.
        unmount = ["umount", "--lazy", str(self.daemon.data)]
        self._resources.callback(subprocess.run, unmount, stderr=subprocess.DEVNULL, check=False)
        self._resources.callback(self._end_engine)
        self._engine.enter_context(started(self.daemon, logs=self._logs))

    def _load_image(self):
        image = ensure_image(docker.from_env())
        self.docker = docker.DockerClient(self.daemon.address)
        self.docker.images.load(b"".join(docker.from_env().images.get(image).save(named=image)))
        return image

    def kill_engine(self):
        os.kill(int(self.daemon.pidfile.read_text()), signal.SIGKILL)

    def _end_engine(self):
        self._engine.close()

    def restart_engine(self):
        self._engine.close()
        self._engine = contextlib.ExitStack()
        self._engine.enter_context(started(self.daemon, logs=self._logs))

    def containers(self):
        return self.docker.api.containers(all=True, filters={"label": AGENT_LABEL})

    def remove_containers(self):
        for container in self.containers():
            with contextlib.suppress(docker.errors.APIError):
                self.docker.api.remove_container(container["Id"], force=True)

    def reply_queues(self):
        return self.sqs.list_queues(QueueNamePrefix="python-exec-reply-").get("QueueUrls", [])

    def wait_until_nothing_is_left_over(self):
        """Each agent that runs has its sandboxes, and no other one runs.

        One that was created but not yet started when its agent was killed stays for the next agent of that name.
        """
        wanted = len(self.agents) * (WORKERS + POOL)
        of_agents = {"label": AGENT_LABEL}
        eventually(lambda: len(self.docker.api.containers(filters=of_agents)) == wanted, timeout_s=30, every_s=0.2)
