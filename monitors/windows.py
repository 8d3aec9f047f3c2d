"""Tumbling windows of event time: several are open, and time moves on when enough records say so.

Pure. Window n holds the event times `[n, n + 1)` times its length since 1970. The watermark is the fifth highest event time
seen, less the lateness; an event time counts for no more than the moment Kafka got its record. So one clock that is wrong, in
either direction, closes nothing. A window whose end the watermark has passed when a micro-batch was added up is closed with it, and
what comes for it in a later micro-batch is late: counted, and in no window. All else is a function of the records alone.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import msgspec

from monitors import skipped
from monitors.content import Content
from monitors.skipped import SUPPORT, Skipped
from monitors.summary import Before, Part, add_windows, further

MAX_OPEN = 1_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Windows(msgspec.Struct, frozen=True, kw_only=True):
    """The open windows of one topic. `Windows()` is the beginning.

    Attributes:
        open: contents by number.
        closed: windows of a lower number are closed; None while none is.
        highest: as in `summary.Part`.
        late: rows that came for closed windows since a window was closed last.
        skipped: what could not be read, by the number of its window.
    """

    open: dict[int, Content] = {}
    closed: int | None = None
    highest: dict[str, list[int]] = {}
    late: int = 0
    skipped: dict[int, Skipped] = {}

    @property
    def before(self) -> Before:
        """What the workers have to know of it."""
        return Before(closed=self.closed, highest=self.highest)


class Closed(msgspec.Struct, frozen=True, kw_only=True):
    """One window that is over.

    `late`: rows for earlier windows that came while it was the next to be closed. `skipped`: what could not be read.
    """

    number: int
    start: datetime
    end: datetime
    content: Content
    late: int = 0
    skipped: Skipped = Skipped()


def extend(windows: Windows, part: Part, *, sample_rows: int) -> Windows:
    """With what one micro-batch brought."""
    return Windows(
        open=add_windows(windows.open, part.windows, sample_rows=sample_rows),
        closed=windows.closed,
        highest=further(windows.highest, part.highest),
        late=windows.late + part.late,
        skipped=skipped.add_by_window(windows.skipped, part.skipped),
    )


def close(windows: Windows, *, length: timedelta, lateness: timedelta) -> tuple[Windows, list[Closed]]:
    """Close what the watermark has passed, the oldest first; of more than `MAX_OPEN` windows, the oldest at any rate."""
    watermark = _watermark(windows.highest)
    micros, later = length // timedelta(microseconds=1), lateness // timedelta(microseconds=1)
    passed = None if watermark is None else (watermark - later) // micros
    numbers = sorted(windows.open)
    over = [n for n in numbers if passed is not None and n < passed]
    over = max(over, numbers[:-MAX_OPEN], key=len)
    known = [n for n in (windows.closed, passed, over[-1] + 1 if over else None) if n is not None]
    found, left = [], windows.skipped
    for n in over:
        left, mine = skipped.up_to(left, n)
        found.append(_closed(n, windows.open[n], length, windows.late if n == over[0] else 0, mine))
    after = Windows(
        open={n: windows.open[n] for n in numbers[len(over) :]},
        closed=max(known, default=None),
        highest=windows.highest,
        late=0 if over else windows.late,
        skipped=left,
    )
    return after, found


def _watermark(highest: Mapping[str, list[int]]) -> int | None:
    """The fifth highest event time of all partitions; None while fewer were seen."""
    times = sorted(at for partition in highest.values() for at in partition)
    return times[-SUPPORT] if len(times) >= SUPPORT else None


def _closed(number: int, content: Content, length: timedelta, late: int, mine: Skipped) -> Closed:
    start = _EPOCH + number * length
    return Closed(number=number, start=start, end=start + length, content=content, late=late, skipped=mine)
