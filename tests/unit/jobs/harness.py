"""A JobService with its tables, hosts and payload store in memory."""

import time
from contextlib import contextmanager

from msgspec.structs import replace

from chalicelib.access.plans import PLANS
from chalicelib.jobs.job_results import JobResults
from chalicelib.jobs.submission import RunRequest
from chalicelib.jobs.submit import JobService
from tests.support.fakes.payloads import FakePayloadStore
from tests.support.fakes.tables import FakeJobTable, FakePendingJobs
from tests.support.records import make_result, make_submission

NOW = 1_794_000_000.5
RETENTION_S = 1000
PLAN = replace(PLANS["free"], max_pending_jobs=2)


class FakeHosts:
    """The dispatcher and the reply queues at once: answers with `reply(job)`, where None is late.

    `error` is raised instead of sending. The replies that a request failed to handle are in `redelivered`.
    """

    url = "http://queue/reply"

    def __init__(self):
        self.sent = []
        self.redelivered = []
        self.error = None
        self.lease_error = None
        self.late_reply = None  # is in the queue when it is looked at for the last time
        self.reply = lambda job: make_result(job.id, stdout=f"run {len(self.sent)}")

    @contextmanager
    def lease(self, job_id):
        if self.lease_error:
            raise self.lease_error
        try:
            yield self
        except Exception:
            self.redelivered.append(job_id)
            raise

    def send(self, job, *, key_id):
        if self.error:
            raise self.error
        self.sent.append((job, key_id))

    def wait(self, job_id, *, deadline):
        assert deadline > time.monotonic()
        return self.reply(next(job for job, _ in reversed(self.sent) if job.id == job_id))

    def receive(self, job_id, *, wait_s):
        assert wait_s == 0
        return self.late_reply and self.late_reply(job_id)


class Harness:
    """Everything around a JobService, and a clock that moves only when set, or when the service sleeps."""

    def __init__(self):
        self.now = NOW
        self.table, self.hosts = FakeJobTable(), FakeHosts()
        self.pending_jobs, self.webhooks = FakePendingJobs(), []
        self.payloads = FakePayloadStore()
        self.charges = []  # runs of each request
        self.rejection = None
        self.results = JobResults(
            self.table,
            pending_jobs=self.pending_jobs,
            payloads=self.payloads,
            enqueue_webhook=self.webhooks.append,
            clock=lambda: self.now,
        )
        self.jobs = JobService(
            self.table,
            admission=self,
            pending_jobs=self.pending_jobs,
            dispatcher=self.hosts,
            reply_queues=self.hosts,
            results=self.results,
            payloads=self.payloads,
            result_retention_s=RETENTION_S,
            clock=lambda: self.now,
            sleep=self.sleep,
        )
        self.on_sleep = lambda: None

    def sleep(self, seconds):
        self.now += seconds
        self.on_sleep()

    @property
    def runs_charged(self):
        return sum(self.charges)

    def charge(self, caller, *, runs=1):
        assert caller.plan == PLAN
        if self.rejection:
            raise self.rejection
        self.charges.append(runs)

    def submit(self, **changes):
        return self.jobs.submit(submission(**changes))

    @property
    def only_record(self):
        (record,) = self.table.records.values()
        return record

    def stored_reply(self, job_id):
        return self.results.read_reply(self.results.get(job_id, key_id="key"))

    def slots(self, key_id="key"):
        return self.pending_jobs.entries[key_id]


def submission(**changes):
    members = {
        "request": RunRequest(code="c", input="i", args=("-n", "3"), timeout_s=2.5),
        "plan": PLAN,
        "body": b"body",
    }
    return make_submission(**members | changes)
