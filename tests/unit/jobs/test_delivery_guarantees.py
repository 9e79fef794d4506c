"""Check the delivery guarantees while any call of a request may fail and any process may die.

Every accepted job ends in one result, all responses agree on it, and an Idempotency-Key is charged once. Each request
has its own process. Jobs run late, more than once and in any order.
"""

import itertools
import logging
import threading
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from random import Random

import pytest
from msgspec.structs import replace

from chalicelib import problems
from chalicelib.access.load_shedding import QueueLoad
from chalicelib.access.plans import PLANS
from chalicelib.contract import Failure, Result, pack
from chalicelib.dynamodb import TableError
from chalicelib.jobs.job_results import JobResults
from chalicelib.jobs.pending_jobs import ABANDON_AFTER_S
from chalicelib.jobs.submission import ASYNC_JOB_TTL_S, RunRequest
from chalicelib.jobs.submit import REPLY_GRACE_S, JobService
from chalicelib.problems import ProblemError
from tests.support.fakes.payloads import FakePayloadStore
from tests.support.fakes.tables import FakeJobTable, FakePendingJobs
from tests.support.records import make_result, make_submission

PLAN = replace(PLANS["free"], max_pending_jobs=3)
KEY = "key"  # requests of this sender repeat one another; each other sender makes a request of its own
FIRST_REQUESTS = {"sync": {}, "under_pressure": {"queue_load": QueueLoad.HIGH}, "async": {"is_async": True}}
REPLAYS = {"async": {"is_async": True}, "short_wait": {"wait_s": 1.0}, "long_wait": {"wait_s": 23.0}}
FAULTS = ("dies_before", "dies_after", "fails", "answer_lost")
# A fault in one of these calls, or a death, may leave a claim that was not charged: the job then runs for free.
MAY_LEAVE_UNCHARGED = {"claim", "release_claim"}
# A fault in one of these calls, or a death, may leave a slot that expires.
MAY_LEAK_SLOT = {"claim", "reserve", "release", "replace_if_unchanged"}
MAX_CALLS = 2000  # in a simulation; more are an endless loop
TIMINGS = ((0, False), (6, True), (40, False))  # seconds between requests, and whether finished jobs run again
SEEDS = 300
EXTRA_RUNS_ALLOWED = 1  # beyond those that faults explain, if a repeated request waits less (docs/decisions/009)
DELETED_SHARE = 0.05  # of the jobs


class ProcessDiedError(BaseException):
    """The process of a request ends here."""


class FaultInjector:
    """A collaborator whose calls the simulation may break."""

    def __init__(self, real, world):
        self._real, self._world = real, world

    def __getattr__(self, name):
        act = getattr(self._real, name)
        return lambda *args, **named: self._world.call(name, partial(act, *args, **named), TableError("gone"))


class Simulation:
    """What the processes share: tables, queues, time. Here requests come one after the other."""

    def __init__(self, faults, answered=None):
        self.faults = faults  # by the number of the call
        self.answered = answered  # when, of a job whose process waits
        self.broken, self.errors = [], []  # calls and how, and what nothing should raise
        self.now = 1_794_000_000.5
        self.calls, self.numbers = itertools.count(), itertools.count()
        self.entries, self.payloads = FakePendingJobs(), FakePayloadStore()
        self.table, self.pending_jobs = FaultInjector(FakeJobTable(), self), FaultInjector(self.entries, self)
        self.results = JobResults(
            self.table,
            pending_jobs=self.pending_jobs,
            payloads=self.payloads,
            enqueue_webhook=lambda _: None,
            clock=lambda: self.now,
        )
        self.sent, self.ran, self.processes = [], set(), {}
        self.runs, self.charged, self.answered_senders = Counter(), Counter(), set()  # by sender
        self.accepted, self.deleted, self.replies = set(), set(), defaultdict(set)  # by job

    def spawn(self, act, *args):
        act(*args)

    def pause(self):
        """Before each call."""

    def sleep(self, seconds):
        self.now += seconds

    def call(self, name, act, error=None):
        self.pause()
        number = next(self.calls)
        assert number < MAX_CALLS
        fault = self.faults.get(number, "")
        if not error and not fault.startswith("dies"):
            return act()
        if fault:
            self.broken.append((name, fault))
        if fault == "fails":
            raise error
        if fault == "dies_before":
            raise ProcessDiedError
        result = act()
        if fault == "dies_after":
            raise ProcessDiedError
        if fault == "answer_lost" and name != "charge":  # Admission itself rejects what it charged
            raise error
        return result

    def send_request(self, sender, **changes):
        """Send a request, in a process of its own."""
        submission = make_submission(
            key_id="id",
            plan=PLAN,
            request=RunRequest(code="c", input=sender, timeout_s=1),
            idempotency_key=KEY if sender == KEY else None,
            **changes,
        )
        process = Process(self, sender)
        jobs = JobService(
            self.table,
            admission=process,
            pending_jobs=self.pending_jobs,
            dispatcher=process,
            reply_queues=process,
            results=self.results,
            payloads=self.payloads,
            result_retention_s=86_400,
            clock=lambda: self.now,
            sleep=self.sleep,
        )
        try:
            outcome = jobs.submit(submission)
        except ProblemError:
            return
        except ProcessDiedError:
            process.redeliver()
            return
        self.answered_senders.add(sender)
        if isinstance(outcome, Result | Failure):
            self.replies[outcome.id].add(pack(outcome))
        else:
            self.accepted.add(outcome.job_id)

    def result(self, job):
        self.ran.add(job)
        return make_result(job.id, stdout=f"run {next(self.numbers)}")

    def run(self, job):
        if job.reply_to and self.now <= job.reply_by:
            self.spawn(self.arrive, job.reply_to, self.result(job))
        else:
            self.spawn(self.store, self.result(job), "id")

    def arrive(self, reply_to, reply):
        if reply_to in self.processes:
            self.processes[reply_to].inbox.append(reply)
        else:
            self.store(reply)

    def store(self, reply, key_id=None):
        """Store a reply, which its queue redelivers until that succeeds."""
        while True:
            with suppress(ProcessDiedError, TableError):
                return self.results.record_reply(reply, key_id=key_id)

    def delete(self, job_id):
        self.deleted.add(job_id)
        with suppress(ProblemError, ProcessDiedError):
            self.results.delete(job_id, key_id="id")

    def while_waiting(self, job):
        if self.answered == "in_time" or (self.answered == "in_the_grace" and job.reply_by < self.now):
            self.run(job)

    def violations(self, *, is_run_again, extra_runs=0):
        """Run everything that is left, and return the guarantees that do not hold."""
        self.faults, self.calls = {}, itertools.count()
        for job in [job for job in self.sent if is_run_again or job not in self.ran]:
            if job.reply_to:  # of a process that has exited
                self.store(self.result(job))
            self.store(self.result(job), "id")
        for job_id in self.accepted - self.deleted:
            self.replies[job_id].add(self.results.get(job_id, key_id="id").reply)
        broken, senders = {name for name, _ in self.broken}, self.answered_senders | self.runs.keys()
        died = any(fault.startswith("dies") for _, fault in self.broken)
        slots = [expires_at for _, expires_at in self.entries.entries["id"]]
        uncharged = any(not self.charged[sender] for sender in senders)
        checks = {
            "an exception escaped": bool(self.errors),
            "no result, or different ones": any(len(seen) != 1 or None in seen for seen in self.replies.values()),
            "answered but not sent": bool(self.answered_senders - self.runs.keys()),
            "charged twice": any(self.charged[sender] > 1 for sender in senders),
            "not charged": uncharged and not (died or broken & MAY_LEAVE_UNCHARGED),
            "sent too often": any(runs > 1 + len(self.broken) + extra_runs for runs in self.runs.values()),
            "slot leaked": bool(slots) and not (died or broken & MAY_LEAK_SLOT),
            "slot never expires": any(
                expires_at > self.now + ASYNC_JOB_TTL_S + ABANDON_AFTER_S for expires_at in slots
            ),
        }
        return [violation for violation, is_violated in checks.items() if is_violated]


class Process:
    """Admission and the queues, as the process of one request sees them."""

    def __init__(self, world, sender):
        self.world, self.sender, self.inbox = world, sender, []
        self.url, self.job = None, None

    def charge(self, caller, *, runs=1):
        assert caller.record.key_id == "id"
        error = ProblemError(problems.TOO_MANY_PENDING_JOBS)
        self.world.call("charge", lambda: self.world.charged.update({self.sender: runs}), error)

    @contextmanager
    def lease(self, job_id):  # noqa: ARG002 - as ReplyQueues.lease
        self.url = self.world.call(
            "lease", lambda: f"queue {next(self.world.numbers)}", ProblemError(problems.JOB_QUEUE_UNAVAILABLE)
        )
        self.world.processes[self.url] = self
        try:
            yield self
        except Exception:
            self.redeliver()
            raise
        finally:
            del self.world.processes[self.url]

    def send(self, job, *, key_id):
        def send():
            assert key_id == "id"
            self.world.sent.append(job)
            self.world.runs[job.input] += 1

        self.job = job
        self.world.call("send", send, ProblemError(problems.JOB_QUEUE_UNAVAILABLE))

    def wait(self, job_id, *, deadline):  # noqa: ARG002 - the simulation has a clock of its own
        self.world.call("wait", lambda: None)
        while not self.inbox and self.world.now < self.job.reply_by + REPLY_GRACE_S:
            self.world.sleep(1.0)
            self.world.while_waiting(self.job)
        return self._reply(job_id)

    def receive(self, job_id, *, wait_s):
        assert wait_s == 0
        self.world.call("receive", lambda: None)
        if self.world.answered == "while_accepted":
            self.inbox.append(self.world.result(self.job))
        return self._reply(job_id)

    def _reply(self, job_id):
        assert all(reply.id == job_id for reply in self.inbox)
        return self.inbox[0] if self.inbox else None

    def redeliver(self):
        """Let the replies that this process did not handle be received by another one."""
        for reply in self.inbox:
            self.world.spawn(self.world.store, reply)


class ConcurrentSimulation(Simulation):
    """Requests, hosts and queues take turns, from call to call, as the seed determines."""

    def __init__(self, seed, threads):
        self._threads = threads
        self._random = Random(seed)  # noqa: S311 - so that a run can be repeated
        self._any, number = self._random.choice, self._random.randrange
        super().__init__({number(100): self._any(FAULTS) for _ in range(number(4))})
        self._wakes_at, self._local, self._back, self._spawned = {}, threading.local(), threading.Semaphore(0), []
        self._clients = 0
        for sender, requests in ((KEY, 3), (KEY, 2), (KEY, 2), ("one", 1), ("another", 1)):
            self._clients += 1
            self.spawn(self._client, sender, requests)
        self.spawn(self._hosts)
        while self._wakes_at:
            self.now = max(self.now, min(self._wakes_at.values()))
            self._any([turn for turn, wakes_at in self._wakes_at.items() if wakes_at <= self.now]).release()
            self._back.acquire()
        self.errors = [error for future in self._spawned if (error := future.exception())]

    def spawn(self, act, *args):
        turn = threading.Semaphore(0)
        self._wakes_at[turn] = self.now

        def take_turns():
            self._local.turn = turn
            turn.acquire()
            try:
                act(*args)
            finally:
                del self._wakes_at[turn]
                self._back.release()

        self._spawned.append(self._threads.submit(take_turns))

    def sleep(self, seconds):
        if self._wakes_at:
            self._wakes_at[self._local.turn] = self.now + seconds
            self._back.release()
            self._local.turn.acquire()

    def pause(self):
        self.sleep(self._any((0, 0, 0.1)))

    def arrive(self, reply_to, reply):
        self.sleep(self._any((0, 1, 4)))
        super().arrive(reply_to, reply)

    def _client(self, sender, requests):
        for _ in range(requests):
            self.send_request(sender, **self._any([*FIRST_REQUESTS.values(), *REPLAYS.values()]))
            self.sleep(self._any((0, 0.3, self._random.uniform(0, 30))))
        self._clients -= 1

    def _hosts(self):
        while self._clients:
            self.sleep(self._any((0.1, 2, 8)))
            if self.sent:
                job = self._any(self.sent)
                self.run(job)
                if self._random.random() < DELETED_SHARE:
                    self.delete(job.id)


@pytest.fixture(autouse=True)
def _silence():
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("answered", ["in_time", "in_the_grace", "while_accepted", "later"])
@pytest.mark.parametrize("sender", [KEY, "other"])
@pytest.mark.parametrize("first", FIRST_REQUESTS)
def test_single_fault_at_any_call_preserves_guarantees(first, sender, answered):
    violations = {}
    for fault, replay, (gap_s, is_run_again) in itertools.product(FAULTS, REPLAYS, TIMINGS):
        for number in itertools.count():
            world = Simulation({number: fault}, answered)
            for request, changes in enumerate((FIRST_REQUESTS[first], REPLAYS[replay], REPLAYS["async"])):
                world.send_request(sender if sender == KEY else f"{sender} {request}", **changes)
                world.sleep(gap_s)
            calls = next(world.calls)
            if violated := world.violations(is_run_again=is_run_again):
                violations[replay, gap_s, is_run_again, *world.broken] = violated
            if number >= calls:
                break
    assert violations == {}


def test_faults_under_concurrency_preserve_guarantees():
    violations = {}
    with ThreadPoolExecutor(64) as threads:
        for seed in range(SEEDS):
            world = ConcurrentSimulation(seed, threads)
            if violated := world.violations(is_run_again=seed % 2 == 0, extra_runs=EXTRA_RUNS_ALLOWED):
                violations[seed, *world.broken] = violated
    assert violations == {}
