"""Rows as structs, as columns and joined are the same rows."""

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from serving.rows import Rows
from stream_trainer.contract import BinaryLabel, Contract, Numeric, Vector
from stream_trainer.schema import struct_type

CONTRACT = Contract(
    features=[Numeric("x", optional=True), Vector("v", size=2)], label=BinaryLabel("y"), key="k", event_time="t"
)
STRUCT = struct_type(CONTRACT, "request")
ROW = st.tuples(st.none() | st.floats(-9, 9), st.lists(st.floats(-9, 9), min_size=2, max_size=2), st.none() | st.text())
REQUEST = st.tuples(st.lists(ROW, min_size=1, max_size=12), st.booleans())


def of(values: list[tuple[Any, ...]], *, as_columns: bool) -> Rows:
    if not as_columns:
        return Rows.of([STRUCT(f0=x, f1=v, f2=k, f3=None) for x, v, k in values])
    x, v, k = zip(*values, strict=True)
    return Rows.of_columns((x, np.array(v), list(k), [None] * len(values)))


@given(st.lists(REQUEST, min_size=1, max_size=5))
def test_joined_rows_are_the_rows_of_each(requests: list[tuple[list[tuple[Any, ...]], bool]]) -> None:
    some = [of(values, as_columns=as_columns) for values, as_columns in requests]
    joined = Rows.joined(some)
    expected = [(x, v, k, None) for values, _ in requests for x, v, k in values]
    assert list(joined.tuples()) == expected
    assert [len(column) for column in joined.columns] == [len(expected)] * 4
    assert [id(part) for part in joined.parts] == [id(part) for part in some]
    assert [joined.first(i) for i in range(4)] == list(expected[0])


@given(REQUEST, st.integers(0, 11), st.integers(1, 12))
def test_a_part_is_a_slice(request_: tuple[list[tuple[Any, ...]], bool], start: int, length: int) -> None:
    rows = of(request_[0], as_columns=request_[1])
    some = list(rows.part(start, start + length).tuples()) if start < len(rows) else []
    assert some == list(rows.tuples())[start : start + length]
