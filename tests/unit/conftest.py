import logging

import app as api
import pytest

from chalicelib.admission import Admission
from chalicelib.logs import JsonFormatter
from chalicelib.overload import Overload
from tests.fakes import KEY, FakeDispatcher, FakeKeyTable, FakeSqs, record_of


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
    return FakeKeyTable(record_of(KEY, plan="internal"))


@pytest.fixture
def dispatcher(monkeypatch, table, sqs, job_queue_url):
    """What the API of the test hands its jobs to; of its service only this, the table and the queue are fakes."""
    fake = FakeDispatcher()
    overload = Overload(sqs, job_queue_url=job_queue_url, max_depth=2)
    service = api.Service(admission=Admission(table, sleep=lambda _: None), overload=overload, dispatcher=fake)
    monkeypatch.setattr(api, "service", lambda: service)
    return fake


@pytest.fixture
def log_lines():
    """What the API writes to its log, as written."""

    class Lines(logging.Handler):
        def emit(self, record):
            lines.append(self.format(record))

    lines, handler = [], Lines()
    handler.setFormatter(JsonFormatter())
    api.app.log.addHandler(handler)
    yield lines
    api.app.log.removeHandler(handler)
