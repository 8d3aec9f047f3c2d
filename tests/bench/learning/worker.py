"""The process that fills cells: reads a job, runs its stream, writes each cell whole or not at all."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.bench import record
from tests.bench.learning import protocol
from tests.bench.learning.protocol import Cell, Forecaster
from tests.bench.learning.stream import Stream

Build = Callable[[str, Stream, int], Forecaster[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One learner, stream and seed.

    Attributes:
        stream: its file.
        shared: all sizes in one pass.
        limit: seconds for a pass.
        lengths: from block size to rows.
        cells: from block size to the file that is written.
    """

    stream: Path
    learner: str
    seed: int
    shared: bool
    limit: float
    lengths: Mapping[int, int]
    cells: Mapping[int, Path]

    def save(self, path: Path) -> None:
        """Write the file that a worker is given."""
        cells = {size: str(file) for size, file in self.cells.items()}
        path.write_text(json.dumps(asdict(self) | {"stream": str(self.stream), "cells": cells}))

    @classmethod
    def load(cls, path: Path) -> "Job":
        """The inverse of `save`."""
        read = json.loads(path.read_text())
        lengths = {int(size): rows for size, rows in read.pop("lengths").items()}
        cells = {int(size): Path(file) for size, file in read.pop("cells").items()}
        return cls(**read | {"stream": Path(read["stream"])}, lengths=lengths, cells=cells)


def write(path: Path, cell: Cell) -> None:
    """Whole or not at all."""
    record.write(path, asdict(cell))


def read(path: Path) -> Cell:
    """The inverse of `write`."""
    found = json.loads(path.read_text())
    return Cell(**found | {name: tuple(found[name]) for name in ("first", "second", "seconds")})


def main(path: str, build: Build) -> None:
    """Do the job in the file `path`, with learners that `build` makes of name, stream and seed."""
    job = Job.load(Path(path))
    stream = Stream.load(job.stream)
    passes = [dict(job.lengths)] if job.shared else [{size: rows} for size, rows in job.lengths.items()]
    for lengths in passes:
        forecaster = build(job.learner, stream, job.seed)
        for cell in protocol.run(forecaster, stream, lengths, clock=time.process_time, limit=job.limit):
            write(job.cells[cell.size], cell)
