"""What one request collects on its way: fields for its log lines, values for its metrics, headers for its response."""

from collections.abc import Mapping
from contextvars import ContextVar

from msgspec import Struct, field


class RequestContext(Struct):
    """The state of one request, or of one queue message. Each thread serves one at a time."""

    log_fields: dict[str, object] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)


_current: ContextVar[RequestContext | None] = ContextVar("request_context", default=None)


def start(**log_fields: object) -> None:
    """Begin a new request on this thread, with the first fields of its log lines."""
    _current.set(RequestContext(log_fields=log_fields))


def current() -> RequestContext:
    """Return the context of this thread's request; an empty one outside any request."""
    context = _current.get()
    if context is None:
        context = RequestContext()
        _current.set(context)
    return context


def bind(**log_fields: object) -> None:
    """Add fields to every further log line of this request."""
    current().log_fields.update(log_fields)


def record(metric: str, value: float) -> None:
    """Set a metric of this request, which its last log line reports."""
    current().metrics[metric] = value


def set_headers(headers: Mapping[str, str]) -> None:
    """Set headers that the response carries, whatever its status."""
    current().headers.update(headers)
