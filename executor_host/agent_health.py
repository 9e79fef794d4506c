"""Decide from the agent's metrics whether this host does its work, for termination_watcher.py."""

import time
import urllib.request
from collections.abc import Callable
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

METRICS_URL: Final = "http://127.0.0.1:9464/metrics"
METRICS_TIMEOUT_S: Final = 5.0
UNHEALTHY_AFTER_S: Final = 600.0  # longer than a restart of Docker or of the agent


class AgentHealth:
    """Remember since when the agent has not been able to take jobs."""

    def __init__(self, url: str = METRICS_URL, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._url = url
        self._clock = clock
        self._last_able_at = clock()

    def is_lost(self) -> bool:
        """Return whether the agent has been unable to take jobs for UNHEALTHY_AFTER_S. Reads its metrics."""
        if self._can_take_jobs():
            self._last_able_at = self._clock()
        return self._clock() - self._last_able_at > UNHEALTHY_AFTER_S

    def _can_take_jobs(self) -> bool:
        """Return whether the agent responds, its sandboxes are isolated and Docker starts some of them."""
        try:
            with urllib.request.urlopen(self._url, timeout=METRICS_TIMEOUT_S) as response:  # noqa: S310 - a fixed URL
                families = list(text_string_to_metric_families(response.read().decode()))
        except (OSError, ValueError):
            return False
        samples = [sample for family in families for sample in family.samples]
        return all(
            any(sample.value > 0 for sample in samples if sample.name == name)
            for name in ("python_exec_isolation_check_passed", "python_exec_docker_up")
        )
