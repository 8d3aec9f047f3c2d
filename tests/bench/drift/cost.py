"""What watching costs: CPU and memory of one large frame, ours beside Evidently's preset, and memory over many windows.

Each runs in a process of its own, so that one's memory is not the other's.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.options import Options
from tests.bench.section import Goal, Section

ROWS, FEATURES, WINDOWS = 1_000_000, 20, 10_000
PIECES = (2_000, 20_000)
_MIB = 2**20
_ROOT = Path(__file__).parents[3]
_WORKER = "tests.bench.drift.cost_worker"
_SHARE = 1 / 50
_FLAT_MIB = 16.0  # an interpreter's own ups and downs


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """CPU seconds, and by how many bytes the process grew at its peak."""

    seconds: float
    grown: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """Bytes after so many windows: of the process, and of the state as it is stored."""

    windows: int
    resident: int
    state: int


def measure(options: Options) -> Section:
    """`--runs`: windows whose memory is looked at."""
    windows = options.runs or WINDOWS
    whole, pieces = _spent("ours", ROWS), [_spent("ours", rows) for rows in PIECES]
    preset = _spent("evidently")
    courses = [Course(**one) for one in _ask("windows", windows)]
    first, last = courses[0], courses[-1]
    rows = [
        *([f"ours, {piece:,} rows at a time", *_cells(spent)] for piece, spent in zip(PIECES, pieces, strict=True)),
        ["ours, the frame at once", *_cells(whole)],
        ["Evidently's preset", *_cells(preset)],
        *([f"ours after {c.windows:,} windows", "", f"{c.resident / _MIB:.1f} held, state {c.state / 1024:.1f} KiB"]
          for c in courses),
    ]  # fmt: skip
    return Section(
        title="Cost of watching",
        headings=("who", "CPU seconds", "MiB more than before"),
        rows=rows,
        notes=[
            (f"{ROWS:,} rows x {FEATURES} columns (a quarter of them words) against a reference of 20,000 rows. Ours: "
            "counting in the frozen bins, random projections included, and all decisions; Evidently: the preset's report "
            "on a data frame. Neither drawing the rows nor importing counts."),
            (f"Workers count some {PIECES[0]:,} rows at a time where a record is a row, trainers up to {PIECES[1]:,}. At once, memory that is "
            "touched for the first time costs as much as counting."),
            ("Windows: two columns and a segment, windows of 200 rows through opening, closing, judging at four scales and "
            "the life of alerts, a tenth of them changed; the state is all that is kept between micro-batches."),
        ],
        goals=[
            *(Goal(what=f"ours, {piece:,} rows at a time, of Evidently's CPU", limit=100 * _SHARE,
                   found=100 * spent.seconds / preset.seconds, unit="%")
              for piece, spent in zip(PIECES, pieces, strict=True)),
            Goal(what="ours, at once, of Evidently's CPU", limit=100 * _SHARE,
                 found=100 * whole.seconds / preset.seconds, unit="%"),
            Goal(what=f"growth from {first.windows:,} to {last.windows:,} windows", limit=_FLAT_MIB,
                 found=(last.resident - first.resident) / _MIB, unit="MiB"),
        ],
    )  # fmt: skip


def _cells(spent: Spent) -> list[str]:
    return [f"{spent.seconds:.2f}", f"{spent.grown / _MIB:,.0f}"]


def _spent(who: str, *arguments: int) -> Spent:
    return Spent(**_ask(who, *arguments))


def _ask(*words: str | int) -> Any:
    command = [sys.executable, "-W", "ignore", "-m", _WORKER, *map(str, words)]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{_WORKER} {words[0]} failed: {done.stderr[-1500:]}")
    return json.loads(done.stdout.splitlines()[-1])
