"""How far both inputs have been read, as an append time: by it predictions are over, whatever the time of day.

After an outage the time of day runs ahead of what was read; a timeout by it would be taught beside a label that lies in
the log unread. A topic in which nothing is left to read would hold the clock up for ever: there the time of day counts,
less `Join.patience`.
"""

from collections import deque
from collections.abc import Callable

from stream_trainer.offsets import Offsets

CLOCK = "stream_trainer.joiner.clock"
_SLOTS = 64


def slot_width(horizon: int) -> int:
    """Timers within so many milliseconds are one: a 64th of the horizon."""
    return max(1, horizon // _SLOTS)


def read_until(read: Offsets, ends: Offsets, unread: Callable[[Offsets], dict[tuple[str, int], int]], now: int) -> int:
    """The append time before which all has been read.

    Args:
        read: how far each partition was.
        ends: where each of them ended, looked up after `now`.
        unread: of partitions the append time of the first record from given offsets on, if there is one.
        now: what was appended before this is in `ends`; milliseconds.
    """
    behind: Offsets = {}
    for topic, partitions in ends.items():
        for partition, end in partitions.items():
            offset = read.get(topic, {}).get(partition, 0)
            if offset < end:
                behind.setdefault(topic, {})[partition] = offset
    times = list(unread(behind).values()) if behind else []
    return min([now, *times])


class LogClock:
    """Asks at most once a slot: that the log was read so far stays true.

    Attributes:
        settled: what was due by then has been given out, and what is unread was appended later.
    """

    def __init__(self, look: Callable[[Offsets, int], int], *, width: int, settle: int, settled: int) -> None:
        """A clock for a query that begins.

        Args:
            look: given offsets and the time of day at which they were planned, the append time that they reach.
            width: of a slot.
            settle: how long a timer may take, see `Join.settle`.
            settled: what was before.
        """
        self._look = look
        self._width = width
        self._settle = settle
        self.settled = settled
        self._until = 0
        self._looked: deque[tuple[int, int]] = deque()

    def at(self, read: Offsets, now: int) -> int:
        """The clock for a batch that was planned `now` and ends at `read`."""
        if not self._looked or now // self._width != self._looked[-1][0] // self._width:
            self._until = max(self._until, self._look(read, now))
            self._looked.append((now, self._until))
        while self._looked and self._looked[0][0] + self._settle <= now:
            # A key that is due may wait for the end of its slot.
            self.settled = max(self.settled, self._looked.popleft()[1] - self._width)
        return self._until
