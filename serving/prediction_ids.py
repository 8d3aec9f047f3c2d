"""UUIDv7 (RFC 9562) for predictions: they sort by time, so that stores which index them stay local.

The 12 bits after the version hold the fraction of the millisecond, counted up within a batch (method 3 of
section 6.2): ids of one process strictly increase. The 62 bits that remain are random.
"""

import os
import threading
from functools import lru_cache

from serving.clock import Clock

# The two highest bits of the tail's first digit are the variant, 0b10.
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


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
        tail = _tail()
        return [f"{_prefix(tick >> 12)}{tick & 0xFFF:03x}{tail}" for tick in range(first, first + count)]


def _tail() -> str:
    digits = os.urandom(8).hex()
    return f"-{_VARIANT[digits[0]]}{digits[1:4]}-{digits[4:]}"


@lru_cache(maxsize=16)
def _prefix(milliseconds: int) -> str:
    time = f"{milliseconds:012x}"
    return f"{time[:8]}-{time[8:]}-7"
