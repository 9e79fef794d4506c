"""Start the stack of `make run` on free ports, once for all tests in this directory."""

import uuid
from contextlib import nullcontext

import pytest

from infra.local.processes import free_port
from infra.local.stack import local_stack
from tests.support import openapi_contract
from tests.support.browser import TIMEOUT_MS, Watch, chromium
from tests.support.emulators import other_emulators
from tests.support.http_client import JSON, Client
from tests.support.keys import key_creator
from tests.support.playground import Playground

ON_OTHER_EMULATORS = {"stack", "fault_stack"}
# These files start first, so that at the end no process waits for another.
SLOWEST = ["local_stack", "faults", "playground", "responses", "concurrent_clients", "fuzz", "soak"]


def pytest_collection_modifyitems(config, items):
    """Put the slowest first. Leave out the tests that start no emulator, or their own, if the others are chosen."""
    ranks = {f"test_{name}": rank for rank, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: ranks.get(item.path.stem, len(ranks)))
    if config.getoption("--other-emulators"):
        left_out = [item for item in items if not ON_OTHER_EMULATORS & set(item.fixturenames)]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def webhook_port():
    """The only port of this machine that webhooks may reach."""
    return free_port()


@pytest.fixture(scope="session")
def emulators(request):
    """Return a function that starts the chosen emulators, for `with`, and yields their endpoints: moto needs none."""
    return other_emulators if request.config.getoption("--other-emulators") else lambda **_: nullcontext({})


@pytest.fixture(scope="session")
def stack(webhook_port, emulators, tmp_path_factory):
    name, logs = f"e2e-{uuid.uuid4().hex[:8]}", tmp_path_factory.mktemp("stack")
    with (
        emulators(logs=logs) as endpoints,
        local_stack(name=name, logs=logs, webhook_ports=frozenset({webhook_port}), endpoints=endpoints) as stack,
    ):
        yield stack
        stack.check()


class CheckedClient(Client):
    """A client that fails if a response is not as the OpenAPI document says."""

    def send(self, body=None, *, method="POST", path="/", headers=JSON):
        answer = super().send(body, method=method, path=path, headers=headers)
        headers = dict(answer.headers)
        violations = list(openapi_contract.violations(method, path, answer.status, headers, answer.body))
        assert violations == [], violations
        return answer


@pytest.fixture
def client(stack):
    client = CheckedClient(stack.url, stack.api_key)
    yield client
    client.close()


@pytest.fixture
def create_key(stack):
    """Return a function that creates a key of a plan and returns it as text."""
    return key_creator(stack.environment, owner="e2e")


@pytest.fixture(scope="session")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture
def new_context(browser, stack):
    """Return a function that opens a browser with an empty profile. At the end, fail if a page did what none may do."""
    contexts = []

    def open_context(url=stack.url, **options):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
        context.set_default_timeout(TIMEOUT_MS)
        contexts.append((context, Watch(context, url)))
        return context

    yield open_context
    incidents = [incident for _, watch in contexts for incident in watch.incidents]
    cookies = [cookie for context, _ in contexts for cookie in context.cookies()]
    for context, _ in contexts:
        context.close()
    assert (incidents, cookies) == ([], [])


@pytest.fixture
def playground(new_context, stack):
    """The playground in a browser of 1280 by 800 pixels, not loaded yet."""
    context = new_context(permissions=["clipboard-read", "clipboard-write"])
    return Playground(context.new_page(), stack.url, stack.api_key)
