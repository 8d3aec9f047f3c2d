"""Timing of something in this process."""

import statistics
import time
from collections.abc import Callable


def seconds(action: Callable[[], object], times: int = 7) -> float:
    """The median duration, after one call that does not count."""
    action()
    found = []
    for _ in range(times):
        started = time.perf_counter()
        action()
        found.append(time.perf_counter() - started)
    return statistics.median(found)
