import logging
from types import SimpleNamespace

import app as api
import pytest
from hypothesis import settings
from msgspec.structs import replace

from chalicelib.access.admission import Admission
from chalicelib.access.load_shedding import LoadShedder
from chalicelib.fleet.health import Health
from chalicelib.jobs.dispatcher import JobDispatcher
from chalicelib.jobs.job_results import JobResults
from chalicelib.jobs.reply_queue import ReplyQueues
from chalicelib.jobs.submit import JobService
from chalicelib.telemetry.logs import JsonFormatter
from tests.support.fakes.job_service import FakeJobService
from tests.support.fakes.payloads import FakePayloadStore
from tests.support.fakes.sqs import FakeSqs
from tests.support.fakes.tables import FakeHostRegistry, FakeJobTable, FakeKeyTable, FakePendingJobs
from tests.support.records import KEY, make_key_record

# The same examples in each run, and no time limit: the machine may be busy.
settings.register_profile("unit", max_examples=50, derandomize=True, deadline=None, database=None)
settings.load_profile("unit")

LOGGERS = ("chalicelib", "python-exec")


class RecordingHandler(logging.Handler):
    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        self.records.append(record)


@pytest.fixture
def log_records():
    """Records of the API's loggers, which do not propagate to pytest's."""
    handler = RecordingHandler()
    loggers = [logging.getLogger(name) for name in LOGGERS]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    yield handler.records
    for logger in loggers:
        logger.removeHandler(handler)


@pytest.fixture
def sqs():
    return FakeSqs()


@pytest.fixture
def job_queue_url(sqs):
    return sqs.create_queue(QueueName="jobs", Attributes={})["QueueUrl"]


@pytest.fixture
def data_job_queue_url(sqs):
    return sqs.create_queue(QueueName="data-jobs", Attributes={})["QueueUrl"]


@pytest.fixture
def job_queue_urls(job_queue_url, data_job_queue_url):
    return {"python": job_queue_url, "data": data_job_queue_url}


@pytest.fixture
def table():
    return FakeKeyTable(make_key_record(KEY, plan="internal"))


@pytest.fixture
def job_table():
    return FakeJobTable()


@pytest.fixture
def hosts():
    return FakeHostRegistry()


@pytest.fixture
def components(table, sqs, job_queue_urls, job_table, hosts):
    """Components of the API whose jobs, tables and queues are fakes."""
    admission, payloads = Admission(table), FakePayloadStore()
    results = JobResults(job_table, pending_jobs=FakePendingJobs(), payloads=payloads, enqueue_webhook=lambda _: None)
    return api.Components(
        admission=admission,
        load_shedders={
            runtime: LoadShedder(sqs, job_queue_url=url, max_depth=2) for runtime, url in job_queue_urls.items()
        },
        jobs=FakeJobService(admission),
        results=results,
        reply_queues=ReplyQueues(
            sqs, long_poll_sqs=sqs, prefix="python-exec-reply-", on_late_reply=results.record_reply
        ),
        reply_queue_cleanup=None,
        webhooks=None,
        hosts=hosts,
        health=Health(sqs, job_queue_urls=job_queue_urls, hosts=hosts),
        canary=None,
        default_wait_s=20.0,
        local_webhook_ports=frozenset(),
    )


@pytest.fixture
def jobs(monkeypatch, components):
    """The service that the API of the test submits to."""
    monkeypatch.setattr(api, "components", lambda: components)
    return components.jobs


@pytest.fixture
def job_service(monkeypatch, components, sqs, job_queue_urls, job_table):
    """Let the API of the test use a real JobService, with its table and slots in memory."""
    pending_jobs, payloads = FakePendingJobs(), components.results.payloads
    service = JobService(
        job_table,
        admission=components.admission,
        pending_jobs=pending_jobs,
        dispatcher=JobDispatcher(sqs, job_queue_urls=job_queue_urls, payloads=payloads),
        reply_queues=components.reply_queues,
        results=components.results,
        payloads=payloads,
        result_retention_s=86_400,
    )
    with_service = replace(components, jobs=service)
    monkeypatch.setattr(api, "components", lambda: with_service)
    return SimpleNamespace(
        payloads=payloads,
        table=job_table,
        pending_jobs=pending_jobs,
        calls=lambda: job_table.calls + pending_jobs.calls,
    )


@pytest.fixture
def log_lines():
    """The lines of the API's log, as written."""

    class Lines(logging.Handler):
        def emit(self, record):
            lines.append(self.format(record))

    lines, handler = [], Lines()
    handler.setFormatter(JsonFormatter())
    for name in LOGGERS:
        logging.getLogger(name).addHandler(handler)
    yield lines
    for name in LOGGERS:
        logging.getLogger(name).removeHandler(handler)
