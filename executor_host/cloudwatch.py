"""Build the log fields from which CloudWatch extracts the agent's metrics.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from prometheus_client import Counter, Gauge

from executor_host import metrics

RUNTIME_GAUGES: Final[Mapping[str, Gauge]] = {"WarmSandboxes": metrics.WARM_SANDBOXES, "JobsRunning": metrics.RUNNING}
COUNTERS: Final[Mapping[str, Counter]] = {
    "SandboxErrors": metrics.SANDBOX_ERRORS,
    "MalformedMessages": metrics.MALFORMED_MESSAGES,
    "VisibilityExtensionFailures": metrics.VISIBILITY_EXTENSION_FAILURES,
}

Fields = dict[str, Any]


class MetricDeltas:
    """Report the state of the host, and how much each counter grew since the last report."""

    def __init__(self, *, namespace: str) -> None:
        self._namespace = namespace
        self._last_totals = {name: sum(metric_values(counter)) for name, counter in COUNTERS.items()}

    def log_fields(self, *, is_up: bool = True) -> Fields:
        """Return the `extra` of one log line. The sum of HostUp over one minute is the number of hosts."""
        fields: Fields = {
            "HostUp": int(is_up),
            "DockerDown": int(min(metric_values(metrics.DOCKER_UP), default=0) == 0),
            "IsolationUnverified": 1 - sum(metric_values(metrics.ISOLATION_CHECK_PASSED)),
        }
        for name, counter in COUNTERS.items():
            total = sum(metric_values(counter))
            fields[name] = total - self._last_totals[name]
            self._last_totals[name] = total
        return _declare(fields, [_directive(self._namespace, *fields)])


def runtime_fields(runtime: str, *, namespace: str) -> Fields:
    """Return the `extra` of the log line of a runtime: the gauges of its sandboxes."""
    fields: Fields = {name: gauge_value(gauge, runtime) for name, gauge in RUNTIME_GAUGES.items()}
    return _declare({"Runtime": runtime, **fields}, [_directive(namespace, *fields, dimensions=["Runtime"])])


def job_fields(runtime: str, status: str, queue_wait_ms: int | None, *, namespace: str) -> Fields:
    """Return the `extra` of the log line of a completed job. `queue_wait_ms` is None for a job that did not run."""
    fields: Fields = {"Runtime": runtime, "Status": status, "Jobs": 1}
    directives = [_directive(namespace, "Jobs", dimensions=["Runtime", "Status"])]
    if queue_wait_ms is not None:
        fields["QueueWaitMs"] = queue_wait_ms
        directives.append(_directive(namespace, "QueueWaitMs", dimensions=["Runtime"]))
    return _declare(fields, directives)


def metric_values(metric: Counter | Gauge) -> list[float]:
    """Return the current values of a metric, one for each runtime or a single one."""
    samples = next(iter(metric.collect())).samples
    return [sample.value for sample in samples if not sample.name.endswith("_created")]


def gauge_value(gauge: Gauge, runtime: str) -> float:
    """Return the current value of a gauge of a runtime."""
    return next(iter(gauge.labels(runtime).collect())).samples[0].value


def _directive(namespace: str, *names: str, dimensions: Sequence[str] = ()) -> Fields:
    units = [{"Name": name, "Unit": "Milliseconds" if name.endswith("Ms") else "Count"} for name in names]
    return {"Namespace": namespace, "Dimensions": [list(dimensions)], "Metrics": units}


def _declare(fields: Fields, directives: Sequence[Fields]) -> Fields:
    """Add the metadata that makes CloudWatch read members of a log line as metrics. logs.py renames `emf`."""
    return {**fields, "emf": {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": directives}}
