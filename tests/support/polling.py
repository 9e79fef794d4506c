"""Wait for conditions: tests poll with a deadline and never just sleep."""

import time


def eventually(condition, timeout_s=10, every_s=0.01):
    """Call `condition` until it returns a true value, and return that value. Fail after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {timeout_s} s"
        time.sleep(every_s)
    return value
