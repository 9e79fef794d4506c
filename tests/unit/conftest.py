import contextlib
import logging

import app as api
import pytest
from hypothesis import settings

from chalicelib.access.admission import Admission
from chalicelib.access.load_shedding import LoadShedder
from chalicelib.fleet.health import Health
from chalicelib.jobs.job_results import Results
from chalicelib.jobs.reply_queue import ReplyQueue
from chalicelib.telemetry.logs import JsonFormatter
from tests.support.fakes.job_service import FakeJobs
from tests.support.fakes.sqs import FakeSqs
from tests.support.fakes.tables import FakeHostRegistry, FakeJobTable, FakeKeyTable, FakeWaitingJobs
from tests.support.records import KEY, make_key_record

# The same examples in every run, on every machine: a failure is reproducible, and no run is unlucky.
settings.register_profile("deterministic", derandomize=True, deadline=None, print_blob=False)
settings.load_profile("deterministic")


class RecordingHandler(logging.Handler):
    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        self.records.append(record)


@pytest.fixture
def log_records():
    """What the API's loggers, which do not propagate to pytest's, are told during the test."""
    handler = RecordingHandler()
    loggers = [logging.getLogger(name) for name in ("chalicelib", "python-exec")]
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
def table():
    return FakeKeyTable(make_key_record(KEY, plan="internal"))


@pytest.fixture
def job_table():
    return FakeJobTable()


@pytest.fixture
def hosts():
    return FakeHostRegistry()


@pytest.fixture
def service(table, sqs, job_queue_url, job_table, hosts):
    """What the API of the test works with: its jobs, tables and queues are fakes."""
    results = Results(job_table, waiting=FakeWaitingJobs(), webhooks=None)
    return api.Service(
        admission=Admission(table, sleep=lambda _: None),
        load_shedder=LoadShedder(sqs, job_queue_url=job_queue_url, max_depth=2),
        jobs=FakeJobs(),
        results=results,
        replies=ReplyQueue(sqs, polls=sqs, prefix="python-exec-reply-", settle_late=results.settle),
        webhooks=None,
        housekeeping=None,
        hosts=hosts,
        health=Health(sqs, job_queue_url=job_queue_url, hosts=hosts),
        default_wait_s=20.0,
        allow_local_webhooks=False,
    )


@pytest.fixture
def jobs(monkeypatch, service):
    """Where the API of the test submits its orders."""
    monkeypatch.setattr(api, "service", lambda: service)
    return service.jobs


@contextlib.contextmanager
def lines_of(logger_name):
    class Lines(logging.Handler):
        def emit(self, record):
            lines.append(self.format(record))

    lines, handler, logger = [], Lines(), logging.getLogger(logger_name)
    handler.setFormatter(JsonFormatter())
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)


@pytest.fixture
def log_lines():
    """What the API's routes write to its log, as written."""
    with lines_of("python-exec") as lines:
        yield lines


@pytest.fixture
def module_log_lines():
    """The same of the modules that the routes call."""
    with lines_of("chalicelib") as lines:
        yield lines
