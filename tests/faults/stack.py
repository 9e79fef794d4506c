"""Run the stack that the fault suite breaks: its own Docker daemon, a proxy before AWS, agents, API, event sources."""

import contextlib
import itertools
import json
import os
import signal
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType

import docker
from standardwebhooks import Webhook, WebhookVerificationError

from chalicelib.access.api_keys import new_key
from chalicelib.jobs import pending_jobs
from chalicelib.jobs.pending_jobs import HASH_BYTES
from executor_host.hardening import AGENT_LABEL
from infra.env_file import client
from infra.images.sandbox_image import ensure_image
from infra.local.docker_daemon import running_daemon
from infra.local.emulated_aws import create_resources, emulated_aws
from infra.local.processes import child_process, free_port, is_listening
from infra.operator.key_admin import KeyAdmin
from tests.faults.proxy import DYNAMODB, REPLY_QUEUE, S3, SQS, FaultProxy
from tests.faults.restartable import START_TIMEOUT_S, RestartableProcess, RunningContainer, RunningProcess
from tests.support.api_container import api_container
from tests.support.docker_daemons import client_with_image, isolated_daemon
from tests.support.http_client import read_metric
from tests.support.polling import eventually
from tests.support.webhook_receiver import OK, WebhookReceiver

WORKERS = 4
SETTINGS = {"RUNTIMES": f"python={WORKERS}", "DEFAULT_WAIT_S": "5"}
QUIESCE_TIMEOUT_S = 75.0  # until all queues are empty: longer than the visibility timeout of each
REMOVAL_THREADS = 16
COUNTS = ("", "NotVisible", "Delayed")
JOBS, DEAD_JOBS = "python-exec-jobs", "python-exec-jobs-dead"
UNAUTHORIZED = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"


class FaultStack:
    """The whole stack, with the operations that clients and faults need."""

    def __init__(self, resources, logs, *, endpoints=MappingProxyType({}), is_api_in_container=False):
        """Start everything. `resources` is an ExitStack that ends it; `endpoints` are as in `emulated_aws`.

        The API and the event sources are processes of this machine or containers, as outside AWS.
        """
        self._logs, self._resources = Path(logs), resources
        self._is_api_in_container = is_api_in_container
        self._log_numbers = itertools.count()
        self._start_docker()
        self._image = self._load_image()
        self._receiver = resources.enter_context(WebhookReceiver())
        self._receiver.respond = self._receive_webhook
        self._start_aws(endpoints)
        self._create_key()
        self.webhook_deliveries = {}  # verified bodies by job id
        self.callback_url = f"http://127.0.0.1:{self._receiver.port}/"
        self.agents, self._metrics = {}, {}
        self.port = free_port()
        self.api = self._restartable(self._start_api)
        self._event_sources = self._restartable(self._start_event_sources)
        self.start_agent("one")
        for process in (self.api, self._event_sources, self.agents["one"]):
            process.wait_until_ready()

    def _start_aws(self, endpoints):
        direct = self._resources.enter_context(emulated_aws(logs=self._logs, endpoints=endpoints)).environment
        names = {SQS: "AWS_ENDPOINT_URL_SQS", DYNAMODB: "AWS_ENDPOINT_URL_DYNAMODB", S3: "AWS_ENDPOINT_URL_S3"}
        upstreams = {service: direct.get(name, direct["AWS_ENDPOINT_URL"]) for service, name in names.items()}
        self.proxy = self._resources.enter_context(FaultProxy(upstreams).running())
        self._sent, self._received = set(), []
        self.proxy.on_sent, self.proxy.on_received = self._on_sent, self._on_received
        # Our own clients bypass the proxy.
        self.sqs, self._dynamodb = (client(name, direct) for name in ("sqs", "dynamodb"))
        through_proxy = {name: value for name, value in direct.items() if name not in endpoints}
        through_proxy["AWS_ENDPOINT_URL"] = self.proxy.url
        self.settings = {
            **through_proxy,
            **create_resources(through_proxy),
            **SETTINGS,
            "LOCAL_WEBHOOK_PORTS": str(self._receiver.port),
        }

    def _create_key(self):
        self._key = new_key()
        keys = KeyAdmin(self._dynamodb, table=self.settings["KEYS_TABLE"])
        record = keys.create(self._key, plan="internal", owner="faults", now_s=int(time.time()))
        self.api_key, self._webhook = str(self._key), Webhook(record.signing_secret)

    def start_agent(self, name):
        """Start another agent, and do not wait for it."""
        full = f"faults-{name}-{uuid.uuid4().hex[:6]}"
        self.agents[name] = self._restartable(lambda stack: self._start_agent(stack, name, full))

    def remove_agent(self, name, number):
        """Send a signal to an agent, and do not start it again."""
        self.agents[name].terminate(number)
        self.agents.pop(name).close()

    def _restartable(self, start):
        process = RestartableProcess(start)
        self._resources.callback(process.close)
        return process

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
        if self._is_api_in_container:
            container = self._container(stack, "api", {**self.settings, "PORT": str(self.port)})
            return container, lambda: is_listening("127.0.0.1", self.port)
        process = self._process(stack, "api", "infra.local.chalice_server", "--host=127.0.0.1", f"--port={self.port}")
        return process, lambda: is_listening("127.0.0.1", self.port)

    def _start_event_sources(self, stack):
        if self._is_api_in_container:
            command = ["python3", "-m", "infra.local.event_sources"]
            return self._container(stack, "event-sources", self.settings, command), lambda: True
        return self._process(stack, "event-sources", "infra.local.event_sources"), lambda: True

    def _process(self, stack, name, module, *options, settings=None, grace_s=2):
        command = [sys.executable, "-m", module, *options]
        log, settings = f"{name}-{next(self._log_numbers)}", settings or self.settings
        process = child_process(log, command, grace_s=grace_s, settings=settings, logs=self._logs)
        return RunningProcess(stack.enter_context(process))

    def _container(self, stack, name, settings, command=None):
        container = stack.enter_context(api_container(settings, command=command))
        log = self._logs / f"{name}-{next(self._log_numbers)}.log"
        stack.callback(lambda: log.write_bytes(container.logs()))
        return RunningContainer(container)

    def metric(self, agent, name):
        """Return a metric of an agent, or 0 if the agent does not answer."""
        with contextlib.suppress(OSError, AssertionError):
            return read_metric(self._metrics[agent], name)
        return 0

    def wait_for_running_jobs(self, agent):
        """Return how many jobs an agent runs, once it runs any."""
        return eventually(lambda: self._running_jobs(agent), timeout_s=START_TIMEOUT_S, every_s=0.05)

    def wait_for_started_job(self, agent):
        """Wait until an agent has just started a job, which will still run when a fault that takes a while hits it."""
        counts = [self._running_jobs(agent)]

        def has_started_one():
            counts.append(self._running_jobs(agent))
            return counts[-1] > counts[-2]

        eventually(has_started_one, timeout_s=START_TIMEOUT_S, every_s=0.05)

    def _running_jobs(self, agent):
        return int(self.metric(agent, "python_exec_jobs_running"))

    def wait_for_pending_requests(self):
        """Return how many polls for replies are open, once there is one: then requests wait in the API."""
        return eventually(lambda: len(self.proxy.reply_polls), timeout_s=START_TIMEOUT_S, every_s=0.05)

    def sandbox_errors(self):
        """Return how many sandboxes of the first agent have failed."""
        return int(self.metric("one", "python_exec_sandbox_errors_total"))

    def _start_docker(self):
        directory = self._logs / "engine"
        directory.mkdir()
        self.daemon = self._resources.enter_context(isolated_daemon(directory))
        self.daemon.run.mkdir()
        self._docker_process = contextlib.ExitStack()
        self._resources.callback(self._stop_docker)
        self._docker_process.enter_context(running_daemon(self.daemon, logs=self._logs))

    def _load_image(self):
        image = ensure_image(docker.from_env())
        self.docker = client_with_image(self.daemon, image=image)
        return image

    def kill_docker(self):
        """Kill the Docker daemon."""
        os.kill(int(self.daemon.pidfile.read_text()), signal.SIGKILL)

    def _stop_docker(self):
        self._docker_process.close()

    def restart_docker(self):
        """Start the Docker daemon again."""
        self._docker_process.close()
        self._docker_process = contextlib.ExitStack()
        self._docker_process.enter_context(running_daemon(self.daemon, logs=self._logs))

    def containers(self):
        """Return all containers of the agents."""
        return self.docker.api.containers(all=True, filters={"label": AGENT_LABEL})

    def remove_containers(self):
        """Remove all containers of the agents at once: one after another would be several faults for a job."""
        oldest_first = [container["Id"] for container in reversed(self.containers())]  # they run the jobs
        with ThreadPoolExecutor(REMOVAL_THREADS) as threads:
            list(threads.map(self._remove_container, oldest_first))

    def _remove_container(self, container_id):
        client = docker.APIClient(self.daemon.address, version=self.docker.api.api_version)
        with contextlib.closing(client), contextlib.suppress(docker.errors.APIError):
            client.remove_container(container_id, force=True)

    def reply_queues(self):
        """Return the URLs of the reply queues."""
        return self.sqs.list_queues(QueueNamePrefix=REPLY_QUEUE).get("QueueUrls", [])

    def deliveries(self, queue, text=""):
        """Return how often a queue delivered a job that contains this text."""
        return sum(name == queue and text in body for name, body in list(self._received))

    def _receive_webhook(self, connection):
        _, headers, body = self._receiver.requests[-1]
        try:
            answer = self._webhook.verify(body, headers)
        except WebhookVerificationError:
            connection.sendall(UNAUTHORIZED)
            return
        self.webhook_deliveries.setdefault(answer["id"], []).append(answer)
        connection.sendall(OK)

    def set_visibility_timeout(self, seconds, *settings):
        """Change the visibility timeout of the queues that these settings name."""
        for setting in settings:
            attributes = {"VisibilityTimeout": str(seconds)}
            self.sqs.set_queue_attributes(QueueUrl=self.settings[setting], Attributes=attributes)

    def leftovers(self):
        """Return what is left, or missing, after all jobs have ended and redeliveries had their time."""
        deadline = time.monotonic() + QUIESCE_TIMEOUT_S
        while (leftovers := self._current_leftovers()) and time.monotonic() < deadline:
            time.sleep(0.2)
        return leftovers

    def _current_leftovers(self):
        leftovers = {}
        queues = self.sqs.list_queues(QueueNamePrefix="python-exec-")["QueueUrls"]
        for url in sorted(url for url in queues if REPLY_QUEUE not in url):  # jobs, then results: as messages move
            counts = [f"ApproximateNumberOfMessages{count}" for count in COUNTS]
            attributes = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=counts)["Attributes"]
            leftovers[url.rpartition("/")[2]] = sum(map(int, attributes.values()))
        key = pending_jobs.item_key(self._key.key_id)
        response = self._dynamodb.get_item(TableName=self.settings["JOBS_TABLE"], Key=key, ConsistentRead=True)
        waiting = {entry[-HASH_BYTES:] for entry in response.get("Item", {}).get("slots", {}).get("BS", ())}
        # A slot of a job that was not sent expires.
        leftovers["pending-job slots"] = len(waiting & set(map(pending_jobs.hash_of, self._sent)))
        # Only running ones: the next agent of that name removes what a killed agent had created but not started.
        containers = self.docker.api.containers(filters={"label": AGENT_LABEL})
        leftovers["sandboxes"] = len(containers) - len(self.agents) * 2 * WORKERS
        return {name: count for name, count in leftovers.items() if count}

    def _on_sent(self, queue, body):
        if queue.endswith(f"/{JOBS}"):
            self._sent.add(json.loads(body)["id"])

    def _on_received(self, queue, body):
        if (name := queue.rpartition("/")[2]) in {JOBS, DEAD_JOBS}:
            self._received.append((name, body))
