"""Rows in which two columns are missing: exact, and the same whatever came in which batch."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from monitors.content import Content, add
from monitors.missing import MOST_COLUMNS, both_missing, watched_columns
from stream_trainer.reference import Bins, Reference, unpack

NAMES = ("a", "b", "c")
ROWS = st.lists(st.tuples(*[st.sampled_from([None, 1.0])] * 3), min_size=1, max_size=40)


def columns(rows: list[tuple[float | None, ...]]) -> dict[str, pa.Array]:
    return {name: pa.array([row[i] for row in rows], pa.float64()) for i, name in enumerate(NAMES)}


@given(ROWS, st.integers(0, 40))
def test_it_counts_what_it_says_however_the_rows_came(rows: list[tuple[float | None, ...]], at: int) -> None:
    whole = unpack(both_missing(NAMES, columns(rows)), 9).reshape(3, 3)
    for i in range(3):
        for j in range(i, 3):
            assert whole[i, j] == sum(row[i] is None and row[j] is None for row in rows)
    parts = [
        Content(rows=len(part), digest="d", missing=both_missing(NAMES, columns(part)))
        for part in (rows[:at], rows[at:])
        if part
    ]
    together = parts[0] if len(parts) == 1 else add(*parts, sample_rows=0)
    assert np.array_equal(unpack(together.missing, 9).reshape(3, 3), whole)


def test_where_nothing_is_missing_there_is_nothing_to_keep() -> None:
    assert both_missing(NAMES, columns([(1.0, 1.0, 1.0)])) == b""
    assert both_missing(NAMES, {"a": pa.array([1.0])}) == b""


def test_what_was_counted_with_other_bins_is_not_put_together() -> None:
    one = Content(rows=1, digest="d", missing=both_missing(NAMES, columns([(None, None, None)])))
    assert add(one, Content(rows=1, digest="e"), sample_rows=0).missing == b""


def test_only_so_many_columns_of_the_contract_are_counted() -> None:
    bins = [Bins(feature=f"f{i}", kind="number") for i in range(MOST_COLUMNS + 5)]
    names = watched_columns(Reference((Bins(feature="_label", kind="number"), *bins)))
    assert names == tuple(f"f{i}" for i in range(MOST_COLUMNS))
