"""Start the stack of `make run` on free ports, once for all tests in this directory."""

import uuid

import pytest

from infra.local.stack import local_stack
from tests.support.http_client import Client


@pytest.fixture(scope="session")
def stack(tmp_path_factory):
    with local_stack(name=f"e2e-{uuid.uuid4().hex[:8]}", logs=tmp_path_factory.mktemp("stack")) as stack:
        yield stack
        stack.check()


@pytest.fixture
def client(stack):
    client = Client(stack.url, stack.api_key)
    yield client
    client.close()
