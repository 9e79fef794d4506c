"""Wait for conditions: tests poll with a deadline and never just sleep."""

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")


def eventually(condition: Callable[[], Value], timeout_s: float = 10, every_s: float = 0.01) -> Value:
    """Call `condition` until it returns a true value, and return that value. Fail after `timeout_s`."""
    value = poll(condition, timeout_s, every_s)
    assert value, f"not within {timeout_s} s"
    return value


def poll(condition: Callable[[], Value], timeout_s: float, every_s: float = 0.01) -> Value:
    """Call `condition` until it returns a true value or `timeout_s` have passed. Return its last value."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()) and time.monotonic() < deadline:
        time.sleep(every_s)
    return value
