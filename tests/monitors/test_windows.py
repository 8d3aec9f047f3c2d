"""When a window of event time closes, and what it holds then."""

from datetime import timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitors.content import Content
from monitors.skipped import SUPPORT
from monitors.summary import Part
from monitors.windows import MAX_OPEN, Closed, Windows, close, extend

SECOND = timedelta(seconds=1)
TEN = 10_000_000


def part(times: list[float], *, partition: str = "p/0", closed: int | None = None) -> Part:
    """Rows at so many seconds, as a worker would count them."""
    micros = [round(at * 1e6) for at in times]
    kept = [at for at in micros if closed is None or at // TEN >= closed]
    numbers, rows = np.unique([at // TEN for at in kept], return_counts=True)
    windows = {int(n): Content(rows=int(count)) for n, count in zip(numbers, rows, strict=True)}
    return Part(windows=windows, highest={partition: sorted(micros)[-SUPPORT:]}, late=len(micros) - len(kept))


def run(batches: list[list[float]], *, lateness: float = 0.0) -> tuple[Windows, list[Closed]]:
    windows, found = Windows(), []
    for times in batches:
        taken = extend(windows, part(times, closed=windows.closed), sample_rows=1)
        windows, closed = close(taken, length=10 * SECOND, lateness=timedelta(seconds=lateness))
        found += closed
    return windows, found


def held(closed: list[Closed]) -> dict[int, int]:
    return {one.number: one.content.rows for one in closed}


@pytest.mark.parametrize(("ahead", "rows"), [(SUPPORT - 1, {}), (SUPPORT, {0: 3})])
def test_a_window_closes_when_enough_events_say_that_it_is_over(ahead: int, rows: dict[int, int]) -> None:
    _, closed = run([[1, 2, 3], [10.0] * ahead])
    assert held(closed) == rows


def test_one_clock_that_is_wrong_closes_nothing() -> None:
    windows, closed = run([[1, 2, 3], [9e5], [4, 5, 6]])
    assert held(closed) == {}
    assert windows.open[0].rows == 6


def test_lateness_keeps_a_window_open_and_what_comes_after_is_counted_as_late() -> None:
    windows, closed = run([[1.0] * 5, [12.0] * 5, [2.0]], lateness=5)
    assert (held(closed), windows.open[0].rows) == ({}, 6)
    windows, closed = run([[1.0] * 5, [12.0] * 5, [16.0] * 5, [2.0, 3.0, 12.0], [26.0] * 5], lateness=5)
    assert held(closed) == {0: 5, 1: 11}
    assert [one.late for one in closed] == [0, 2]
    assert windows.late == 0


def test_several_windows_are_open_and_close_oldest_first_with_their_instants() -> None:
    windows, closed = run([[1, 11, 21, 31, 41], [55.0] * 5])
    assert [one.number for one in closed] == [0, 1, 2, 3, 4]
    assert closed[1].end - closed[1].start == 10 * SECOND
    assert closed[1].start.timestamp() == 10
    assert (list(windows.open), windows.closed) == ([5], 5)


def test_too_many_open_windows_close_the_oldest() -> None:
    times = [10.0 * i for i in range(MAX_OPEN + 2)]
    windows, closed = run([times], lateness=1e9)
    assert [one.number for one in closed] == [0, 1]
    assert (len(windows.open), windows.closed) == (MAX_OPEN, 2)


TIMES = st.lists(st.floats(0, 100), max_size=40)


@given(TIMES, st.data())
@settings(deadline=None, max_examples=100)
def test_windows_are_a_function_of_the_records_unless_a_row_is_late(times: list[float], data: Any) -> None:
    """Exactly: the windows are those of all rows that were not late, whatever the batches."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(times)), max_size=6)))
    bounds = [0, *cuts, len(times)]
    batches = [times[a:b] for a, b in pairwise(bounds)]
    after, found = run(batches, lateness=3)
    once, whole = run([times], lateness=3)
    late = after.late + sum(one.late for one in found)
    rows = {**held(found), **{n: content.rows for n, content in after.open.items()}}
    expected = {**held(whole), **{n: content.rows for n, content in once.open.items()}}
    assert sum(rows.values()) + late == len(times) == sum(expected.values())
    assert after.closed == once.closed
    if late == 0:
        assert (held(found), rows) == (held(whole), expected)
    assert [one.number for one in found] == sorted(held(found))


@given(TIMES)
@settings(deadline=None, max_examples=50)
def test_rows_in_order_are_never_late(times: list[float]) -> None:
    ordered = sorted(times)
    after, found = run([[at] for at in ordered])
    assert after.late + sum(one.late for one in found) == 0
