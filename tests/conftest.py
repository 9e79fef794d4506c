"""Mark each test with its folder, so that `pytest -m unit` runs tests/unit, and provide sandboxes."""

import os
import re
import uuid
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import docker
import pytest

from chalicelib.runtimes import RUNTIMES
from executor_host.docker_engine import DockerEngine
from infra.images.runtime_images import BUILDERS
from tests.support import gvisor
from tests.support.remote_sandboxes import RemoteSandboxes

TESTS = Path(__file__).parent
TIMEOUT_S = 30.0  # of a program that ends by itself, on a busy machine


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--runtime", default="python", choices=list(RUNTIMES), help="the runtime of the sandboxes")
    parser.addoption("--other-emulators", action="store_true", help="run the stack of tests/e2e on fauxqs and dynalite")
    parser.addoption("--url", help="run the programs of tests/security at this API, with the key in API_KEY")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist looks for the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with its folder, and with its file or, for the programs of a topic, with the topic.

    Tests of one group run in one process (`--dist loadgroup`), since they share what is started for a file.
    """
    folders = {path: path.relative_to(TESTS).parts[0] for path in {item.path for item in items}}
    for item in items:
        item.add_marker(folders[item.path])
        topic = re.search(r"\[(\w+)/", item.name)
        item.add_marker(pytest.mark.xdist_group(f"{item.path.stem}-{topic[1]}" if topic else str(item.path)))
    if gvisor.is_gvisor():
        gvisor.mark_known_differences(items)


@pytest.fixture(scope="session")
def runtime(request):
    return RUNTIMES[request.config.getoption("runtime")]


@pytest.fixture(scope="session")
def image(runtime):
    return BUILDERS[runtime.name](docker.from_env())


@pytest.fixture(scope="session")
def data_image():
    return BUILDERS["data"](docker.from_env())


@contextmanager
def engine_of(image, runtime):
    agent, oci_runtime = f"tests-{uuid.uuid4().hex}", os.environ.get("OCI_RUNTIME")
    engine = DockerEngine(image, runtime=runtime, agent=agent, oci_runtime=oci_runtime)
    yield engine
    for container_id, _ in engine.containers():
        engine.remove(container_id)


@pytest.fixture(scope="session")
def engine(image, runtime):
    with engine_of(image, runtime) as engine:
        yield engine


@pytest.fixture(scope="session")
def data_engine(data_image):
    with engine_of(data_image, RUNTIMES["data"]) as engine:
        yield engine


@pytest.fixture(scope="session")
def warm_sandbox(engine):
    """Return a function that returns an unused warm sandbox, while the next ones start in the background."""
    with ThreadPoolExecutor(2) as starters:
        starting = deque(starters.submit(engine.start_sandbox) for _ in range(3))

        def take():
            starting.append(starters.submit(engine.start_sandbox))
            return starting.popleft().result()

        yield take
        for sandbox in starting:
            sandbox.result().destroy()


@pytest.fixture(scope="session")
def run(request):
    """Return a function that runs a program in its own sandbox: of this machine, or behind the API at --url."""
    if url := request.config.getoption("url"):
        return RemoteSandboxes(url, os.environ["API_KEY"], runtime=request.config.getoption("runtime")).run
    warm_sandbox = request.getfixturevalue("warm_sandbox")  # not a parameter, because it needs Docker
    return lambda code, stdin="", timeout_s=TIMEOUT_S, **members: warm_sandbox().run(
        code, stdin, timeout_s=timeout_s, **members
    )
