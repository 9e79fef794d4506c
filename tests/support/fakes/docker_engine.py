"""Fake the Docker engine of an agent and its sandboxes."""

import itertools
import threading
import time

from chalicelib.contract import Status
from executor_host.channel import SandboxError
from executor_host.sandbox import Outcome


class FakeSandbox:
    """Answers every program with itself; `outcome` may be an Outcome, or an exception to raise."""

    def __init__(self, number, engine, outcome=None):
        self.id = f"container-{number}"
        self.runtime = "python 3.13"
        self.alive = True
        self.ran = []
        self._engine = engine
        self._outcome = outcome

    def is_waiting(self):
        return self.alive

    def run(self, code, text, *, timeout_s):
        if not self.alive:
            raise SandboxError("it died before, or has run its one job")
        self.ran.append((code, text, timeout_s))
        self.destroy()
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome or Outcome(status=Status.OK, exit_code=0, stdout=code, stderr=text, duration_ms=1)

    def destroy(self):
        self.alive = False
        self._engine.remove(self.id)


class FakeEngine:
    """Containers in memory. `outcomes` are those of the next sandboxes; `failing` makes every call fail."""

    def __init__(self):
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self.created_at = {}  # of the containers that there are
        self.started = []
        self.outcomes = []
        self.failing = False
        self.starting = 0
        self.most_starting = 0
        self.start_takes_s = 0.0

    def start(self):
        with self._lock:
            self.starting += 1
            self.most_starting = max(self.most_starting, self.starting)
        time.sleep(self.start_takes_s)
        with self._lock:
            self.starting -= 1
            self._check()
            sandbox = FakeSandbox(next(self._numbers), self, self.outcomes.pop(0) if self.outcomes else None)
            self.created_at[sandbox.id] = time.time()
            self.started.append(sandbox)
            return sandbox

    def containers(self):
        self._check()
        return list(self.created_at.items())

    def remove(self, container_id):
        if not self.failing:
            self.created_at.pop(container_id, None)

    def _check(self):
        if self.failing:
            raise SandboxError("no engine")
