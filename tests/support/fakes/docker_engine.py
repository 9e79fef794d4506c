"""Fake the Docker Engine of an agent and its sandboxes."""

import itertools
import threading
import time
from collections.abc import Sequence

from chalicelib.contract import OutputBytes, ResourceUsage, Status
from chalicelib.runtimes import RUNTIMES
from executor_host.channel import SandboxError
from executor_host.engine_versions import FLOORS, ComponentVersion
from executor_host.sandbox import Outcome


class FakeSandbox:
    """Echo each program: code as stdout, stdin as stderr. `outcome` replaces the echo, or is raised if an exception."""

    def __init__(self, number: int, engine: "FakeDockerEngine", outcome: Outcome | Exception | None = None) -> None:
        self.id = f"container-{number}"
        self.runtime = engine.runtime
        self.python_version = "3.13"
        self.alive = True
        self.ran: list[tuple[str, str, tuple[str, ...], float]] = []
        self._engine = engine
        self._outcome = outcome

    def is_ready(self) -> bool:
        return self.alive

    def run(self, code: str, stdin: str, *, timeout_s: float, args: Sequence[str] = ()) -> Outcome:
        if not self.alive:
            raise SandboxError("the sandbox is dead or was used before")
        self.ran.append((code, stdin, tuple(args), timeout_s))
        self.destroy()
        if isinstance(self._outcome, Exception):
            raise self._outcome
        usage = ResourceUsage(duration_ms=1, cpu_ms=0, memory_bytes=0, queued_ms=0)
        return self._outcome or Outcome(
            status=Status.OK,
            exit_code=0,
            stdout=code,
            stderr=stdin,
            output_bytes=OutputBytes(stdout=0, stderr=0),
            usage=usage,
        )

    def destroy(self) -> None:
        self.alive = False
        self._engine.remove(self.id)


class FakeDockerEngine:
    """Keep containers in memory. `outcomes` go to the next sandboxes; every call fails while `failing` is true."""

    def __init__(self) -> None:
        self.runtime = RUNTIMES["python"]
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self.created_at: dict[str, float] = {}  # creation time of each existing container
        self.started: list[FakeSandbox] = []
        self.outcomes: list[Outcome | Exception | None] = []
        self.failing = False
        self.component_versions = {
            name: ComponentVersion(".".join(map(str, floor)), "") for name, floor in FLOORS.items()
        }
        self.starting = 0
        self.max_concurrent_starts = 0
        self.start_delay_s = 0.0

    def start_sandbox(self) -> FakeSandbox:
        with self._lock:
            self.starting += 1
            self.max_concurrent_starts = max(self.max_concurrent_starts, self.starting)
        time.sleep(self.start_delay_s)
        with self._lock:
            self.starting -= 1
            self._check()
            sandbox = FakeSandbox(next(self._numbers), self, self.outcomes.pop(0) if self.outcomes else None)
            self.created_at[sandbox.id] = time.time()
            self.started.append(sandbox)
            return sandbox

    def versions(self) -> dict[str, ComponentVersion]:
        self._check()
        return self.component_versions

    def containers(self) -> list[tuple[str, float]]:
        self._check()
        return list(self.created_at.items())

    def remove(self, container_id: str) -> None:
        if not self.failing:
            self.created_at.pop(container_id, None)

    def _check(self) -> None:
        if self.failing:
            raise SandboxError("no engine")
