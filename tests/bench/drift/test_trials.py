"""The bench of monitors: what it counts, that cells come back as they were."""

from pathlib import Path

import pytest

from tests.bench.drift import contestants, trials, worker
from tests.bench.drift.peers import dummies, textbook
from tests.bench.drift.trials import FEATURES, LONGEST, Cell, Trial
from tests.bench.drift.worlds import CHANGES


def clock() -> float:
    return 0.0


def run(trial: Trial, name: str, *, alone: bool = True) -> Cell:
    build = dummies.build if name in {"always", "never"} else textbook.build
    return trials.run(trial, build, name, alone=alone, clock=clock, limit=1.0)


@pytest.mark.parametrize(("name", "columns"), [("always", FEATURES), ("never", 0)])
def test_a_quiet_window_counts_all_columns_that_are_flagged(name: str, columns: int) -> None:
    assert run(Trial(kind="quiet", rows=20, windows=3), name).flagged == (columns,) * 3


@pytest.mark.parametrize(("name", "window"), [("always", 1), ("never", 0)])
def test_a_delay_is_the_first_window_in_which_the_changed_column_is_flagged(name: str, window: int) -> None:
    trial = Trial(kind="delay", change=CHANGES[0].name, rows=2, windows=2)
    assert run(trial, name).hits == (window,) * 2
    assert LONGEST > 1


def test_a_large_shift_is_found_and_one_outlier_moves_no_bin() -> None:
    shift = CHANGES[2].name
    assert run(Trial(kind="power", change=shift, rows=2_000, windows=6), "psi").hits == (1,) * 6
    assert run(Trial(kind="outlier", rows=1_000, windows=2), "psi").flagged == (0, 0)


def test_a_column_alone_is_the_same_as_among_all() -> None:
    trial = Trial(kind="power", change=CHANGES[1].name, rows=500, windows=12)
    assert run(trial, "significance").hits == run(trial, "significance", alone=False).hits


def test_no_window_is_begun_after_the_limit() -> None:
    ticks = iter(range(100))
    cell = trials.run(
        Trial(kind="quiet", rows=20), dummies.build, "never", alone=True, clock=lambda: float(next(ticks)), limit=2.5
    )
    assert (len(cell.flagged), cell.limit) == (3, 2.5)


def test_jobs_and_cells_come_back_as_they_were(tmp_path: Path) -> None:
    trial = Trial(kind="delay", change=CHANGES[0].name, rows=50)
    job = worker.Job(name="psi", alone=True, limit=2.0, cells=[(trial, tmp_path / "cell.json")])
    job.save(tmp_path / "job.json")
    assert worker.Job.load(tmp_path / "job.json") == job
    cell = Cell(flagged=(1, 0), hits=(3, 0), columns=1, seconds=0.5, limit=2.0)
    worker.write(tmp_path / "cells" / "cell.json", cell)
    assert worker.read(tmp_path / "cells" / "cell.json") == cell


def test_every_contestant_has_cells_of_its_own() -> None:
    assert len({contestants.digest(contestant) for contestant in contestants.ALL}) == len(contestants.ALL)
