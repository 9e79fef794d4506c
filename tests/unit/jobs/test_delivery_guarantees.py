"""Whatever dies or fails at whatever call: who was promised a result gets it, and all are told the same and pay once.

Each request has a process of its own. What was sent is run late, more than once and in any order.
"""

import itertools
import logging
import threading
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from random import Random

import pytest
from msgspec.structs import replace

from chalicelib import problems
from chalicelib.access.plans import PLANS
from chalicelib.api.run_request import RunRequest
from chalicelib.contract import encode
from chalicelib.jobs.dispatcher import REPLY_GRACE_S
from chalicelib.jobs.job_results import SETTLED_AFTER_S, Results
from chalicelib.jobs.job_table import JobRecord, JobTableError
from chalicelib.jobs.submission import ASYNC_LIFE_S, Order
from chalicelib.jobs.submit import Jobs
from chalicelib.problems import ProblemError
from tests.support.fakes.tables import FakeJobTable, FakeWaitingJobs
from tests.support.records import make_result

PLAN = replace(PLANS["free"], max_pending_jobs=3)
KEY = "key"  # who asks under it repeats the request, anybody else makes another one
FIRST = {"waited_for": {}, "counted": {"is_counted": True}, "async": {"is_async": True}}
AGAIN = {"async": {"is_async": True}, "short_wait": {"wait_s": 1.0}, "long_wait": {"wait_s": 25.0}}
FAULTS = ("dies_before", "dies_after", "fails", "answer_lost")
UNPAID = {"claim", "unclaim"}  # a fault here, or a death, may leave a claim that is not paid for: it runs for nothing
UNRELEASED = {"claim", "add", "remove", "replace"}  # a fault here, or a death, may leave a count that ends by itself
MOST_CALLS = 2000  # in a world; more are a loop without an end
PACES = ((0, False), (6, True), (40, False))  # seconds between requests, and whether what was run is run again
SEEDS = 300
IMPATIENT = 1  # run more than the faults explain, for all who repeat with a shorter wait (docs/decisions/009)
FORGOTTEN = 0.05  # of the jobs, by their customers


class DiedError(BaseException):
    """The process of a request ends here."""


class Breakable:
    """A collaborator whose calls the world may break."""

    def __init__(self, real, world):
        self._real, self._world = real, world

    def __getattr__(self, name):
        act = getattr(self._real, name)
        return lambda *args, **named: self._world.call(name, partial(act, *args, **named), JobTableError("gone"))


class World:
    """What the processes share: tables, queues, time. Here one request comes after the other."""

    def __init__(self, faults, answered=None):
        self.faults = faults  # by the number of the call
        self.answered = answered  # when, of a job whose process waits
        self.broken, self.errors = [], []  # calls and how, and what nothing should raise
        self.now = 1_794_000_000.5
        self.calls, self.numbers = itertools.count(), itertools.count()
        self.entries = FakeWaitingJobs()
        self.table, self.waiting = Breakable(FakeJobTable(), self), Breakable(self.entries, self)
        self.results = Results(self.table, waiting=self.waiting, webhooks=None, clock=lambda: self.now)
        self.sent, self.ran, self.processes = [], set(), {}
        self.runs, self.paid, self.accepted = Counter(), Counter(), set()  # by who asked
        self.promised, self.forgotten, self.replies = set(), set(), defaultdict(set)  # by job

    def begin(self, act, *args):
        act(*args)

    def pause(self):
        """Before each call."""

    def sleep(self, seconds):
        self.now += seconds

    def call(self, name, act, error=None):
        self.pause()
        number = next(self.calls)
        assert number < MOST_CALLS
        fault = self.faults.get(number, "")
        if not error and not fault.startswith("dies"):
            return act()
        if fault:
            self.broken.append((name, fault))
        if fault == "fails":
            raise error
        if fault == "dies_before":
            raise DiedError
        done = act()
        if fault == "dies_after":
            raise DiedError
        if fault == "answer_lost" and name != "admit":  # Admission's: what is refused though it was paid for
            raise error
        return done

    def ask(self, payer, **changes):
        """A request, in a process of its own."""
        request, key = RunRequest(code="c", input=payer, timeout_s=1), KEY if payer == KEY else None
        order = Order(request=request, key_id="id", plan=PLAN, idempotency_key=key, **{"wait_s": 20.0} | changes)
        hosts, clock = Process(self), lambda: self.now
        told = {"hosts": hosts, "waiting": self.waiting, "results": self.results, "clock": clock, "sleep": self.sleep}

        def admit(*, runs):
            self.call("admit", lambda: self.paid.update({payer: runs}), ProblemError(problems.TOO_MANY_PENDING_JOBS))

        try:
            answer = Jobs(self.table, result_retention_s=86_400, **told).submit(order, admit=admit)
        except ProblemError:
            return
        except DiedError:
            hosts.leave()
            return
        self.accepted.add(payer)
        is_stored = isinstance(answer, JobRecord)
        job_id, reply = (answer.job_id, answer.reply) if is_stored else (answer.id, encode(answer))
        if reply is not None:
            self.replies[job_id].add(reply)
        else:
            assert not answer.forgotten
            self.promised.add(job_id)

    def result(self, job):
        self.ran.add(job)
        return make_result(job.id, stdout=f"run {next(self.numbers)}")

    def run(self, job):
        if job.reply_to and self.now <= job.reply_by:
            self.begin(self.arrive, job.reply_to, self.result(job))
        else:
            self.begin(self.store, self.result(job), "id")

    def arrive(self, reply_to, reply):
        if reply_to in self.processes:
            self.processes[reply_to].inbox.append(reply)
        else:
            self.store(reply)

    def store(self, reply, key_id=None):
        """What a queue brings comes until it is taken."""
        while True:
            with suppress(DiedError, JobTableError):
                return self.results.settle(reply, key_id=key_id)

    def forget(self, job_id):
        self.forgotten.add(job_id)
        with suppress(ProblemError, DiedError):
            self.results.forget(job_id, key_id="id")

    def while_waited_for(self, job):
        if self.answered == "in_time" or (self.answered == "in_the_grace" and job.reply_by < self.now):
            self.run(job)

    def wrong(self, *, is_run_again, impatient=0):
        """What does not hold when all was run."""
        self.faults, self.calls = {}, itertools.count()
        for job in [job for job in self.sent if is_run_again or job not in self.ran]:
            if job.reply_to:  # for a process that is gone
                self.store(self.result(job))
            self.store(self.result(job), "id")
        for job_id in self.promised - self.forgotten:
            self.replies[job_id].add(self.results.get(job_id, key_id="id").reply)
        broken, who = {name for name, _ in self.broken}, self.accepted | self.runs.keys()
        died = any(fault.startswith("dies") for _, fault in self.broken)
        left = [until for _, until in self.entries.entries["id"]]
        checks = {
            "raised": bool(self.errors),
            "no result, or another one": any(len(told) != 1 or None in told for told in self.replies.values()),
            "answered but not sent": bool(self.accepted - self.runs.keys()),
            "paid twice": any(self.paid[payer] > 1 for payer in who),
            "not paid": any(not self.paid[payer] for payer in who) and not (died or broken & UNPAID),
            "sent too often": any(runs > 1 + len(self.broken) + impatient for runs in self.runs.values()),
            "still counted": bool(left) and not (died or broken & UNRELEASED),
            "counted for ever": any(until > self.now + ASYNC_LIFE_S + SETTLED_AFTER_S for until in left),
        }
        return [what for what, is_so in checks.items() if is_so]


class Process:
    """The queues as the process of one request sees them."""

    def __init__(self, world):
        self.world, self.inbox = world, []

    def reply_to(self):
        return self.world.call(
            "reply_to", lambda: f"queue {next(self.world.numbers)}", ProblemError(problems.JOB_QUEUE_UNAVAILABLE)
        )

    def send(self, job, *, key_id):
        def send():
            assert key_id == "id"
            self.world.sent.append(job)
            self.world.runs[job.input] += 1

        self.world.call("send", send, ProblemError(problems.JOB_QUEUE_UNAVAILABLE))

    def run(self, job, *, key_id, if_late):
        self.world.processes[job.reply_to] = self
        try:
            self.send(job, key_id=key_id)
            self.world.call("wait", lambda: None)
            while not self.inbox and self.world.now < job.reply_by + REPLY_GRACE_S:
                self.world.sleep(1.0)
                self.world.while_waited_for(job)
            if not self.inbox:
                if_late()
                self.world.call("arrived", lambda: None)
                if self.world.answered == "while_promised":
                    self.inbox.append(self.world.result(job))
        except (ProblemError, JobTableError):  # the wait is over
            self.leave()
            raise
        finally:
            del self.world.processes[job.reply_to]
        return self.inbox[0] if self.inbox else None

    def put_back(self, job_id):
        assert job_id == self.inbox[0].id
        self.leave()

    def leave(self):
        """What came here and was not taken care of comes again to somebody else."""
        for reply in self.inbox:
            self.world.begin(self.world.store, reply)


class Crowd(World):
    """Requests, hosts and queues take turns, from call to call, as the seed says."""

    def __init__(self, seed, threads):
        self._threads = threads
        self._random = Random(seed)  # noqa: S311 - so that a run can be repeated
        self._any, number = self._random.choice, self._random.randrange
        super().__init__({number(100): self._any(FAULTS) for _ in range(number(4))})
        self._wakes_at, self._mine, self._back, self._begun = {}, threading.local(), threading.Semaphore(0), []
        self._customers = 0
        for payer, requests in ((KEY, 3), (KEY, 2), (KEY, 2), ("anybody", 1), ("somebody", 1)):
            self._customers += 1
            self.begin(self._customer, payer, requests)
        self.begin(self._hosts)
        while self._wakes_at:
            self.now = max(self.now, min(self._wakes_at.values()))
            self._any([turn for turn, at in self._wakes_at.items() if at <= self.now]).release()
            self._back.acquire()
        self.errors = [error for turns in self._begun if (error := turns.exception())]

    def begin(self, act, *args):
        turn = threading.Semaphore(0)
        self._wakes_at[turn] = self.now

        def take_turns():
            self._mine.turn = turn
            turn.acquire()
            try:
                act(*args)
            finally:
                del self._wakes_at[turn]
                self._back.release()

        self._begun.append(self._threads.submit(take_turns))

    def sleep(self, seconds):
        if self._wakes_at:
            self._wakes_at[self._mine.turn] = self.now + seconds
            self._back.release()
            self._mine.turn.acquire()

    def pause(self):
        self.sleep(self._any((0, 0, 0.1)))

    def arrive(self, reply_to, reply):
        self.sleep(self._any((0, 1, 4)))
        super().arrive(reply_to, reply)

    def _customer(self, payer, requests):
        for _ in range(requests):
            self.ask(payer, **self._any([*FIRST.values(), *AGAIN.values()]))
            self.sleep(self._any((0, 0.3, self._random.uniform(0, 30))))
        self._customers -= 1

    def _hosts(self):
        while self._customers:
            self.sleep(self._any((0.1, 2, 8)))
            if self.sent:
                job = self._any(self.sent)
                self.run(job)
                if self._random.random() < FORGOTTEN:
                    self.forget(job.id)


@pytest.fixture(autouse=True)
def _silence():
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("answered", ["in_time", "in_the_grace", "while_promised", "later"])
@pytest.mark.parametrize("payer", [KEY, "anybody"])
@pytest.mark.parametrize("first", FIRST)
def test_single_fault_at_any_call_preserves_guarantees(first, payer, answered):
    wrong = {}
    for fault, again, (gap_s, is_run_again) in itertools.product(FAULTS, AGAIN, PACES):
        for number in itertools.count():
            world = World({number: fault}, answered)
            for request, changes in enumerate((FIRST[first], AGAIN[again], AGAIN["async"])):
                world.ask(payer if payer == KEY else f"{payer} {request}", **changes)
                world.sleep(gap_s)
            calls = next(world.calls)
            if found := world.wrong(is_run_again=is_run_again):
                wrong[again, gap_s, is_run_again, *world.broken] = found
            if number >= calls:
                break
    assert wrong == {}


def test_faults_under_concurrency_preserve_guarantees():
    wrong = {}
    with ThreadPoolExecutor(64) as threads:
        for seed in range(SEEDS):
            crowd = Crowd(seed, threads)
            if found := crowd.wrong(is_run_again=seed % 2 == 0, impatient=IMPATIENT):
                wrong[seed, *crowd.broken] = found
    assert wrong == {}
