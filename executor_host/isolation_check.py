"""Check that sandboxes are isolated as hardening.py asks for, before the first job and then every ten minutes.

Docker ignores some options in silence, for example if the kernel or a rootless installation does not support them.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from threading import Event, Thread
from typing import Final

import msgspec

from chalicelib.contract import IsolationState, Status
from executor_host import isolation_probe, metrics
from executor_host.channel import SandboxError
from executor_host.docker_engine import DockerEngine
from executor_host.engine_versions import version_differences
from executor_host.isolation_report import (
    MAX_VALUE_CHARS,
    Difference,
    ProbeReport,
    difference,
    find_differences,
    probe_tasks,
)
from executor_host.pool import NoSandboxError, Pool

CHECK_INTERVAL_S: Final = 600.0
RECHECK_DELAY_S: Final = 60.0  # after a difference, which an operator may repair
RETRY_DELAY_S: Final = 2.0
MAX_PROBE_ATTEMPTS: Final = 3  # then a sandbox that starts and cannot run the probe is no coincidence
ACQUIRE_TIMEOUT_S: Final = 10.0
PROBE_TIMEOUT_S: Final = 10.0  # it takes half a second, or several on a busy host
MAX_LOGGED_DIFFERENCES: Final = 50
PROBE: Final = Path(isolation_probe.__file__)

logger = logging.getLogger(__name__)


class ProbeError(Exception):
    """The sandbox of a probe started, and then failed or did not report."""


class IsolationCheck:
    """Check from a thread of its own, with a sandbox of each pool that jobs use. Jobs may run while `passed` is set."""

    def __init__(
        self,
        engine: DockerEngine,
        *,
        pools: Sequence[Pool],
        is_gvisor: bool = False,
        interval_s: float = CHECK_INTERVAL_S,
    ) -> None:
        self.passed = Event()
        self.state = IsolationState.PENDING
        self._engine = engine
        self._pools = pools
        self._is_gvisor = is_gvisor
        self._interval_s = interval_s
        self._failed_probes = 0
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="isolation-check", daemon=True)

    def start(self) -> None:
        """Start the first check."""
        self._thread.start()

    def stop(self) -> None:
        """Start no more checks. A running one ends with its sandbox, at the latest when the pool stops."""
        self._stopping.set()

    def _run(self) -> None:
        delay_s = 0.0
        while not self._stopping.wait(delay_s):
            try:
                delay_s = self.check()
            except Exception:  # a bug must not end the checks, nor let jobs run unchecked
                logger.exception("isolation_check_crashed")
                self._record([difference("check", "a result", "an error")])
                delay_s = RECHECK_DELAY_S

    def check(self) -> float:
        """Check once. Return the seconds until the next check."""
        try:
            differences = version_differences(self._engine.versions())
            for pool in self._pools:
                differences += [
                    difference(f"{pool.runtime.name}: {property_.name}", property_.expected, property_.actual)
                    for property_ in self._run_probe(pool)
                ]
        except (NoSandboxError, SandboxError, ProbeError) as error:
            self._failed_probes += isinstance(error, ProbeError)
            if self._failed_probes < MAX_PROBE_ATTEMPTS:
                logger.warning("isolation_check_incomplete", extra={"error": str(error)[:MAX_VALUE_CHARS]})
                return RETRY_DELAY_S
            differences = [difference("probe", "a report", str(error))]
        self._failed_probes = 0
        self._record(differences)
        return RECHECK_DELAY_S if differences else self._interval_s

    def _run_probe(self, pool: Pool) -> list[Difference]:
        """Run the probe in a sandbox and return what differs. Raises NoSandboxError and ProbeError."""
        runtime = pool.runtime
        with pool.acquire(ACQUIRE_TIMEOUT_S) as sandbox:
            try:
                tasks = probe_tasks(runtime, is_gvisor=self._is_gvisor)
                outcome = sandbox.run(PROBE.read_text(), json.dumps(tasks), timeout_s=PROBE_TIMEOUT_S)
                report = msgspec.json.decode(outcome.stdout, type=ProbeReport)
            except (SandboxError, msgspec.DecodeError, RecursionError) as error:
                raise ProbeError(str(error)) from error
        if self._is_gvisor and outcome.status is Status.OK:
            return [difference("allocation", "killed", "allocated"), *find_differences(report, runtime, is_gvisor=True)]
        if outcome.status is not (Status.OUT_OF_MEMORY if self._is_gvisor else Status.OK):
            raise ProbeError(f"the probe ended as {outcome.status}")
        return find_differences(report, runtime, is_gvisor=self._is_gvisor)

    def _record(self, differences: list[Difference]) -> None:
        metrics.ISOLATION_CHECK_PASSED.set(not differences)
        if differences:
            self.passed.clear()
            logged = msgspec.to_builtins(differences[:MAX_LOGGED_DIFFERENCES])
            logger.error("isolation_check_failed", extra={"differences": logged})
        else:
            self.passed.set()
            logger.info("isolation_check_passed")
        self.state = IsolationState.FAILED if differences else IsolationState.PASSED
