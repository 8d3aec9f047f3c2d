"""UUIDv7 (RFC 9562) for predictions: they sort by time, so that stores which index them stay local.

The 12 bits after the version hold the fraction of the millisecond, counted up within a batch (method 3 of
section 6.2): ids of one process strictly increase. The 62 bits that remain are random.
"""

import os
import threading

from serving.clock import Clock

_VARIANT = 0b10 << 62
_VERSION = 7 << 12


class PredictionIds:
    """Makes ids in batches; safe to call from several threads."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = 0
        self._lock = threading.Lock()

    def take(self, count: int) -> list[str]:
        """So many new ids, ascending."""
        microseconds = int(self._clock().timestamp() * 1_000_000)
        with self._lock:
            first = max(microseconds * 4096 // 1000, self._last + 1)
            self._last = first + count - 1
        tails = os.urandom(8 * count)
        return [_uuid(first + i, int.from_bytes(tails[8 * i : 8 * i + 8])) for i in range(count)]


def _uuid(tick: int, tail: int) -> str:
    """`tick` counts 1/4096 of a millisecond since the epoch."""
    high = (tick >> 12) << 16 | _VERSION | (tick & 0xFFF)
    text = f"{high:016x}{_VARIANT | (tail >> 2):016x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
