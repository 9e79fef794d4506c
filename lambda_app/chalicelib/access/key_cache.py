"""What this process saw last of each key: bounded in number and age. For admission."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from chalicelib.access.api_keys import KeyRecord

MAX_ENTRIES: Final = 1024  # about half a kilobyte each
TTL_S: Final = 30.0  # after the last read or write of the key


class _Entry(Struct, frozen=True):
    record: KeyRecord
    until: float


class KeyCache:
    """Any number of threads may use it at once."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, _Entry] = OrderedDict()

    def get(self, key_id: str) -> KeyRecord | None:
        """None if the key was not seen, or too long ago."""
        with self._lock:
            entry = self._entries.get(key_id)
        return entry.record if entry and self._clock() < entry.until else None

    def put(self, record: KeyRecord) -> None:
        """Of answers that overtook each other the newer one is kept: the arrival time of a key only grows."""
        now = self._clock()
        with self._lock:
            entry = self._entries.get(record.key_id)
            if entry is None or entry.until <= now or entry.record.tat_us <= record.tat_us:
                self._entries[record.key_id] = _Entry(record, now + TTL_S)
                self._entries.move_to_end(record.key_id)
            if len(self._entries) > MAX_ENTRIES:
                self._entries.popitem(last=False)

    def evict(self, key_id: str) -> None:
        with self._lock:
            self._entries.pop(key_id, None)
