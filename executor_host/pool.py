"""Keeps sandboxes warm, so that no customer waits for a container to start. The agent takes them, one for each job."""

import logging
import time
from collections import deque
from collections.abc import Iterable
from threading import Condition, Thread
from typing import Final, Protocol

from executor_host import metrics
from executor_host.channel import SandboxError
from executor_host.sandbox import Outcome

CHECK_EVERY_S: Final = 0.5  # how long a sandbox that died while it waited can go unnoticed
SWEEP_EVERY_S: Final = 30.0
UNKNOWN_FOR_S: Final = 60.0  # above any start of a sandbox: an older container that nobody knows is a leftover
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 2.0  # between attempts to start sandboxes while the engine is gone

logger = logging.getLogger(__name__)


class WarmSandbox(Protocol):
    """What the pool and the agent need of sandbox.Sandbox."""

    id: str
    runtime: str

    def is_waiting(self) -> bool:
        """Whether it is there and ready."""

    def run(self, code: str, text: str, *, timeout_s: float) -> Outcome:
        """Run one program and destroy the sandbox."""

    def destroy(self) -> None:
        """Leave nothing of it."""


class SandboxEngine(Protocol):
    """What the pool needs of engine.Engine."""

    def start(self) -> WarmSandbox:
        """A warm sandbox. Raises SandboxError."""

    def containers(self) -> Iterable[tuple[str, float]]:
        """Id and creation time (epoch) of each container of agents of this name. Raises SandboxError."""

    def remove(self, container_id: str) -> None:
        """Kill and remove a container, if that can be done."""


class Pool:
    """`size` warm sandboxes, replaced as they are taken or die; at most `builders` are being started at once."""

    def __init__(self, engine: SandboxEngine, *, size: int, builders: int) -> None:
        """Starts nothing yet."""
        self._engine = engine
        self._size = size
        self._idle: deque[WarmSandbox] = deque()
        self._taken: set[str] = set()
        self._building = 0
        self._engine_up: bool | None = None  # not asked yet
        self._changed = Condition()
        self._closing = False
        self._builders = [
            Thread(target=self._build, name=f"builder-{number}", daemon=True) for number in range(builders)
        ]
        self._keeper = Thread(target=self._keep, name="keeper", daemon=True)
        metrics.WARM_SANDBOXES.set_function(lambda: len(self._idle))

    def open(self) -> None:
        """Begin to remove what an earlier agent of this name left behind, and then to fill."""
        self._keeper.start()

    def take(self, timeout_s: float) -> WarmSandbox | None:
        """A sandbox for one job, as soon as there is one; None when there is none in time. `finish` it afterwards."""
        asked_at = time.monotonic()
        with self._changed:
            while True:
                while self._idle:
                    sandbox = self._idle.popleft()
                    self._changed.notify_all()
                    if sandbox.is_waiting():
                        self._taken.add(sandbox.id)
                        metrics.SANDBOX_ACQUIRE_SECONDS.observe(time.monotonic() - asked_at)
                        return sandbox
                left_s = asked_at + timeout_s - time.monotonic()
                if left_s <= 0 or self._closing:
                    return None
                self._changed.wait(left_s)

    def finish(self, sandbox: WarmSandbox) -> None:
        """The taken sandbox has run its job or broke: from now on a container of it is a leftover."""
        with self._changed:
            self._taken.discard(sandbox.id)

    def close(self, timeout_s: float) -> None:
        """Destroy every idle sandbox and remove whatever else has this agent's label, within the time given."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            idle = list(self._idle)
            self._idle.clear()
        for sandbox in idle:
            sandbox.destroy()
        for thread in (self._keeper, *self._builders):
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))
        while not self._leave_nothing() and time.monotonic() < deadline:
            time.sleep(0.05)

    def _leave_nothing(self) -> bool:
        """Remove every container of an agent of this name; whether the engine then says that there is none."""
        try:
            for container_id, _ in self._engine.containers():
                self._engine.remove(container_id)
            return not list(self._engine.containers())
        except SandboxError:
            return False

    def _build(self) -> None:
        pause_s = FIRST_PAUSE_S
        while self._begin_building():
            sandbox = self._start()
            with self._changed:
                self._building -= 1
                self._changed.notify_all()
                if sandbox is None:
                    self._changed.wait_for(lambda: self._closing, pause_s)
                    pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                    continue
                pause_s = FIRST_PAUSE_S
                if not self._closing:
                    self._idle.append(sandbox)
                    continue
            sandbox.destroy()

    def _begin_building(self) -> bool:
        """Wait until one more sandbox is wanted; False when none ever will be."""
        with self._changed:
            self._changed.wait_for(lambda: self._closing or len(self._idle) + self._building < self._size)
            self._building += not self._closing
            return not self._closing

    def _start(self) -> WarmSandbox | None:
        try:
            with metrics.START_SECONDS.time():
                sandbox = self._engine.start()
        except SandboxError as error:
            self._see_engine(up=False, cause=repr(error.__cause__ or error)[:500])
            return None
        self._see_engine(up=True)
        return sandbox

    def _see_engine(self, *, up: bool, **fields: str) -> None:
        """Says once what changed."""
        with self._changed:
            changed, self._engine_up = up is not self._engine_up, up
        metrics.DOCKER_UP.set(up)
        if changed and up:
            logger.info("docker_available")
        elif changed:
            logger.error("docker_unavailable", extra=fields)

    def _keep(self) -> None:
        while not self._leave_nothing():
            with self._changed:
                if self._changed.wait_for(lambda: self._closing, LONGEST_PAUSE_S):
                    return
        for builder in self._builders:
            builder.start()
        sweep_at = time.monotonic() + SWEEP_EVERY_S
        while True:
            if time.monotonic() >= sweep_at:
                self._sweep()
                sweep_at += SWEEP_EVERY_S
            with self._changed:
                if self._changed.wait_for(lambda: self._closing, CHECK_EVERY_S):
                    return
                dead = [sandbox for sandbox in self._idle if not sandbox.is_waiting()]
                for sandbox in dead:
                    self._idle.remove(sandbox)
                self._changed.notify_all()
            for sandbox in dead:
                logger.warning("idle_sandbox_exited")
                sandbox.destroy()

    def _sweep(self) -> None:
        """Remove containers of ours that nobody knows."""
        try:
            found = list(self._engine.containers())
        except SandboxError:
            return
        with self._changed:
            known = self._taken.union(sandbox.id for sandbox in self._idle)
        for container_id, created_at in found:
            if container_id not in known and created_at < time.time() - UNKNOWN_FOR_S:
                logger.info("orphan_container_removed")
                self._engine.remove(container_id)
