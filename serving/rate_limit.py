"""How often one key may ask: a token bucket, kept as one number.

The bucket is kept as the instant at which it will be full again (virtual scheduling, ITU-T I.371, annex A: the same
verdicts as counting tokens). In whole nanoseconds, so no error adds up.
"""

from collections.abc import Callable

SECOND = 10**9

MonotonicNs = Callable[[], int]


class Bucket:
    """At most `burst` requests at once, and `rate` a second on average.

    Within any span of s seconds it grants at most `burst + rate * s` requests.

    Args:
        rate: requests a second, above 0.
        burst: requests at once, 1 or more.
    """

    __slots__ = ("_full_at", "_period", "_window")

    def __init__(self, rate: float, burst: int) -> None:
        self._period = max(1, round(SECOND / rate))
        self._window = self._period * burst
        self._full_at: int | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """What two buckets of the same limits have in common."""
        return self._period, self._window

    def take(self, now: int) -> int:
        """0 when a request is granted at `now`; else after how many nanoseconds one would be, and nothing is taken.

        A clock that goes back grants nothing that it would not have granted before.
        """
        full_at = self._full_at
        after = (now if full_at is None or full_at < now else full_at) + self._period
        wait = after - self._window - now
        if wait > 0:
            return wait
        self._full_at = after
        return 0


def retry_after(wait: int) -> str:
    """Nanoseconds as the header `Retry-After` says them: whole seconds, 1 or more."""
    return str(max(1, -(-wait // SECOND)))
