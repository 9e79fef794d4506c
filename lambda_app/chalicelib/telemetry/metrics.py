"""Reports metrics as members of log lines, from which CloudWatch extracts them. No call, no library.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

import os
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from chalicelib.problems import TYPE_PREFIX
from chalicelib.settings import DEFAULT_METRICS_NAMESPACE
from chalicelib.telemetry import request_context

UNITS: Final = {
    "Requests": "Count",
    "RejectedRequests": "Count",
    "ColdStarts": "Count",
    "LateReplies": "Count",
    "ReplyWaitMs": "Milliseconds",
    "CanaryPassed": "Count",
}
COUNTED_REJECTIONS: Final = {
    "unauthorized",
    "key-revoked",
    "key-expired",
    "plan-limit-exceeded",
    "rate-limited",
    "quota-exceeded",
    "too-many-pending-jobs",
    "overloaded",
    "authentication-unavailable",
}

Values = Mapping[str, float]


def request_fields(problem_type: str | None) -> dict[str, Any]:
    """Return `extra` for the last log line of a request, which ended with a problem of this type or without one."""
    values = {"Requests": 1, **request_context.current().metrics}
    slug = (problem_type or "").removeprefix(TYPE_PREFIX)
    if slug not in COUNTED_REJECTIONS:
        return fields(values)
    return {**fields(values, by_reason={"RejectedRequests": 1}), "Reason": slug}


def fields(values: Values, by_reason: Values = MappingProxyType({})) -> dict[str, Any]:
    """Return `extra` for a log line with these metrics; those in `by_reason` are also counted by its `Reason`."""
    directives = [_directive(values, [[]])]
    if by_reason:
        directives.append(_directive(by_reason, [[], ["Reason"]]))  # without a dimension, it is the sum of all
    emf = {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": directives}
    return {**values, **by_reason, "emf": emf}


def _directive(values: Values, dimensions: Sequence[Sequence[str]]) -> dict[str, Any]:
    metrics = [{"Name": name, "Unit": UNITS[name]} for name in values]
    # Read here rather than in Settings: the first line may be written before anything needs the settings.
    namespace = os.environ.get("METRICS_NAMESPACE", DEFAULT_METRICS_NAMESPACE)
    return {"Namespace": namespace, "Dimensions": dimensions, "Metrics": metrics}
