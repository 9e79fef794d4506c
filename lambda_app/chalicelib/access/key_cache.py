"""What this process saw last of each key: bounded in number and age. For admission."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from chalicelib.access.api_keys import KeyRecord

MAX_KNOWN: Final = 1024  # about half a kilobyte each
KNOWN_S: Final = 30.0  # after the last read or write of the key


class _Known(Struct, frozen=True):
    record: KeyRecord
    until: float


class KnownKeys:
    """Any number of threads may use it at once."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._known: OrderedDict[str, _Known] = OrderedDict()

    def recall(self, key_id: str) -> KeyRecord | None:
        """None if the key was not seen, or too long ago."""
        with self._lock:
            known = self._known.get(key_id)
        return known.record if known and self._clock() < known.until else None

    def remember(self, record: KeyRecord) -> None:
        """Of answers that overtook each other the newer one is kept: the arrival time of a key only grows."""
        now = self._clock()
        with self._lock:
            known = self._known.get(record.key_id)
            if known is None or known.until <= now or known.record.tat_us <= record.tat_us:
                self._known[record.key_id] = _Known(record, now + KNOWN_S)
                self._known.move_to_end(record.key_id)
            if len(self._known) > MAX_KNOWN:
                self._known.popitem(last=False)

    def forget(self, key_id: str) -> None:
        with self._lock:
            self._known.pop(key_id, None)
