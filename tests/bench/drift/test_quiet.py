"""The quiet stream is what it says, and what is counted there would show a change."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest

from stream_trainer.monitoring import Monitoring
from stream_trainer.reference import coded
from tests.bench.drift import quiet
from tests.bench.drift.quiet import NUMBERS, RHO, Pool, Stream, Window, contract
from tests.bench.drift.watched import Course, watch
from tests.bench.drift.whole import plans

ROWS = 3_000


@pytest.fixture(scope="module")
def pool() -> Pool:
    return quiet.pool(np.random.default_rng(0), ROWS)


def test_hidden_values_correlate_and_some_are_missing_together(pool: Pool) -> None:
    first, second = (pool.columns[f"number_{i}"].to_numpy(zero_copy_only=False) for i in (0, 1))
    assert np.corrcoef(first, second)[0, 1] == pytest.approx(RHO, abs=0.03)
    absent = [np.flatnonzero(pool.columns[f"number_{i}"].is_null()).tolist() for i in (2, 7)]
    assert absent[0] == absent[1]
    assert 0.03 * ROWS < len(absent[0]) < 0.07 * ROWS
    assert len(contract.features) == NUMBERS + 5


def test_windows_count_the_rows_that_were_drawn(pool: Pool) -> None:
    stream = Stream(pool, (1,))
    reference, drawn = stream.frozen.reference, np.array([5, 5, 7, 2_999])
    rows = {name: column.take(pa.array(drawn)) for name, column in pool.columns.items()}
    expected = coded(contract, reference, rows).count()[0]
    found = quiet.taken(coded(contract, reference, pool.columns), drawn).count()[0]
    assert (found == expected).all()
    windows = list(Stream(pool, (1,)).windows(70, 100))
    assert [(w.cells == v.cells).all() for w, v in zip(windows, stream.windows(70, 100), strict=True)] == [True] * 70
    assert all(window.tally.losses.rows == window.rows for window in windows)
    assert np.mean([window.rows for window in windows]) == pytest.approx(100, abs=4)


class Changed(Stream):
    """From the third watched window on rows come from another pool."""

    def __init__(self, pool: Pool, other: Pool, before: int) -> None:
        super().__init__(pool, (2,))
        self._other, self._before = other, before

    def windows(self, many: int, rows: int) -> Iterator[Window]:
        old, new = super().windows(many, rows), Stream(self._other, (3,))
        cells = coded(contract, self.frozen.reference, self._other.columns).count()[0]
        for i, (window, other) in enumerate(zip(old, new.windows(many, rows), strict=True)):
            yield window if i < self._before + 2 else replace(window, tally=other.tally, cells=cells)


def test_what_is_counted_would_show_a_change(pool: Pool) -> None:
    first = pool.columns["number_0"].to_numpy(zero_copy_only=False)
    other = replace(pool, columns={**pool.columns, "number_0": pa.array(first + 1.0)})
    monitoring = Monitoring(window=timedelta(hours=2), lateness=timedelta(0))
    found = watch(Changed(pool, other, 24), monitoring, 6, 1_000, looks=(2, 6))
    assert found.opened["drift"] >= 1
    assert found.rounds["drift (learned)"] >= 1
    assert 4 <= found.rounds[""] <= found.often[""] <= 6
    assert [look.windows for look in found.looks] == [2, 6]
    assert min(look.state for look in found.looks) > 1_000


def test_a_quiet_stream_is_quiet(pool: Pool) -> None:
    found = watch(Stream(pool, (4,)), Monitoring(window=timedelta(hours=2), lateness=timedelta(0)), 8, 300)
    assert (found.windows, found.opened, found.rounds) == (8, Course().opened, Course().rounds)


def test_a_year_is_watched() -> None:
    hours, minutes = plans(3)
    assert hours.streams * hours.windows * hours.window == timedelta(days=365)
    assert hours.stated == pytest.approx(365 / 30)
    assert minutes.windows == 10_000
