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
        The blocks afterwards, and those to be judged now, smallest scale first. A block whose last windows had no rows
        is only known to be over by a later window: it is judged then, before that window.

    Raises:
        ValueError: the window is not newer than the newest one.
    """
    if blocks.key != key:
        blocks = Blocks(key=key, newest=blocks.newest)
    if blocks.newest is not None and index <= blocks.newest:
        raise ValueError(f"window {index} comes after window {blocks.newest}: windows are taken in order")
    over = [block for block in blocks.open if index // block.scale != block.place]
    held = {block.scale: block for block in blocks.open if index // block.scale == block.place}
    due = [Block(scale=1, place=index, windows=1, content=content)]
    still: list[Block[T]] = []
    for scale in SCALES[1:]:
        block = _extended(held.get(scale), scale, index, content, add)
        (due if index % scale == scale - 1 else still).append(block)
    return Blocks(key=key, newest=index, open=tuple(still)), over + due


def _extended(block: Block[T] | None, scale: int, index: int, content: T, add: Callable[[T, T], T]) -> Block[T]:
    if block is None:
        return Block(scale=scale, place=index // scale, windows=1, content=content)
    return Block(scale=scale, place=block.place, windows=block.windows + 1, content=add(block.content, content))


def budgets(per_window: float) -> dict[int, float]:
    """The probability of any alarm that one quiet block of each scale may have.

    A block of s windows is judged once in s windows, so each scale may spend `s * per_window / 4` on it: the alarms to
    be expected per window are `per_window` over all scales together, and a quarter of them comes from each.
    """
    return {scale: min(1.0, scale * per_window / len(SCALES)) for scale in SCALES}
