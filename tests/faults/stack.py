"""The parts that the fault suite breaks: an engine of its own, queues behind a proxy, agents, API, triggers.

What restarts a process in production, systemd or Docker on a host and Lambda itself, is played by `restart`.
"""

import contextlib
import itertools
import json
import os
import signal
import sys
import time
import uuid
from pathlib import Path

import docker

from chalicelib.access.api_keys import new_key
from executor_host.hardening import AGENT_LABEL
from infra.images.sandbox_image import ensure_image
from infra.local.docker_daemon import running_daemon
from infra.local.emulated_aws import client, create_queues_and_tables, emulated_aws
from infra.local.processes import child_process, free_port, is_listening
from infra.operator.key_admin import KeyAdmin
from tests.faults.proxy import REPLY_QUEUE, FaultProxy
from tests.support.docker_daemons import client_of, daemon_in
from tests.support.http_client import metric
from tests.support.polling import eventually
from tests.support.webhook_receiver import Receiver

WORKERS = 4
POOL = 2
SETTINGS = {"WORKERS": str(WORKERS), "WARM_SANDBOXES": str(POOL), "DEFAULT_WAIT_S": "5"}
START_S = 30
NOTHING_LEFT_S = 75.0  # until nothing is left over: above the visibility timeout of each queue
COUNTS = ("", "NotVisible", "Delayed")
JOBS, DEAD_JOBS = "python-exec-jobs", "python-exec-jobs-dead"


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
        self._starts = itertools.count()  # a log for each process that is started
        self._start_engine()
        image = self._load_image()
        aws = resources.enter_context(emulated_aws(logs=self._logs))
        self.proxy = resources.enter_context(FaultProxy(aws.environment["AWS_ENDPOINT_URL"]).running())
        self.environment = {**aws.environment, "AWS_ENDPOINT_URL": self.proxy.url}
        self.sqs, self._dynamodb = (client(name, aws.environment) for name in ("sqs", "dynamodb"))  # beside the proxy
        self.settings = {
            **self.environment,
            **create_queues_and_tables(self.environment),
            **SETTINGS,
            "ALLOW_LOCAL_WEBHOOKS": "true",
        }
        self._sent, self._received = set(), []
        self.proxy.on_sent, self.proxy.on_received = self._see_sent, self._see_received
        self.receiver = resources.enter_context(Receiver())
        self.callback_url = f"http://127.0.0.1:{self.receiver.port}/"
        self._key = new_key()
        KeyAdmin(self._dynamodb, table=self.settings["KEYS_TABLE"]).create(
            self._key, plan="internal", owner="faults", now_s=int(time.time())
        )
        self.api_key, self.port = str(self._key), free_port()
        self._image = image
        self.agents, self._metrics = {}, {}
        self.api = self._part(self._start_api)
        self.triggers = self._part(self._start_triggers)
        self.start_agent("one")
        for part in (self.api, self.triggers, self.agents["one"]):
            part.wait()

    def start_agent(self, name):
        full = f"faults-{name}-{uuid.uuid4().hex[:6]}"
        self.agents[name] = self._part(lambda stack: self._start_agent(stack, name, full))

    def end_agent(self, name, number=signal.SIGTERM):
        self.agents[name].end(number)
        self.agents.pop(name).close()

    def _part(self, start):
        part = Part(start)
        self._resources.callback(part.close)
        return part

    def _start_agent(self, stack, name, full_name):
        port = free_port()
        self._metrics[name] = f"http://127.0.0.1:{port}/metrics"
        settings = {
            **self.settings,
            "DOCKER_HOST": self.daemon.address,
            "SANDBOX_IMAGE": self._image,
            "AGENT_NAME": full_name,
            "METRICS_PORT": str(port),
        }
        process = self._process(stack, f"agent-{name}", "executor_host", settings=settings, grace_s=20)
        return process, lambda: self.metric(name, "python_exec_docker_up") > 0

    def _start_api(self, stack):
        process = self._process(stack, "api", "infra.local.chalice_server", "--host=127.0.0.1", f"--port={self.port}")
        return process, lambda: is_listening("127.0.0.1", self.port)

    def _start_triggers(self, stack):
        return self._process(stack, "triggers", "infra.local.event_sources"), lambda: True

    def _process(self, stack, name, module, *options, settings=None, grace_s=2):
        command = [sys.executable, "-m", module, *options]
        log, settings = f"{name}-{next(self._starts)}", settings or self.settings
        return stack.enter_context(child_process(log, command, grace_s=grace_s, settings=settings, logs=self._logs))

    def metric(self, agent, name):
        """What an agent says now, 0 if it says nothing."""
        with contextlib.suppress(OSError, StopIteration):
            return metric(self._metrics[agent], name)
        return 0

    def jobs_in_hand(self, agent):
        """How many an agent has, once it has any."""
        return eventually(lambda: int(self.metric(agent, "python_exec_jobs_running")), timeout_s=START_S)

    def requests_waiting(self):
        """How many processes of the API poll for replies, once any does: then requests wait in it."""
        return eventually(lambda: len(self.proxy.reply_polls), timeout_s=START_S)

    def broken_sandboxes(self):
        return int(self.metric("one", "python_exec_sandbox_errors_total"))

    def _start_engine(self):
        directory = self._logs / "engine"
        directory.mkdir()
        self.daemon = self._resources.enter_context(daemon_in(directory))
        self.daemon.run.mkdir()
        self._engine = contextlib.ExitStack()
        self._resources.callback(self._end_engine)
        self._engine.enter_context(running_daemon(self.daemon, logs=self._logs))

    def _load_image(self):
        image = ensure_image(docker.from_env())
        self.docker = client_of(self.daemon, image=image)
        return image

    def kill_engine(self):
        os.kill(int(self.daemon.pidfile.read_text()), signal.SIGKILL)

    def _end_engine(self):
        self._engine.close()

    def restart_engine(self):
        self._engine.close()
        self._engine = contextlib.ExitStack()
        self._engine.enter_context(running_daemon(self.daemon, logs=self._logs))

    def containers(self):
        return self.docker.api.containers(all=True, filters={"label": AGENT_LABEL})

    def remove_containers(self):
        for container in reversed(self.containers()):  # the oldest first: they have the jobs
            with contextlib.suppress(docker.errors.APIError):
                self.docker.api.remove_container(container["Id"], force=True)

    def reply_queues(self):
        return self.sqs.list_queues(QueueNamePrefix=REPLY_QUEUE).get("QueueUrls", [])

    def received(self, queue, text=""):
        """How often somebody received a job with this text in it."""
        return sum(name == queue and text in body for name, body in list(self._received))

    def delivered(self):
        """The bodies that the receiver of webhooks got, by job."""
        bodies = {}
        for _, _, body in self.receiver.requests:
            answer = json.loads(body)
            bodies.setdefault(answer["id"], []).append(answer)
        return bodies

    def hide_messages_for(self, seconds, *settings):
        """Changes the visibility timeout of queues."""
        for setting in settings:
            shorter = {"VisibilityTimeout": str(seconds)}
            self.sqs.set_queue_attributes(QueueUrl=self.settings[setting], Attributes=shorter)

    def left_over(self):
        """What there is too much, or too little, of when all jobs have ended and redeliveries had their time."""
        deadline = time.monotonic() + NOTHING_LEFT_S
        while (left := self._left_over()) and time.monotonic() < deadline:
            time.sleep(0.2)
        return left

    def _left_over(self):
        left = {}
        queues = self.sqs.list_queues(QueueNamePrefix="python-exec-")["QueueUrls"]
        for url in sorted(url for url in queues if REPLY_QUEUE not in url):  # and so in the way that messages take
            counts = [f"ApproximateNumberOfMessages{count}" for count in COUNTS]
            found = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=counts)["Attributes"]
            left[url.rpartition("/")[2]] = sum(map(int, found.values()))
        key = {"job_id": {"S": f"waiting:{self._key.key_id}"}}
        found = self._dynamodb.get_item(TableName=self.settings["JOBS_TABLE"], Key=key, ConsistentRead=True)
        entries = found.get("Item", {}).get("waiting", {}).get("SS", ())
        waiting = {entry.rpartition(":")[2] for entry in entries}
        left["counted as waiting"] = len(waiting & self._sent)  # one that no queue took ends by itself
        # One that was created but not yet started when its agent was killed stays for the next agent of that name.
        running = self.docker.api.containers(filters={"label": AGENT_LABEL})
        left["sandboxes"] = len(running) - len(self.agents) * (WORKERS + POOL)
        return {name: count for name, count in left.items() if count}

    def _see_sent(self, queue, body):
        if queue.endswith(f"/{JOBS}"):
            self._sent.add(json.loads(body)["id"])

    def _see_received(self, queue, body):
        if (name := queue.rpartition("/")[2]) in {JOBS, DEAD_JOBS}:
            self._received.append((name, body))
