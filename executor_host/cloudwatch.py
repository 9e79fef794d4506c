"""What the agent's log tells CloudWatch each minute: what changed in its Prometheus metrics since the last time.

Each metric is counted once, in metrics.py; here is only how CloudWatch calls it.
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.samples import Sample

from executor_host import metrics

MAX_VALUES: Final = 100  # of one metric in one line
GAUGES: Final[Mapping[str, Gauge]] = {"WarmSandboxes": metrics.WARM_SANDBOXES, "JobsRunning": metrics.RUNNING}
COUNTERS: Final[Mapping[str, Counter]] = {
    "SandboxErrors": metrics.SANDBOX_ERRORS,
    "MalformedMessages": metrics.MALFORMED_MESSAGES,
    "VisibilityExtensionFailures": metrics.VISIBILITY_EXTENSION_FAILURES,
}

Fields = dict[str, Any]


class MetricDeltas:
    """What the metrics of this process gained since it was last asked."""

    def __init__(self, *, namespace: str) -> None:
        self._namespace = namespace
        self._before: dict[object, float] = {}
        self.log_fields()

    def log_fields(self, *, is_up: bool = True) -> list[Fields]:
        """`extra` of the log lines of this minute; the sum of HostUp is the number of hosts."""
        values: dict[str, float | list[float]] = {name: gauge_value(gauge) for name, gauge in GAUGES.items()}
        values |= {name: self._delta(_total(counter)) for name, counter in COUNTERS.items()}
        values["HostUp"] = int(is_up)
        values["DockerDown"] = 1 - gauge_value(metrics.DOCKER_UP)
        if queued := quantiles(self._buckets(metrics.QUEUE_WAIT_SECONDS)):
            values["QueueWaitMs"] = [round(seconds * 1000, 1) for seconds in queued]
        return [self._line(values), *self._jobs()]

    def _jobs(self) -> Iterator[Fields]:
        for sample in _samples(metrics.JOBS, "_total"):
            if delta := self._delta(sample):
                yield {"Status": sample.labels["status"], **self._line({"Jobs": delta}, ["Status"])}

    def _delta(self, sample: Sample) -> float:
        key = sample.name, tuple(sample.labels.items())
        delta = sample.value - self._before.get(key, 0.0)
        self._before[key] = sample.value
        return delta

    def _buckets(self, histogram: Histogram) -> list[tuple[float, float]]:
        """Upper bound and gain of each bucket; the samples count all that is below their bound."""
        totals = [(float(sample.labels["le"]), self._delta(sample)) for sample in _samples(histogram, "_bucket")]
        return [(bound, delta - below) for (_, below), (bound, delta) in pairwise([(0.0, 0.0), *totals])]

    def _line(self, values: Mapping[str, float | list[float]], dimensions: Sequence[str] = ()) -> Fields:
        named = [{"Name": name, "Unit": "Milliseconds" if name.endswith("Ms") else "Count"} for name in values]
        directive = {"Namespace": self._namespace, "Dimensions": [list(dimensions)], "Metrics": named}
        return {**values, "emf": {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [directive]}}


def gauge_value(gauge: Gauge) -> float:
    """What a gauge shows now."""
    return next(iter(gauge.collect())).samples[0].value


def quantiles(buckets: Sequence[tuple[float, float]]) -> list[float]:
    """At most MAX_VALUES values that are spread as those in the buckets, evenly within each of them."""
    total = sum(count for _, count in buckets)
    wanted = [(number + 0.5) / MAX_VALUES * total for number in range(MAX_VALUES)]
    if total <= MAX_VALUES:
        wanted = [number + 0.5 for number in range(round(total))]
    found: list[float] = []
    low = below = 0.0
    for bound, count in buckets:
        high = low if bound == float("inf") else bound
        here = [rank for rank in wanted if below <= rank < below + count]
        found += [low + (high - low) * (rank - below) / count for rank in here]
        low, below = high, below + count
    return found


def _samples(metric: Counter | Histogram, suffix: str) -> list[Sample]:
    return [sample for family in metric.collect() for sample in family.samples if sample.name.endswith(suffix)]


def _total(counter: Counter) -> Sample:
    return _samples(counter, "_total")[0]
