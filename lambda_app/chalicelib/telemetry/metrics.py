"""Metrics of the API: members of its log lines, of which CloudWatch makes metrics. No call, no library.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

import os
import time
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, Final

from chalicelib.problems import TYPE_PREFIX
from chalicelib.settings import DEFAULT_METRICS_NAMESPACE

UNITS: Final = MappingProxyType(
    {
        "Requests": "Count",
        "RejectedRequests": "Count",
        "ColdStarts": "Count",
        "LateReplies": "Count",
        "ReplyWaitMs": "Milliseconds",
    }
)
REFUSALS: Final = frozenset(
    {
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
)

Values = Mapping[str, float]
_of_request: ContextVar[Values] = ContextVar("metrics", default=MappingProxyType({}))


def begin() -> None:
    """Forget the last request on this thread."""
    _of_request.set({})


def put(name: str, value: float) -> None:
    """A value of this request, for its log line."""
    _of_request.set({**_of_request.get(), name: value})


def of_process() -> dict[str, Any]:
    """`extra` of the log line that says that a process has begun to serve."""
    return _members({"ColdStarts": 1})


def of_request(problem: str | None) -> dict[str, Any]:
    """`extra` of the log line of a request that ended with a result or with a problem of that type."""
    values = {"Requests": 1, **_of_request.get()}
    reason = (problem or "").removeprefix(TYPE_PREFIX)
    if reason not in REFUSALS:
        return _members(values)
    return {**_members(values, by_reason={"RejectedRequests": 1}), "Reason": reason}


def _members(values: Values, by_reason: Values = MappingProxyType({})) -> dict[str, Any]:
    directives = [_directive(values, [[]])]
    if by_reason:
        directives.append(_directive(by_reason, [[], ["Reason"]]))  # the sum of all has no dimension
    emf = {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": directives}
    return {**values, **by_reason, "emf": emf}


def _directive(values: Values, dimensions: Sequence[Sequence[str]]) -> dict[str, Any]:
    metrics = [{"Name": name, "Unit": UNITS[name]} for name in values]
    # Not of the Settings: the first line may come before anything needs them.
    namespace = os.environ.get("METRICS_NAMESPACE", DEFAULT_METRICS_NAMESPACE)
    return {"Namespace": namespace, "Dimensions": dimensions, "Metrics": metrics}
