"""Keep sandboxes warm, so that no job waits for a container to start.

To start one takes as much CPU time as many short runs. While half of the sandboxes are warm, it therefore waits until
it slows down no program.
"""

import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from threading import Condition, Thread
from typing import Final

from executor_host import metrics
from executor_host.channel import SandboxError
from executor_host.docker_engine import DockerEngine
from executor_host.sandbox import Sandbox

LIVENESS_CHECK_INTERVAL_S: Final = 0.5
ORPHAN_SWEEP_INTERVAL_S: Final = 30.0
ORPHAN_MIN_AGE_S: Final = 60.0  # longer than any start: a younger container may be a sandbox that is starting
MIN_RETRY_DELAY_S: Final = 0.1
MAX_POSTPONEMENT_S: Final = 2.0  # of starts that can wait
RECHECK_S: Final = 0.02  # while they wait
MAX_RETRY_DELAY_S: Final = 2.0

logger = logging.getLogger(__name__)


class NoSandboxError(Exception):
    """No sandbox was ready in time."""


class Pool:
    """Keep `size` sandboxes of one runtime warm and replace those that are acquired or die."""

    def __init__(
        self,
        engine: DockerEngine,
        *,
        size: int,
        start_threads: int,
        has_spare_cores: Callable[[], bool] = lambda: True,
    ) -> None:
        """Prepare the threads; at most `start_threads` sandboxes start at once."""
        self.runtime = engine.runtime
        self.size = size
        self._engine = engine
        self._idle: deque[Sandbox] = deque()
        self._in_use: set[str] = set()
        self._starting = 0
        self._has_spare_cores = has_spare_cores
        self._was_full_at = time.monotonic()
        self._docker_is_up: bool | None = None  # unknown
        self._state_changed = Condition()
        self._stopping = False
        self._acquire_seconds = metrics.SANDBOX_ACQUIRE_SECONDS.labels(self.runtime.name)
        self._builders = [
            Thread(target=self._builder_loop, name=f"builder-{number}", daemon=True) for number in range(start_threads)
        ]
        self._maintenance_thread = Thread(target=self._maintenance_loop, name="maintenance", daemon=True)
        metrics.export(self.runtime.name)
        metrics.WARM_SANDBOXES.labels(self.runtime.name).set_function(lambda: len(self._idle))

    def start(self) -> None:
        """Remove the containers of an earlier agent of the same name, then start sandboxes."""
        self._maintenance_thread.start()

    @contextlib.contextmanager
    def acquire(self, timeout_s: float) -> Iterator[Sandbox]:
        """Lend a warm sandbox for one job and destroy it afterwards. Raises NoSandboxError if none is ready in time."""
        sandbox = self._take(timeout_s)
        try:
            yield sandbox
        finally:
            sandbox.destroy()
            with self._state_changed:
                self._in_use.discard(sandbox.id)  # from now on, a container that was not removed is an orphan

    def _take(self, timeout_s: float) -> Sandbox:
        started_at = time.monotonic()
        with self._state_changed:
            while True:
                while self._idle:
                    sandbox = self._idle.popleft()
                    self._state_changed.notify_all()
                    if sandbox.is_ready():
                        self._in_use.add(sandbox.id)
                        self._acquire_seconds.observe(time.monotonic() - started_at)
                        return sandbox
                remaining_s = started_at + timeout_s - time.monotonic()
                if remaining_s <= 0 or self._stopping:
                    raise NoSandboxError
                self._state_changed.wait(remaining_s)

    def stop(self, timeout_s: float) -> None:
        """Destroy all idle sandboxes and remove every other container of this agent."""
        deadline = time.monotonic() + timeout_s
        with self._state_changed:
            self._stopping = True
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
        """Remove every container of this agent. Return whether Docker confirms that none is left."""
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
                self._starting -= 1
                self._state_changed.notify_all()
                if sandbox is None:
                    self._state_changed.wait_for(lambda: self._stopping, retry_delay_s)
                    retry_delay_s = min(2 * retry_delay_s, MAX_RETRY_DELAY_S)
                    continue
                retry_delay_s = MIN_RETRY_DELAY_S
                if not self._stopping:
                    self._idle.append(sandbox)
                    continue
            sandbox.destroy()

    def _wait_for_demand(self) -> bool:
        """Wait until another sandbox is needed. Return False when the pool stops."""
        with self._state_changed:
            while not self._stopping:
                missing = self.size - len(self._idle) - self._starting
                if missing == 0:
                    self._was_full_at = time.monotonic()
                    self._state_changed.wait()
                elif 2 * missing > self.size or self._may_start():
                    self._starting += 1
                    return True
                else:
                    self._state_changed.wait(RECHECK_S)
            return False

    def _may_start(self) -> bool:
        return time.monotonic() > self._was_full_at + MAX_POSTPONEMENT_S or self._has_spare_cores()

    def _start_sandbox(self) -> Sandbox | None:
        try:
            with metrics.START_SECONDS.labels(self.runtime.name).time():
                sandbox = self._engine.start_sandbox()
        except SandboxError as error:
            self._set_docker_status(is_up=False, cause=repr(error.__cause__ or error)[:500])
            return None
        self._set_docker_status(is_up=True)
        return sandbox

    def _set_docker_status(self, *, is_up: bool, **fields: str) -> None:
        """Update the metric, and log the status if it changed."""
        with self._state_changed:
            has_changed, self._docker_is_up = is_up is not self._docker_is_up, is_up
        metrics.DOCKER_UP.labels(self.runtime.name).set(is_up)
        if has_changed and is_up:
            logger.info("docker_available", extra={"runtime": self.runtime.name})
        elif has_changed:
            logger.error("docker_unavailable", extra={"runtime": self.runtime.name, **fields})

    def _maintenance_loop(self) -> None:
        while not self._remove_all_containers():
            if self._wait_for_stop(MAX_RETRY_DELAY_S):
                return
        for builder in self._builders:
            builder.start()
        sweep_at = time.monotonic() + ORPHAN_SWEEP_INTERVAL_S
        while not self._wait_for_stop(LIVENESS_CHECK_INTERVAL_S):
            self._destroy_dead_sandboxes()
            if time.monotonic() >= sweep_at:
                self._remove_orphans()
                sweep_at += ORPHAN_SWEEP_INTERVAL_S

    def _wait_for_stop(self, timeout_s: float) -> bool:
        with self._state_changed:
            return self._state_changed.wait_for(lambda: self._stopping, timeout_s)

    def _destroy_dead_sandboxes(self) -> None:
        with self._state_changed:
            dead = [sandbox for sandbox in self._idle if not sandbox.is_ready()]
            for sandbox in dead:
                self._idle.remove(sandbox)
            self._state_changed.notify_all()
        for sandbox in dead:
            logger.warning("idle_sandbox_exited")
            sandbox.destroy()

    def _remove_orphans(self) -> None:
        """Remove containers of this agent that are neither idle, in use nor starting."""
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
