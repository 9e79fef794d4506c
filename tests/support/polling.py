"""Wait for conditions: tests poll with a deadline and never just sleep."""

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")


def eventually(condition: Callable[[], Value], timeout_s: float = 10, every_s: float = 0.01) -> Value:
    """Call `condition` until it returns a true value, and return that value. Fail after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {timeout_s} s"
        time.sleep(every_s)
    return value


def is_true_within(condition: Callable[[], object], timeout_s: float, every_s: float = 0.01) -> bool:
    """Return whether `condition` returns a true value before `timeout_s` have passed."""
    deadline = time.monotonic() + timeout_s
    while not (is_true := condition()) and time.monotonic() < deadline:
        time.sleep(every_s)
    return bool(is_true)
