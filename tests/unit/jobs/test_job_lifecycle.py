"""Random sequences of requests, replies and deletions keep the guarantees of accepted jobs.

Unlike in test_delivery_guarantees.py only processes fail, so the sequences are longer and the rules exact.
"""

from collections import Counter, defaultdict
from contextlib import contextmanager

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace

from chalicelib import problems
from chalicelib.access.load_shedding import QueueLoad
from chalicelib.access.plans import PLANS
from chalicelib.contract import Failure, FailureReason, pack
from chalicelib.jobs.job_results import JobResults
from chalicelib.jobs.submission import RunRequest
from chalicelib.jobs.submit import JobService, PendingJob
from chalicelib.problems import ProblemError
from tests.support.fakes.payloads import FakePayloadStore
from tests.support.fakes.tables import FakeJobTable, FakePendingJobs
from tests.support.records import make_result, make_submission

PLAN = replace(PLANS["free"], max_pending_jobs=3)
KEY_ID = "key"
RETENTION_S = 86_400  # longer than any sequence
EXPECTED_PROBLEMS = {
    problems.TOO_MANY_PENDING_JOBS.uri,
    problems.OVERLOADED.uri,
    problems.JOB_EXPIRED_OR_DELETED.uri,
    problems.IDEMPOTENCY_KEY_REUSED.uri,
}


class ProcessDiedError(BaseException):
    """The process of a request ends while it waits."""


class JobLifecycle(RuleBasedStateMachine):
    """A JobService with tables in memory. This object is its admission, dispatcher and reply queues."""

    url = "http://queue/reply"

    def __init__(self):
        super().__init__()
        self.now = 1_794_000_000.5
        self.table, self.pending_jobs, self.payloads = FakeJobTable(), FakePendingJobs(), FakePayloadStore()
        self.results = JobResults(
            self.table,
            pending_jobs=self.pending_jobs,
            payloads=self.payloads,
            enqueue_webhook=lambda _: None,
            clock=lambda: self.now,
        )
        self.jobs = JobService(
            self.table,
            admission=self,
            pending_jobs=self.pending_jobs,
            dispatcher=self,
            reply_queues=self,
            results=self.results,
            payloads=self.payloads,
            result_retention_s=RETENTION_S,
            clock=lambda: self.now,
            sleep=self.advance,
        )
        self.sent = []  # each job as often as it was sent
        self.sender, self.fate = None, None  # of the current request
        self.answered, self.charged = set(), Counter()  # by sender
        self.accepted, self.deleted, self.replied = {}, set(), set()  # by job; in the order of acceptance
        self.seen = defaultdict(set)  # replies that customers received, by job

    def charge(self, caller, *, runs=1):
        assert caller.record.key_id == KEY_ID
        self.charged[self.sender] += runs

    @contextmanager
    def lease(self, _job_id):
        yield self

    def send(self, job, *, key_id):
        assert key_id == KEY_ID
        self.sent.append(job)

    def wait(self, job_id, *, deadline):  # noqa: ARG002 - the test has a clock of its own
        if self.fate == "dies":
            raise ProcessDiedError
        if self.fate != "in_time":
            self.advance(20)
            if self.fate == "stored":  # by the results queue, before the request accepts its job
                self.results.record_reply(self.new_result(job_id), key_id=KEY_ID)
                self.replied.add(job_id)
            return None
        return self.new_result(job_id)

    def receive(self, _job_id, *, wait_s):
        assert wait_s == 0

    def new_result(self, job_id):
        """Return a result that no other run has."""
        return make_result(job_id, stdout=f"run {len(self.sent)} at {self.now}")

    @rule(seconds=st.sampled_from([0.5, 3, 30, 300]))
    def advance(self, seconds):
        self.now += seconds

    @rule(
        idempotency_key=st.sampled_from([None, "a", "a", "b"]),
        body=st.sampled_from([b"same", b"same", b"same", b"same", b"same", b"other"]),
        fate=st.sampled_from(["dies", "in_time", "late", "stored"]),
        is_async=st.booleans(),
        queue_load=st.sampled_from(QueueLoad),
        wait_s=st.sampled_from([1.0, 20.0]),
    )
    def submit(self, idempotency_key, body, fate, **changes):
        # Without an Idempotency-Key a dead process leaves a job of which no customer knows, and a slot that expires.
        self.fate = "late" if fate == "dies" and idempotency_key is None else fate
        self.sender = f"{idempotency_key} {body}" if idempotency_key else f"request {len(self.sent)} {self.now}"
        submission = make_submission(
            key_id=KEY_ID,
            plan=PLAN,
            request=RunRequest(code="c"),
            idempotency_key=idempotency_key,
            body=body,
            **changes,
        )
        try:
            outcome = self.jobs.submit(submission)
        except ProcessDiedError:
            return
        except ProblemError as error:
            assert error.problem.type in EXPECTED_PROBLEMS  # noqa: PT017 - others must not occur
            return
        self.answered.add(self.sender)
        if isinstance(outcome, PendingJob):
            self.accepted[outcome.job_id] = True
        else:
            self.seen[outcome.id].add(pack(outcome))

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), is_lost=st.booleans())
    def reply(self, data, is_lost):
        job_id = data.draw(st.sampled_from(self.sent)).id
        reply = Failure(id=job_id, reason=FailureReason.HOST_LOST) if is_lost else self.new_result(job_id)
        self.results.record_reply(reply, key_id=KEY_ID)
        self.replied.add(job_id)

    @precondition(lambda self: self.accepted)
    @rule(data=st.data())
    def delete(self, data):
        job_id = data.draw(st.sampled_from(list(self.accepted)))
        self.results.delete(job_id, key_id=KEY_ID)
        self.deleted.add(job_id)

    @precondition(lambda self: self.accepted)
    @rule(data=st.data())
    def get(self, data):
        self.observe(data.draw(st.sampled_from(list(self.accepted))))

    def observe(self, job_id):
        try:
            reply = self.results.get(job_id, key_id=KEY_ID).reply
        except ProblemError as error:
            assert error.problem.type == problems.JOB_EXPIRED_OR_DELETED.uri  # noqa: PT017
            assert job_id in self.deleted
            return
        assert job_id not in self.deleted
        if reply is not None:
            self.seen[job_id].add(reply)

    @invariant()
    def all_responses_agree(self):
        assert [replies for replies in self.seen.values() if len(replies) > 1] == []

    @invariant()
    def each_answered_sender_is_charged_once(self):
        assert [sender for sender in self.answered if self.charged[sender] != 1] == []
        assert max(self.charged.values(), default=0) <= 1

    @invariant()
    def slots_are_limited_and_belong_to_jobs_without_reply(self):
        slots = {job_id for job_id, _ in self.pending_jobs.entries[KEY_ID]}
        assert len(self.pending_jobs.entries[KEY_ID]) <= PLAN.max_pending_jobs
        assert slots & (self.replied | self.seen.keys()) == set()

    def teardown(self):
        for job in self.sent:
            self.results.record_reply(self.new_result(job.id), key_id=KEY_ID)
        for job_id in self.accepted:
            self.observe(job_id)
        assert [job_id for job_id in self.accepted.keys() - self.deleted if len(self.seen[job_id]) != 1] == []
        assert self.pending_jobs.entries[KEY_ID] == {}


# With fewer examples, some wrong versions of submit.py pass.
JobLifecycle.TestCase.settings = settings(max_examples=120, stateful_step_count=25)
TestJobLifecycle = JobLifecycle.TestCase
