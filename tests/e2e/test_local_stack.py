"""`make run` as its users see it: it prints a curl command, writes settings, and leaves nothing behind."""

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import uuid
from pathlib import Path
from queue import SimpleQueue

import docker
import pytest

from executor_host.hardening import AGENT_LABEL
from infra.env_file import client as aws_client
from infra.local.processes import LOOPBACK, child_process, free_port, is_listening
from tests.support.http_client import Client, read_metric
from tests.support.polling import eventually

ROOT = Path(__file__).parent.parent.parent
README = ROOT / "README.md"
SOURCES = ("executor_host", "infra", "lambda_app")
CHALICE = Path(sys.executable).with_name("chalice")
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
FEWER_WORKERS = {"RUNTIMES": "python=2,data=1"}  # than by default, and so fewer sandboxes to start


class LocalStack:
    """`make run` in a copy of the checkout, so that it does not touch the developer's .local/."""

    def __init__(self, root, settings):
        self.root = root
        self.port = free_port()
        self.mark = f"PYTHON_EXEC_TEST={uuid.uuid4().hex}"
        name, value = self.mark.split("=")
        pythonpath = f"{root / 'lambda_app'}:{root}"
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "infra.local.stack"],
            cwd=root,
            env={**os.environ, **settings, "PORT": str(self.port), "PYTHONPATH": pythonpath, name: value},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._lines = SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()
        self.url = f"http://{LOOPBACK}:{self.port}"

    def _read(self):
        for line in self.popen.stdout:
            self._lines.put(line)

    def wait_until_started(self):
        """Read the printed lines, up to the one about the settings."""
        self.printed = []
        while not self.printed or not self.printed[-1].startswith("Settings:"):
            self.printed.append(self._lines.get(timeout=START_TIMEOUT_S))
        (self.demo_key,) = settings(self, "API_KEY")

    def processes(self):
        """Return the ids of all its processes, which have inherited its environment."""
        pids = []
        for environ in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if self.mark.encode() in environ.read_bytes():
                    pids.append(environ.parent.name)
        return pids

    def containers(self):
        """Return the containers of its agent."""
        with contextlib.closing(docker.from_env()) as client:
            return client.api.containers(all=True, filters={"label": f"{AGENT_LABEL}=local-{self.port}"})

    def stop(self):
        """Stop as `kill` does, if it still runs, and return the exit code."""
        self.popen.terminate()
        return self.popen.wait(STOP_TIMEOUT_S)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    root = tmp_path_factory.mktemp("checkout")
    for name in SOURCES:
        shutil.copytree(ROOT / name, root / name)
    return root


@contextlib.contextmanager
def running(checkout, **settings):
    stack = LocalStack(checkout, settings)
    try:
        stack.wait_until_started()
        yield stack
    finally:
        stack.stop()


@pytest.fixture(scope="module")
def first(checkout):
    """The stack of several tests, the last of which stops it."""
    with running(checkout) as stack:
        yield stack


@pytest.fixture(scope="module")
def second(first, checkout):
    """The same stack, started again."""
    first.stop()
    with running(checkout, **FEWER_WORKERS) as stack:
        yield stack


@pytest.fixture
def third(checkout):
    with running(checkout, **FEWER_WORKERS) as stack:
        yield stack


def bash(command, cwd):
    return subprocess.run(["bash", "-c", command], cwd=cwd, capture_output=True, text=True, check=True).stdout


def readme_example():
    """Return the first curl command of the README and the answer below it."""
    curl, answer = re.search(r"```sh\n([^`]*curl .*?)```\n\n```json\n(.*?)```", README.read_text(), re.DOTALL).groups()
    return curl, json.loads(answer)


def post(url, api_key, **fields):
    client = Client(url, api_key)
    try:
        return client.post(**fields)
    finally:
        client.close()


def settings(local, *names):
    """Return values of .local/env."""
    text = bash(f'set -eu; . .local/env; printf "%s\\n" {" ".join(f"${name}" for name in names)}', local.root)
    return text.split()


def test_printed_curl_works(first):
    (curl,) = [line for line in first.printed if line.lstrip().startswith("curl ")]
    assert json.loads(bash(curl, first.root))["stdout"] == "olleh\n"

    curl, documented = readme_example()
    assert json.loads(bash(curl, first.root)).keys() == documented.keys()


@pytest.fixture(scope="module")
def installed(checkout):
    """The same copy, after `make setup`."""
    for name in ("Makefile", "requirements.txt", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, checkout)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "PYTHONPATH"))}
    setup = ["make", "-C", checkout, "setup", f"PYTHON={sys.executable}"]
    subprocess.run(setup, env=environment, capture_output=True, check=True)
    return checkout


def test_operator_command_works_in_a_clean_environment(first, installed):
    create = python_exec(installed, "keys", "create", "--plan", "pro", "--owner", "acme", "--json")
    assert (create.returncode, create.stderr) == (0, f"Using the local stack at {first.url}.\n")
    assert post(first.url, json.loads(create.stdout)["api_key"], code="print(1)").body["stdout"] == "1\n"


def test_sigterm_cleans_up(first):
    url, metrics_url, *queues = settings(first, "URL", "METRICS_URL", "AWS_ENDPOINT_URL", "JOB_QUEUE_URL")
    assert url == first.url
    assert "python_exec_warm_sandboxes" in bash(f"curl -s {metrics_url}", first.root)
    assert all(value.startswith(f"http://{LOOPBACK}:") for value in queues)

    assert (len(first.processes()) >= 4, len(first.containers()) >= 1) == (True, True)
    assert first.stop() == 0
    assert (first.processes(), first.containers()) == ([], [])
    ports = [int(address.split("/")[2].split(":")[1]) for address in (url, metrics_url, *queues)]
    assert [is_listening(LOOPBACK, port) for port in ports] == [False] * len(ports)


def test_operator_command_reports_a_stopped_stack(first, installed):
    first.stop()
    show = python_exec(installed, "keys", "show", "0")
    message = "Error: The local stack is not running. Start it with `make run`, or set KEYS_TABLE.\n"
    assert (show.returncode, show.stdout, show.stderr) == (1, "", message)


def python_exec(root, *arguments):
    """Run the installed command as a new shell would, from another directory."""
    command = ["env", "-i", f"PATH={os.environ['PATH']}", root / ".venv/bin/python-exec", *arguments]
    return subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)


def test_demo_key_is_kept(first, second):
    assert second.demo_key == first.demo_key
    assert post(second.url, first.demo_key, code="print(1)").body["stdout"] == "1\n"


def test_reload_works_and_ctrl_c_cleans_up(second):
    source = second.root / "lambda_app/chalicelib/problems.py"
    source.write_text(source.read_text().replace("urn:python-exec:", "urn:changed:"))

    def is_changed():
        with contextlib.suppress(OSError, http.client.HTTPException):  # the API restarts, perhaps during a response
            return post(second.url, "").body["type"].startswith("urn:changed:")

    eventually(is_changed, timeout_s=START_TIMEOUT_S, every_s=0.1)
    customer = threading.Thread(target=post_until_stopped, args=(second.url, second.demo_key))
    customer.start()
    (metrics_url,) = settings(second, "METRICS_URL")
    eventually(lambda: read_metric(metrics_url, "python_exec_jobs_running") == 1)
    second.popen.send_signal(signal.SIGINT)
    assert second.popen.wait(STOP_TIMEOUT_S) == 0
    assert (second.processes(), second.containers()) == ([], [])
    customer.join()


def test_repeated_stop_signals_are_safe(third):
    (agent,) = [int(pid) for pid in third.processes() if b"executor_host" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    with contextlib.suppress(ProcessLookupError):
        for _ in range(20_000):
            os.kill(agent, signal.SIGTERM)
    eventually(lambda: not Path(f"/proc/{agent}").exists(), timeout_s=STOP_TIMEOUT_S / 2)
    assert third.popen.wait(STOP_TIMEOUT_S) == 1
    assert (third.processes(), third.containers()) == ([], [])


def post_until_stopped(url, api_key):
    with contextlib.suppress(OSError, http.client.HTTPException):
        post(url, api_key, code="import time; time.sleep(5)", timeout_s=10)


@contextlib.contextmanager
def chalice_local(logs, settings):
    """Run the plain `chalice local` command in lambda_app/, and yield its URL."""
    port = free_port()
    command = ["env", "-C", str(ROOT / "lambda_app"), str(CHALICE), "local", f"--port={port}", "--no-autoreload"]
    with child_process("chalice", command, grace_s=2, settings=settings, logs=logs) as process:
        process.wait_until(lambda: is_listening(LOOPBACK, port), timeout_s=START_TIMEOUT_S)
        yield f"http://{LOOPBACK}:{port}"


def test_stock_chalice_local_works(stack, tmp_path):
    with chalice_local(tmp_path, stack.environment) as url:
        assert post(url, stack.api_key, code="print(input())", input="plain").body["stdout"] == "plain\n"


def test_job_without_host_returns_202(stack, tmp_path):
    sqs = aws_client("sqs", stack.environment)
    unread = sqs.create_queue(QueueName=f"unread-{uuid.uuid4().hex}")["QueueUrl"]
    with chalice_local(tmp_path, {**stack.environment, "JOB_QUEUE_URL": unread, "DEFAULT_WAIT_S": "1"}) as url:
        answer = post(url, stack.api_key, code="1")
    assert (answer.status, answer.body["status"]) == (202, "pending")
    assert answer.headers["Location"] == f"/jobs/{answer.body['id']}"
    (message,) = sqs.receive_message(QueueUrl=unread)["Messages"]
    assert json.loads(message["Body"])["id"] == answer.body["id"]


def test_missing_job_queue_returns_503(stack, tmp_path):
    with chalice_local(
        tmp_path, {**stack.environment, "JOB_QUEUE_URL": stack.environment["JOB_QUEUE_URL"] + "-x"}
    ) as url:
        answer = post(url, stack.api_key, code="1")
    assert (answer.status, answer.body["type"]) == (503, "urn:python-exec:problem:job-queue-unavailable")
    assert answer.headers["Retry-After"] == "2"
