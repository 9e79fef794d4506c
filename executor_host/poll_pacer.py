"""Decide which workers of a runtime poll the job queue, and for how long. An idle host has one poll open, a longer one.

A stopping agent waits for open polls, because a response may contain a job. So polls are short while jobs arrive.
"""

import time
from collections.abc import Callable
from threading import Condition, Event
from typing import Final

from executor_host.job_queue import JobQueue, ReceivedMessage

RECEIVE_WAIT_S: Final = 2
IDLE_RECEIVE_WAIT_S: Final = 5
# Without a message. Longer than any job takes, so that a job is never released while a long poll is open, which would
# receive it again.
IDLE_AFTER_S: Final = 180.0


class PollPacer:
    """The open polls of one job queue. Thread-safe."""

    def __init__(self, queue: JobQueue, *, stopping: Event, clock: Callable[[], float] = time.monotonic) -> None:
        """Start no poll once `stopping` is set."""
        self._queue = queue
        self._stopping = stopping
        self._clock = clock
        self._changed = Condition()  # guards the two below
        self._open_polls = 0
        self._last_message_at = clock()

    def receive(self, timeout_s: float) -> ReceivedMessage | None:
        """Return the next message, or None if none arrives. Raises QueueError.

        While the host is idle, wait up to `timeout_s` for the poll of another worker to end.
        """
        with self._changed:
            if not self._changed.wait_for(self._may_poll, timeout_s) or self._stopping.is_set():
                return None
            self._open_polls += 1
            wait_s = IDLE_RECEIVE_WAIT_S if self._is_idle() else RECEIVE_WAIT_S
        message = None
        try:
            message = self._queue.receive(wait_s=wait_s)
        finally:
            with self._changed:
                self._open_polls -= 1
                if message is not None:
                    self._last_message_at = self._clock()
                self._changed.notify_all()
        return message

    def _may_poll(self) -> bool:
        return not (self._is_idle() and self._open_polls)

    def _is_idle(self) -> bool:
        return self._clock() - self._last_message_at >= IDLE_AFTER_S
