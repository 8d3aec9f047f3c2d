"""What a monitor is in this bench: it is shown a reference, then windows, and names the columns that have changed."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from numpy.typing import NDArray

Rows = Mapping[str, NDArray[Any]]  # floats, or words in a category, by column


class Detector(Protocol):
    """One monitor at work.

    `remembers`: what it says of a window depends on the windows before.
    """

    remembers: bool

    def fit(self, reference: Rows) -> None:
        """Take in the rows that windows are compared with."""

    def alarm(self, window: Rows) -> set[str]:
        """The columns that have changed, of those in the window; they are some or all of the reference's."""


Build = Callable[[str, int], Detector]  # of a name and the rows of a window


def categorical(column: NDArray[Any]) -> bool:
    """Whether the values are words."""
    return column.dtype.kind == "U"
