"""Build the log fields from which CloudWatch extracts the agent's metrics.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from prometheus_client import Counter, Gauge

from executor_host import metrics

GAUGES: Final[Mapping[str, Gauge]] = {"WarmSandboxes": metrics.WARM_SANDBOXES, "JobsRunning": metrics.RUNNING}
COUNTERS: Final[Mapping[str, Counter]] = {
    "SandboxErrors": metrics.SANDBOX_ERRORS,
    "MalformedMessages": metrics.MALFORMED_MESSAGES,
    "VisibilityExtensionFailures": metrics.VISIBILITY_EXTENSION_FAILURES,
}

Fields = dict[str, Any]


class MetricDeltas:
    """Report gauges, and how much each counter grew since the last report."""

    def __init__(self, *, namespace: str) -> None:
        self._namespace = namespace
        self._last_totals = {name: metric_value(counter) for name, counter in COUNTERS.items()}

    def log_fields(self, *, is_up: bool = True) -> Fields:
        """Return the `extra` of one log line. The sum of HostUp over one minute is the number of hosts."""
        fields: Fields = {
            "HostUp": int(is_up),
            "DockerDown": 1 - metric_value(metrics.DOCKER_UP),
            "IsolationUnverified": 1 - metric_value(metrics.ISOLATION_CHECK_PASSED),
        }
        fields |= {name: metric_value(gauge) for name, gauge in GAUGES.items()}
        for name, counter in COUNTERS.items():
            total = metric_value(counter)
            fields[name] = total - self._last_totals[name]
            self._last_totals[name] = total
        return _declare(fields, [_directive(self._namespace, *fields)])


def job_fields(status: str, queue_wait_ms: int | None, *, namespace: str) -> Fields:
    """Return the `extra` of the log line of a completed job. `queue_wait_ms` is None for a job that did not run."""
    fields: Fields = {"Status": status, "Jobs": 1}
    directives = [_directive(namespace, "Jobs", dimensions=["Status"])]
    if queue_wait_ms is not None:
        fields["QueueWaitMs"] = queue_wait_ms
        directives.append(_directive(namespace, "QueueWaitMs"))
    return _declare(fields, directives)


def metric_value(metric: Counter | Gauge) -> float:
    """Return the current value of a metric without labels."""
    return next(iter(metric.collect())).samples[0].value


def _directive(namespace: str, *names: str, dimensions: Sequence[str] = ()) -> Fields:
    units = [{"Name": name, "Unit": "Milliseconds" if name.endswith("Ms") else "Count"} for name in names]
    return {"Namespace": namespace, "Dimensions": [list(dimensions)], "Metrics": units}


def _declare(fields: Fields, directives: Sequence[Fields]) -> Fields:
    """Add the metadata that makes CloudWatch read members of a log line as metrics. logs.py renames `emf`."""
    return {**fields, "emf": {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": directives}}
