"""The API in its container, without Lambda: with the queues, tables and agent of the stack of the other tests."""

import contextlib
import json
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException

import pytest
from docker.errors import APIError

from infra.local.processes import LOOPBACK, free_port, is_listening
from infra.server import gunicorn_settings
from tests.support.api_container import api_container
from tests.support.http_client import JSON, Client
from tests.support.polling import eventually

CLIENTS = 6
MAX_REQUESTS = 100  # of each client
START_TIMEOUT_S = 60
EVENT_SOURCES = ["python3", "-m", "infra.local.event_sources"]
WHO_AM_I = "import json, os; print(json.dumps([os.getuid(), os.access('/api', os.W_OK)]))"


@contextlib.contextmanager
def running_container(stack):
    """Run a container of the API, and yield it and its URL."""
    port = free_port()
    with api_container({**stack.environment, "PORT": str(port)}) as container:
        eventually(lambda: is_listening(LOOPBACK, port), timeout_s=START_TIMEOUT_S)
        yield container, f"http://{LOOPBACK}:{port}"


@pytest.fixture(scope="module")
def container(stack):
    with running_container(stack) as running:
        yield running


def test_container_runs_programs(container, stack):
    answer = Client(container[1], stack.api_key).post(code="print(input()[::-1])", input="hello")
    assert (answer.status, answer.body["stdout"]) == (200, "olleh\n")


@pytest.mark.parametrize(
    "request_line",
    [
        ("POST", "/", JSON, "{"),
        ("POST", "/", {"Content-Type": "text/plain"}, "{}"),
        ("POST", "/", {**JSON, "X-Api-Key": "pk_unknown"}, "{}"),
        ("POST", "/batch", JSON, '{"code": "", "runs": 1}'),
        ("GET", "/jobs/" + "0" * 32, {}, None),
        ("GET", "/usage?x=1", {}, None),
        ("PUT", "/", JSON, "{}"),
        ("GET", "/no-such-path", {}, None),
        ("GET", "/openapi.json", {"Accept-Encoding": "identity"}, None),
    ],
    ids=str,
)
def test_responses_are_those_of_the_local_server(container, stack, request_line):
    method, path, headers, body = request_line
    answers = [
        Client(url, stack.api_key).send(body, method=method, path=path, headers=headers)
        for url in (container[1], stack.url)
    ]
    assert len({(answer.status, answer.headers["Content-Type"], tuple(sorted(answer.body))) for answer in answers}) == 1


def test_container_is_healthy_and_has_no_privilege(container):
    check = container[0].attrs["Config"].get("Healthcheck") or container[0].image.attrs["Config"]["Healthcheck"]
    assert container[0].exec_run(check["Test"][1:]).exit_code == 0
    assert json.loads(container[0].exec_run(["python3", "-c", WHO_AM_I]).output) == [65532, False]


def test_event_sources_end_when_their_container_is_stopped(stack):
    def has_ended():
        with contextlib.suppress(APIError):  # it has ended since
            container.kill("SIGTERM")
        container.reload()
        return container.status == "exited"

    settings = {**stack.environment, "AWS_ENDPOINT_URL": f"http://{LOOPBACK}:9"}  # not the messages of other tests
    with api_container(settings, command=EVENT_SOURCES) as container:
        eventually(has_ended, timeout_s=START_TIMEOUT_S, every_s=0.2)
        assert container.wait()["StatusCode"] == 0


def test_stopping_container_loses_no_request(stack, create_key):
    api_key, answers = create_key("internal"), []

    def send_until_refused(url):
        client = Client(url, api_key)
        with contextlib.suppress(OSError, HTTPException):
            for _ in range(MAX_REQUESTS):
                answer = client.post(code="import time; time.sleep(0.5)")
                answers.append(answer.status)

    with running_container(stack) as (container, url), ThreadPoolExecutor(CLIENTS) as threads:
        clients = [threads.submit(send_until_refused, url) for _ in range(CLIENTS)]
        eventually(lambda: len(answers) >= CLIENTS)
        container.stop(timeout=gunicorn_settings.graceful_timeout + 5)
        assert container.wait()["StatusCode"] == 0
        assert [client.result() for client in clients] == [None] * CLIENTS
    used = Client(stack.url, api_key).send(method="GET", path="/usage", headers={}).body
    assert set(answers) == {200}
    assert used["used"] == len(answers) < CLIENTS * MAX_REQUESTS
