"""Blocks hold what their windows hold, are judged once, and are the same wherever the monitor was restarted."""

from operator import add

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitors.scales import SCALES, Block, Blocks, advance, budgets

INDICES = st.lists(st.integers(0, 300), unique=True, max_size=80).map(sorted)


def walk(indices: list[int]) -> list[Block[int]]:
    """Window i holds `2 ** i`, so that a sum says which windows are in it."""
    blocks: Blocks[int] = Blocks()
    found = []
    for index in indices:
        blocks, due = advance(blocks, index, 2**index, key="bins", add=add)
        found += due
    return found


@given(INDICES)
def test_a_block_holds_its_windows_and_no_other(indices: list[int]) -> None:
    for block in walk(indices):
        inside = [i for i in indices if i // block.scale == block.place]
        assert (block.content, block.windows) == (sum(2**i for i in inside), len(inside))


@given(INDICES)
def test_a_block_is_judged_once_and_all_that_are_over_are(indices: list[int]) -> None:
    judged = [(block.scale, block.place) for block in walk(indices)]
    over = {
        (s, i // s) for s in SCALES for i in indices if (i // s + 1) * s <= (indices[-1] // s) * s or i % s == s - 1
    }

    assert len(judged) == len(set(judged))
    assert set(judged) >= over
    assert sum(scale == 1 for scale, _ in judged) == len(indices)


@given(INDICES, st.integers(0, 80))
def test_what_was_written_down_goes_on_as_before(indices: list[int], at: int) -> None:
    class Sum(msgspec.Struct):
        value: int

    state: Blocks[Sum] = Blocks()
    found = []
    for number, index in enumerate(indices):
        if number == at:
            state = msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=Blocks[Sum])
        state, due = advance(state, index, Sum(index), key="b", add=lambda a, b: Sum(a.value + b.value))
        found += [(block.scale, block.place, block.content.value) for block in due]

    state = Blocks()
    for index in indices:
        state, due = advance(state, index, Sum(index), key="b", add=lambda a, b: Sum(a.value + b.value))
        for block in due:
            assert found.pop(0) == (block.scale, block.place, block.content.value)


def test_the_scales_come_due_one_after_the_other() -> None:
    assert [(b.scale, b.place) for b in walk(list(range(16)))][-3:] == [(1, 15), (4, 3), (16, 0)]
    assert [(b.scale, b.windows) for b in walk([0, 1, 2, 9])] == [(1, 1), (1, 1), (1, 1), (4, 3), (1, 1)]


def test_other_bins_begin_anew_and_an_old_window_is_refused() -> None:
    blocks, _ = advance(Blocks[int](), 0, 1, key="old", add=add)
    blocks, due = advance(blocks, 3, 1, key="new", add=add)

    assert [(b.scale, b.content) for b in due] == [(1, 1), (4, 1)]
    with pytest.raises(ValueError, match="window 3 comes after window 3"):
        advance(blocks, 3, 1, key="new", add=add)


def test_the_alarms_to_be_expected_are_those_that_were_stated() -> None:
    found = budgets(1 / 8_640)

    assert sum(budget / scale for scale, budget in found.items()) == pytest.approx(1 / 8_640)
    assert all(budget <= 1 for budget in budgets(1.0).values())
