"""The process that fills cells: reads a job, puts its monitor through the trials, writes each cell whole or not at all."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.bench import record
from tests.bench.drift import trials
from tests.bench.drift.detectors import Build
from tests.bench.drift.trials import Cell, Trial


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One monitor's trials, and the file of each.

    Attributes:
        name: of the monitor, for its module.
        alone: it judges each column by itself.
        limit: CPU seconds of a trial.
    """

    name: str
    alone: bool
    limit: float
    cells: Sequence[tuple[Trial, Path]]

    def save(self, path: Path) -> None:
        """Write the file that a worker is given."""
        cells = [[asdict(trial), str(file)] for trial, file in self.cells]
        path.write_text(json.dumps({"name": self.name, "alone": self.alone, "limit": self.limit, "cells": cells}))

    @classmethod
    def load(cls, path: Path) -> "Job":
        """The inverse of `save`."""
        read = json.loads(path.read_text())
        cells = [(Trial(**trial), Path(file)) for trial, file in read.pop("cells")]
        return cls(**read, cells=cells)


def write(path: Path, cell: Cell) -> None:
    """Whole or not at all."""
    record.write(path, asdict(cell))


def read(path: Path) -> Cell:
    """The inverse of `write`."""
    found = json.loads(path.read_text())
    return Cell(**found | {name: tuple(found[name]) for name in ("flagged", "hits")})


def main(path: str, build: Build) -> None:
    """Do the job in the file `path`, with monitors that `build` makes."""
    job = Job.load(Path(path))
    for trial, file in job.cells:
        cell = trials.run(trial, build, job.name, alone=job.alone, clock=time.process_time, limit=job.limit)
        write(file, cell)
