"""Cache the latest record of each key in this process, limited in number and age. For admission."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from chalicelib.access.api_keys import KeyRecord

MAX_ENTRIES: Final = 1024  # about half a kilobyte each
TTL_S: Final = 30.0  # after the last read or write of the key


class KeyCache:
    """The cached records. Thread-safe."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, tuple[KeyRecord, float]] = OrderedDict()  # with the time when it expires

    def get(self, key_id: str) -> KeyRecord | None:
        """Return the cached record of a key, or None."""
        with self._lock:
            record, expires_at = self._entries.get(key_id, (None, 0.0))
        return record if self._clock() < expires_at else None

    def put(self, record: KeyRecord) -> None:
        """Cache a record unless the cached one is newer. The arrival times of a key only grow."""
        now = self._clock()
        with self._lock:
            cached, expires_at = self._entries.get(record.key_id, (None, 0.0))
            if cached is None or expires_at <= now or _age(cached) <= _age(record):
                self._entries[record.key_id] = record, now + TTL_S
                self._entries.move_to_end(record.key_id)
            if len(self._entries) > MAX_ENTRIES:
                self._entries.popitem(last=False)

    def evict(self, key_id: str) -> None:
        """Remove the record of a key."""
        with self._lock:
            self._entries.pop(key_id, None)


def _age(record: KeyRecord) -> tuple[int, int]:
    return record.tat_us, record.read_tat_us
