"""Keeps the jobs in hand from coming to another host while they run. For the agent.

The queue's own visibility timeout is short, so that the jobs of a host that died come again soon.
"""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from threading import Event, Lock, Thread
from typing import Final

from executor_host import metrics
from executor_host.job_queue import BATCH, Delivery, JobQueue, QueueError

EVERY_S: Final = 5.0  # two beats may fail before a job comes again
HOLD_S: Final = 15  # as the queue's own visibility timeout

logger = logging.getLogger(__name__)


class Heartbeat:
    """Prolongs the visibility timeout of every message that is held, in batches."""

    def __init__(self, queue: JobQueue, *, every_s: float = EVERY_S, hold_s: int = HOLD_S) -> None:
        self._queue = queue
        self._every_s = every_s
        self._hold_s = hold_s
        self._held: set[Delivery] = set()
        self._lock = Lock()
        self._stopping = Event()
        self._thread = Thread(target=self._beat, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def stop(self) -> None:
        """Beat no more: what is still held comes again by itself."""
        self._stopping.set()

    @contextlib.contextmanager
    def holding(self, delivery: Delivery) -> Iterator[None]:
        """Holds a message for as long as the context lasts."""
        with self._lock:
            self._held.add(delivery)
        try:
            yield
        finally:
            with self._lock:
                self._held.discard(delivery)

    def _beat(self) -> None:
        while not self._stopping.wait(self._every_s):
            with self._lock:
                held = list(self._held)
            for start in range(0, len(held), BATCH):
                # Each on its own and not waited for: a call without an answer delays no other, nor the next beat.
                Thread(target=self._hold, args=(held[start : start + BATCH],), name="beat", daemon=True).start()

    def _hold(self, batch: Sequence[Delivery]) -> None:
        try:
            missed = self._queue.hold(batch, for_s=self._hold_s)
        except QueueError:
            missed = len(batch)
            logger.warning("visibility_extension_failed", exc_info=True)
        metrics.VISIBILITY_EXTENSION_FAILURES.inc(missed)
