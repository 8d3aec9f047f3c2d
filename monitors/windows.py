"""Windows of predictions: summaries are added until there are enough rows, or enough time has passed with enough rows.

Pure, and a function of the log alone: time is the requests' own time, so a batch that is read again after a crash
closes the same window at the same place. A window holds whole micro-batches; with a backlog it may hold a few times
the rows asked for.
"""

from dataclasses import dataclass
from typing import Literal

import msgspec

from monitors.summary import Summary, add

Closing = Literal["full", "elapsed", "insufficient data"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowPolicy:
    """When a window closes.

    Attributes:
        rows: so many rows are enough.
        seconds: after so long, `min_rows` are enough.
        min_rows: with fewer, nothing is judged.
        patience: after `patience * seconds` a window with fewer rows is given up.
        sample_rows: raw rows kept for a report.
    """

    rows: int
    seconds: float
    min_rows: int
    patience: float = 60.0
    sample_rows: int = 2_000


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """The open window: what it holds, and the digest of the reference whose bins it was counted with."""

    reference: str | None = None
    content: Summary = Summary()

    @property
    def seconds(self) -> float:
        """From its first request to its last."""
        content = self.content
        if content.start is None or content.end is None:
            return 0.0
        return (content.end - content.start).total_seconds()


def extend(window: Window, summary: Summary, reference: str, policy: WindowPolicy) -> Window:
    """The window with more rows; one that was counted with other bins cannot go on and is begun anew."""
    if window.reference != reference:
        window = Window(reference=reference)
    return Window(reference=reference, content=add(window.content, summary, sample_rows=policy.sample_rows))


def closing(window: Window, policy: WindowPolicy) -> Closing | None:
    """Why the window is closed now; None while it stays open."""
    rows = window.content.rows
    if rows >= policy.rows:
        return "full"
    if rows >= policy.min_rows and window.seconds >= policy.seconds:
        return "elapsed"
    if rows and window.seconds >= policy.patience * policy.seconds:
        return "insufficient data"
    return None
