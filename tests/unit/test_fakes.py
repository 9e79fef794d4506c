"""Each fake has the methods of the class that it replaces, with the same parameters and types."""

import inspect

import pytest

from chalicelib.access.key_table import KeyTable
from chalicelib.fleet.host_registry import HostRegistry
from chalicelib.jobs.job_table import JobTable
from chalicelib.jobs.payload_store import PayloadStore
from chalicelib.jobs.pending_jobs import PendingJobs
from chalicelib.jobs.submit import JobService
from chalicelib.webhooks.client import WebhookClient
from executor_host.docker_engine import DockerEngine
from executor_host.job_queue import JobQueue
from executor_host.payloads import PayloadClient
from executor_host.sandbox import Sandbox
from tests.support.fakes.docker_engine import FakeDockerEngine, FakeSandbox
from tests.support.fakes.job_queue import FakeJobQueue
from tests.support.fakes.job_service import FakeJobService
from tests.support.fakes.payloads import FakePayloadClient, FakePayloadStore
from tests.support.fakes.tables import FakeHostRegistry, FakeJobTable, FakeKeyTable, FakePendingJobs
from tests.support.fakes.webhook_client import FakeWebhookClient

FAKES = {
    FakeDockerEngine: DockerEngine,
    FakeHostRegistry: HostRegistry,
    FakeJobQueue: JobQueue,
    FakeJobService: JobService,
    FakeJobTable: JobTable,
    FakeKeyTable: KeyTable,
    FakePayloadClient: PayloadClient,
    FakePayloadStore: PayloadStore,
    FakePendingJobs: PendingJobs,
    FakeSandbox: Sandbox,
    FakeWebhookClient: WebhookClient,
}
UNUSED = {"ran_out_of_memory"}  # only a real Sandbox calls it


def parameters(method):
    return [
        (each.name, each.kind, each.default, each.annotation) for each in inspect.signature(method).parameters.values()
    ]


def public_methods(cls):
    return {name: method for name, method in vars(cls).items() if inspect.isfunction(method) and name[0] != "_"}


@pytest.mark.parametrize(("fake", "real"), FAKES.items(), ids=[fake.__name__ for fake in FAKES])
def test_fake_has_the_methods_of_the_real_class(fake, real):
    expected = {name: parameters(method) for name, method in public_methods(real).items() if name not in UNUSED}
    actual = {name: parameters(method) for name, method in public_methods(fake).items()}
    assert {name: actual.get(name) for name in expected} == expected
