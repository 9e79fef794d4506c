"""Waits of the tests: a poll with a deadline, never a bare sleep."""

import time


def eventually(condition, timeout_s=10, every_s=0.01):
    """Returns what `condition` gives once it is true. Fails the test when it is not in time."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {timeout_s} s"
        time.sleep(every_s)
    return found
