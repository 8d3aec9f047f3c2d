"""Means of blocks: which rows count, and that how they are split does not."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_trainer.blocks import OpenBlock


def test_the_first_quarter_of_every_block_counts_in_no_mean() -> None:
    values = np.column_stack([np.arange(20.0), np.ones(20)])
    means, block = OpenBlock(size=8).add(values)
    assert means.tolist() == [[(2 + 3 + 4 + 5 + 6 + 7) / 6, 1.0], [(10 + 11 + 12 + 13 + 14 + 15) / 6, 1.0]]
    assert block == OpenBlock(size=8, rows=4, sums=(18.0 + 19.0, 2.0))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_block_too_small_for_a_quarter_counts_every_row(size: int) -> None:
    means, block = OpenBlock(size=size).add(np.arange(24.0).reshape(12, 2))
    assert means.sum() * size == sum(range(24))
    assert block == OpenBlock(size=size)


@given(st.integers(1, 30), st.integers(0, 90), st.lists(st.integers(0, 90), max_size=6))
def test_how_the_rows_are_split_changes_no_bit(size: int, rows: int, cuts: list[int]) -> None:
    values = np.random.default_rng(rows).normal(size=(rows, 2))
    whole, end = OpenBlock(size=size).add(values)
    block, pieces = OpenBlock(size=size), [np.empty((0, 2))]
    for start, stop in pairwise([0, *sorted(min(cut, rows) for cut in cuts), rows]):
        means, block = block.add(values[start:stop])
        pieces.append(means)
    assert np.concatenate(pieces).tolist() == whole.tolist()
    assert block == end
    assert (len(whole), end.rows) == divmod(rows, size)
