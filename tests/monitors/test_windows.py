"""When a window of predictions closes."""

from datetime import timedelta

import pytest

from monitors.summary import Summary
from monitors.windows import Window, WindowPolicy, closing, extend

from .worlds import START

POLICY = WindowPolicy(rows=1_000, seconds=60, min_rows=200)


def _summary(rows: int, begin: float, end: float) -> Summary:
    return Summary(rows=rows, start=START + timedelta(seconds=begin), end=START + timedelta(seconds=end))


@pytest.mark.parametrize(
    ("rows", "seconds", "expected"),
    [
        (0, 0, None),
        (999, 59, None),
        (1_000, 1, "full"),
        (5_000, 1, "full"),
        (200, 60, "elapsed"),
        (199, 60, None),
        (199, 3_599, None),
        (199, 3_600, "insufficient data"),
        (200, 3_600, "elapsed"),
    ],
)
def test_a_window_closes_by_rows_or_by_time_with_enough_rows(rows: int, seconds: float, expected: str | None) -> None:
    assert closing(extend(Window(), _summary(rows, 0, seconds), "bins", POLICY), POLICY) == expected


def test_time_is_the_time_of_the_requests() -> None:
    window = extend(Window(), _summary(100, 10, 20), "bins", POLICY)
    window = extend(window, _summary(100, 5, 65), "bins", POLICY)

    assert (window.content.rows, window.seconds) == (200, 60)
    assert closing(window, POLICY) == "elapsed"


def test_rows_counted_with_other_bins_begin_a_window_of_their_own() -> None:
    window = extend(Window(), _summary(500, 0, 1), "bins", POLICY)
    window = extend(window, _summary(10, 1, 2), "other bins", POLICY)

    assert (window.reference, window.content.rows) == ("other bins", 10)
