"""Fake the Docker Engine of an agent and its sandboxes."""

import itertools
import threading
import time
from collections.abc import Callable, Sequence

from msgspec import structs

from chalicelib.contract import (
    SINGLE_RUN_LIMITS,
    Artifact,
    InputFile,
    OutputBytes,
    OutputLimits,
    Run,
    RunUsage,
    Status,
)
from chalicelib.runtimes import RUNTIMES
from executor_host.channel import SandboxError
from executor_host.engine_versions import FLOORS, ComponentVersion
from executor_host.outcome import Outcome
from executor_host.sandbox import Program


def make_outcome(*, status: Status = Status.OK, stdout: str = "", stderr: str = "") -> Outcome:
    """Return the outcome of a program that used little."""
    return Outcome(
        status=status,
        exit_code=0 if status is Status.OK else 1,
        stdout=stdout,
        stderr=stderr,
        output_bytes=OutputBytes(stdout=0, stderr=0),
        usage=RunUsage(duration_ms=1, cpu_ms=0, memory_bytes=0),
    )


Script = Outcome | Exception | None  # None: the echo


class FakeSandbox:
    """Echo each program: code as stdout, stdin as stderr, files that are patterns too as artifacts.

    `script` has what its runs return, or raise, instead.
    """

    def __init__(self, number: int, engine: "FakeDockerEngine", script: Sequence[Script] = ()) -> None:
        self.id = f"container-{number}"
        self.runtime = engine.runtime
        self.python_version = "3.13"
        self.alive = True
        self.cpu_demand = 1.0
        self.ran: list[tuple[str, str, tuple[str, ...], float]] = []
        self._engine = engine
        self._script = list(script)

    def is_ready(self) -> bool:
        return self.alive and not self.ran

    @property
    def is_closed(self) -> bool:
        return not self.alive

    def run(
        self,
        code: str,
        stdin: str,
        *,
        timeout_s: float,
        args: Sequence[str] = (),
        files: Sequence[InputFile] = (),
        artifacts: Sequence[str] = (),
    ) -> Outcome:
        program = Program(code=code, files=tuple(files), artifacts=tuple(artifacts))
        return self.run_next(program, Run(input=stdin, args=tuple(args)), timeout_s=timeout_s)

    def run_next(
        self,
        program: Program,
        run: Run,
        *,
        timeout_s: float,
        limits: OutputLimits = SINGLE_RUN_LIMITS,  # noqa: ARG002 - the fake's output is short
        is_last: bool = True,
    ) -> Outcome:
        if not self.alive:
            raise SandboxError("the sandbox is dead or was used before")
        self.ran.append((program.code, run.input, run.args, timeout_s))
        self._engine.on_run()
        outcome = self._script.pop(0) if self._script else None
        if is_last or isinstance(outcome, Exception):
            self.destroy()
        if isinstance(outcome, Exception):
            raise outcome
        artifacts = tuple(
            Artifact(path=file.path, content=file.content) for file in program.files if file.path in program.artifacts
        )
        return outcome or structs.replace(make_outcome(stdout=program.code, stderr=run.input), artifacts=artifacts)

    def destroy(self) -> None:
        self.alive = False
        self._engine.remove(self.id)


class FakeDockerEngine:
    """Keep containers in memory. `outcomes` go to the next sandboxes; every call fails while `failing` is true.

    An outcome is that of the first run of a sandbox, or a list of the outcomes of its runs.
    """

    def __init__(self) -> None:
        self.runtime = RUNTIMES["python"]
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self.created_at: dict[str, float] = {}  # creation time of each existing container
        self.started: list[FakeSandbox] = []
        self.outcomes: list[Script | list[Script]] = []
        self.on_run: Callable[[], object] = lambda: None
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
            script = self.outcomes.pop(0) if self.outcomes else []
            sandbox = FakeSandbox(next(self._numbers), self, script if isinstance(script, list) else [script])
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
