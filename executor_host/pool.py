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

LIVENESS_CHECK_INTERVAL_S: Final = 0.5  # how long a sandbox that died while it waited can go unnoticed
ORPHAN_SWEEP_INTERVAL_S: Final = 30.0
ORPHAN_MIN_AGE_S: Final = 60.0  # above any start of a sandbox: an older container that nobody knows is a leftover
MIN_RETRY_DELAY_S: Final = 0.1
MAX_RETRY_DELAY_S: Final = 2.0  # between attempts to start sandboxes while the engine is gone

logger = logging.getLogger(__name__)


class WarmSandbox(Protocol):
    """What the pool and the agent need of sandbox.Sandbox."""

    id: str
    runtime: str

    def is_ready(self) -> bool:
        """Whether it is there and ready."""

    def run(self, code: str, text: str, *, timeout_s: float) -> Outcome:
        """Run one program and destroy the sandbox."""

    def destroy(self) -> None:
        """Leave nothing of it."""


class SandboxEngine(Protocol):
    """What the pool needs of engine.Engine."""

    def start_sandbox(self) -> WarmSandbox:
        """A warm sandbox. Raises SandboxError."""

    def containers(self) -> Iterable[tuple[str, float]]:
        """Id and creation time (epoch) of each container of agents of this name. Raises SandboxError."""

    def remove(self, container_id: str) -> None:
        """Kill and remove a container, if that can be done."""


class Pool:
    """`size` warm sandboxes, replaced as they are taken or die; at most `builders` are being started at once."""

    def __init__(self, engine: SandboxEngine, *, size: int, start_threads: int) -> None:
        """Starts nothing yet."""
        self._engine = engine
        self._size = size
        self._idle: deque[WarmSandbox] = deque()
        self._in_use: set[str] = set()
        self._building = 0
        self._engine_up: bool | None = None  # not asked yet
        self._state_changed = Condition()
        self._closing = False
        self._builders = [
            Thread(target=self._builder_loop, name=f"builder-{number}", daemon=True) for number in range(start_threads)
        ]
        self._maintenance_thread = Thread(target=self._maintenance_loop, name="maintenance", daemon=True)
        metrics.WARM_SANDBOXES.set_function(lambda: len(self._idle))

    def start(self) -> None:
        """Begin to remove what an earlier agent of this name left behind, and then to fill."""
        self._maintenance_thread.start()

    def acquire(self, timeout_s: float) -> WarmSandbox | None:
        """A sandbox for one job, as soon as there is one; None when there is none in time. `finish` it afterwards."""
        asked_at = time.monotonic()
        with self._state_changed:
            while True:
                while self._idle:
                    sandbox = self._idle.popleft()
                    self._state_changed.notify_all()
                    if sandbox.is_ready():
                        self._in_use.add(sandbox.id)
                        metrics.SANDBOX_ACQUIRE_SECONDS.observe(time.monotonic() - asked_at)
                        return sandbox
                remaining_s = asked_at + timeout_s - time.monotonic()
                if remaining_s <= 0 or self._closing:
                    return None
                self._state_changed.wait(remaining_s)

    def release(self, sandbox: WarmSandbox) -> None:
        """The taken sandbox has run its job or broke: from now on a container of it is a leftover."""
        with self._state_changed:
            self._in_use.discard(sandbox.id)

    def stop(self, timeout_s: float) -> None:
        """Destroy every idle sandbox and remove whatever else has this agent's label, within the time given."""
        deadline = time.monotonic() + timeout_s
        with self._state_changed:
            self._closing = True
            self._state_changed.notify_all()
            idle = list(self._idle)
            self._idle.clear()
        for sandbox in idle:
            sandbox.destroy()
        for thread in (self._maintenance_thread, *self._builders):
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))
        while not self._remove_all_containers() and time.monotonic() < deadline:
            time.sleep(0.05)

    def _remove_all_containers(self) -> bool:
        """Remove every container of an agent of this name; whether the engine then says that there is none."""
        try:
            for container_id, _ in self._engine.containers():
                self._engine.remove(container_id)
            return not list(self._engine.containers())
        except SandboxError:
            return False

    def _builder_loop(self) -> None:
        retry_delay_s = MIN_RETRY_DELAY_S
        while self._wait_for_demand():
            sandbox = self._start_sandbox()
            with self._state_changed:
                self._building -= 1
                self._state_changed.notify_all()
                if sandbox is None:
                    self._state_changed.wait_for(lambda: self._closing, retry_delay_s)
                    retry_delay_s = min(2 * retry_delay_s, MAX_RETRY_DELAY_S)
                    continue
                retry_delay_s = MIN_RETRY_DELAY_S
                if not self._closing:
                    self._idle.append(sandbox)
                    continue
            sandbox.destroy()

    def _wait_for_demand(self) -> bool:
        """Wait until one more sandbox is wanted; False when none ever will be."""
        with self._state_changed:
            self._state_changed.wait_for(lambda: self._closing or len(self._idle) + self._building < self._size)
            self._building += not self._closing
            return not self._closing

    def _start_sandbox(self) -> WarmSandbox | None:
        try:
            with metrics.START_SECONDS.time():
                sandbox = self._engine.start_sandbox()
        except SandboxError as error:
            self._set_docker_status(up=False, cause=repr(error.__cause__ or error)[:500])
            return None
        self._set_docker_status(up=True)
        return sandbox

    def _set_docker_status(self, *, up: bool, **fields: str) -> None:
        """Says once what changed."""
        with self._state_changed:
            changed, self._engine_up = up is not self._engine_up, up
        metrics.DOCKER_UP.set(up)
        if changed and up:
            logger.info("docker_available")
        elif changed:
            logger.error("docker_unavailable", extra=fields)

    def _maintenance_loop(self) -> None:
        while not self._remove_all_containers():
            with self._state_changed:
                if self._state_changed.wait_for(lambda: self._closing, MAX_RETRY_DELAY_S):
                    return
        for builder in self._builders:
            builder.start()
        sweep_at = time.monotonic() + ORPHAN_SWEEP_INTERVAL_S
        while True:
            if time.monotonic() >= sweep_at:
                self._remove_orphans()
                sweep_at += ORPHAN_SWEEP_INTERVAL_S
            with self._state_changed:
                if self._state_changed.wait_for(lambda: self._closing, LIVENESS_CHECK_INTERVAL_S):
                    return
                dead = [sandbox for sandbox in self._idle if not sandbox.is_ready()]
                for sandbox in dead:
                    self._idle.remove(sandbox)
                self._state_changed.notify_all()
            for sandbox in dead:
                logger.warning("idle_sandbox_exited")
                sandbox.destroy()

    def _remove_orphans(self) -> None:
        """Remove containers of ours that nobody knows."""
        try:
            containers = list(self._engine.containers())
        except SandboxError:
            return
        with self._state_changed:
            known = self._in_use.union(sandbox.id for sandbox in self._idle)
        for container_id, created_at in containers:
            if container_id not in known and created_at < time.time() - ORPHAN_MIN_AGE_S:
                logger.info("orphan_container_removed")
                self._engine.remove(container_id)
