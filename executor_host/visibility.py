"""Keep the messages of running jobs invisible to other hosts.

The queue's own visibility timeout is short, so the jobs of a lost host are redelivered soon.
"""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from threading import Event, Lock, Thread
from typing import Final

from executor_host import metrics
from executor_host.job_queue import MAX_BATCH_SIZE, JobQueue, QueueError, ReceivedMessage

INTERVAL_S: Final = 5.0  # two extensions in a row may fail before a message is redelivered
VISIBILITY_TIMEOUT_S: Final = 15  # equals the queue's own visibility timeout

logger = logging.getLogger(__name__)


class VisibilityExtender:
    """Extend the visibility timeout of all messages in flight, in batches."""

    def __init__(self, queue: JobQueue, *, interval_s: float = INTERVAL_S) -> None:
        self._queue = queue
        self._interval_s = interval_s
        self._in_flight: set[ReceivedMessage] = set()
        self._lock = Lock()
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="visibility", daemon=True)

    def start(self) -> None:
        """Start extending."""
        self._thread.start()

    def stop(self) -> None:
        """Stop extending; messages still in flight are redelivered."""
        self._stopping.set()

    @contextlib.contextmanager
    def extending(self, message: ReceivedMessage) -> Iterator[None]:
        """Keep a message invisible while the context lasts."""
        with self._lock:
            self._in_flight.add(message)
        try:
            yield
        finally:
            with self._lock:
                self._in_flight.discard(message)

    def _run(self) -> None:
        while not self._stopping.wait(self._interval_s):
            with self._lock:
                in_flight = list(self._in_flight)
            for start in range(0, len(in_flight), MAX_BATCH_SIZE):
                batch = in_flight[start : start + MAX_BATCH_SIZE]
                # One thread per batch: a call that hangs delays neither other batches nor the next interval.
                Thread(target=self._extend, args=(batch,), name="extend-visibility", daemon=True).start()

    def _extend(self, batch: Sequence[ReceivedMessage]) -> None:
        try:
            failed = self._queue.extend_visibility(batch, visibility_timeout_s=VISIBILITY_TIMEOUT_S)
        except QueueError:
            failed = len(batch)
            logger.warning("visibility_extension_failed", exc_info=True)
        metrics.VISIBILITY_EXTENSION_FAILURES.inc(failed)
