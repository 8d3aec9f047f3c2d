"""One window alone, and 4, 16 and 64 of them together: a small lasting shift is found on small windows too.

Windows are put together by adding their counts, in blocks that do not overlap and that begin at multiples of their size
in event time. So which windows a block has is a function of the log alone, wherever a monitor was restarted. A block is
judged once; how much error each scale may make follows from how often it is judged.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

SCALES = (1, 4, 16, 64)
T = TypeVar("T")


class Block(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """Windows taken together.

    Attributes:
        scale: how many windows belong into it.
        place: which block of that scale, from the epoch: `index // scale`.
        windows: how many windows it has; fewer than `scale` when some had no rows.
        content: the windows' contents, added up.
    """

    scale: int
    place: int
    windows: int
    content: T


class Blocks(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """The blocks that are not complete, smallest scale first: the whole state, and msgspec can write it.

    `key` names what the contents were counted with (the digest of the frozen bins): under another one they cannot be
    added. `newest` is the index of the newest window.
    """

    key: str = ""
    newest: int | None = None
    open: tuple[Block[T], ...] = ()


def advance(
    blocks: Blocks[T], index: int, content: T, *, key: str, add: Callable[[T, T], T]
) -> tuple[Blocks[T], list[Block[T]]]:
    """Take in the next closed window.

    Args:
        blocks: what is held; `Blocks()` at first.
        index: the window's number from the epoch (its start divided by the length of a window); always a higher one.
        content: the window's.
        key: what it was counted with; blocks of another key are dropped unjudged.
        add: puts two contents together, the older one first.

    Returns:
        The blocks afterwards, and those to be judged now, smallest scale first; the window itself is the first of
        them or, when an older block had to wait for this window to be known as over, comes after it.

    Raises:
        ValueError: the window is not newer than the newest one.
    """
    raise NotImplementedError


def budgets(per_window: float) -> dict[int, float]:
    """The probability of any alarm that one quiet block of each scale may have.

    A block of s windows is judged once in s windows, so each scale may spend `s * per_window / 4` on it: the alarms to
    be expected per window are `per_window` over all scales together, and a quarter of them comes from each.
    """
    return {scale: min(1.0, scale * per_window / len(SCALES)) for scale in SCALES}
