import logging

import pytest


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
