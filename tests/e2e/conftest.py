"""Start the stack of `make run` on free ports, once for all tests in this directory."""

import uuid

import pytest

from infra.local.processes import free_port
from infra.local.stack import local_stack
from tests.support.http_client import Client


@pytest.fixture(scope="session")
def webhook_port():
    """The only port of this machine that webhooks may reach."""
    return free_port()


@pytest.fixture(scope="session")
def stack(webhook_port, tmp_path_factory):
    name, logs = f"e2e-{uuid.uuid4().hex[:8]}", tmp_path_factory.mktemp("stack")
    with local_stack(name=name, logs=logs, webhook_ports=frozenset({webhook_port})) as stack:
        yield stack
        stack.check()


@pytest.fixture
def client(stack):
    client = Client(stack.url, stack.api_key)
    yield client
    client.close()
