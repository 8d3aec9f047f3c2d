"""All monitors in one table: fills the cells that are missing, a process a monitor, and reads them all."""

import math
import statistics
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np
from rich.console import Console

from stream_trainer.settings import Settings
from tests.bench.drift import contestants, trials, worker
from tests.bench.drift.contestants import ALL, OURS_EQUAL, Contestant
from tests.bench.drift.trials import FEATURES, LONGEST, STREAMS, Cell, Trial
from tests.bench.drift.worker import Job
from tests.bench.drift.worlds import CHANGES, REFERENCE_ROWS
from tests.bench.learning import plan
from tests.bench.learning.running import Processes
from tests.bench.options import Options
from tests.bench.peers import environments
from tests.bench.section import Goal, Section

SIZES, DELAYS, OUTLIER_ROWS = (50, 200, 1_000, 5_000), (200, 1_000), 1_000
_SECONDS = 6.0
_SHORT = ("0.1 sd", "0.25 sd", "0.5 sd", "sd x 1.25", "two humps", "mix")
_STATED = 5.0
Found = Mapping[Trial, Cell]


def measure(options: Options) -> Section:
    """Every contestant through every trial; `--seconds`: CPU seconds a trial may take, cells of a longer one stay."""
    cache, limit = Settings().cache_dir, options.seconds or _SECONDS
    homes = {c.environment: environments.ensure(c.environment, cache, own_torch=True) for c in ALL if c.environment}
    wanted = trials.all_trials(SIZES, DELAYS, OUTLIER_ROWS)
    files = {c: _files(c, wanted, cache / "bench" / "drift" / "cells") for c in ALL}
    console, processes = Console(), Processes(homes=homes)
    for contestant in reversed(ALL):  # the quick ones first
        if missing := [(t, path) for t, path in files[contestant].items() if not _filled(path, t, limit)]:
            console.print(f"{contestant.title}: {len(missing)} cells", style="dim", markup=False)
            _run(contestant, Job(name=contestant.name, alone=contestant.alone, limit=limit, cells=missing), processes)
    found = {c: {trial: worker.read(path) for trial, path in files[c].items()} for c in ALL}
    return Section(
        title="Monitors of drift, side by side",
        headings=("monitor", "rows", "quiet windows that alarm", "quiet columns flagged",
                  *(f"found: {name}" for name in _SHORT), *(f"windows until: {name}" for name in _SHORT),
                  "1e6 changes the decision"),
        rows=[_row(c, rows, found[c]) for c in ALL for rows in SIZES],
        notes=_notes(homes, limit),
        goals=[_goal(found)],
    )  # fmt: skip


def _files(contestant: Contestant, wanted: list[Trial], folder: Path) -> dict[Trial, Path]:
    code = contestants.digest(contestant)
    return {trial: folder / f"{contestant.name}-{plan.key(code, trial)}.json" for trial in wanted}


def _filled(path: Path, trial: Trial, limit: float) -> bool:
    """A cell that a shorter limit cut off is missing too."""
    if not path.exists():
        return False
    cell = worker.read(path)
    return len(cell.flagged) == trial.windows or cell.limit >= limit


def _run(contestant: Contestant, job: Job, processes: Processes) -> None:
    with tempfile.TemporaryDirectory(prefix="stream-trainer-bench-") as folder:
        path = Path(folder) / "job.json"
        job.save(path)
        processes.python(contestant.environment, contestant.module, path)


def _row(contestant: Contestant, rows: int, found: Found) -> list[str]:
    quiet = found[Trial(kind="quiet", rows=rows)]
    return [
        contestant.title,
        f"{rows:,}",
        _share(_alarms(contestant, quiet), trials.WINDOWS),
        f"{100 * sum(quiet.flagged) / (len(quiet.flagged) * FEATURES):.1f} %",
        *(_power(contestant, found[Trial(kind="power", change=c.name, rows=rows)]) for c in CHANGES),
        *(_delay(contestant, found, change.name, rows) for change in CHANGES),
        _outlier(contestant, found) if rows == OUTLIER_ROWS else "",
    ]


def _alarms(contestant: Contestant, cell: Cell) -> list[bool]:
    """Of each window: enough columns are flagged."""
    return [count > 0 and count >= contestant.share * cell.columns for count in cell.flagged]


def _power(contestant: Contestant, cell: Cell) -> str:
    hits = _alarms(contestant, cell) if contestant.share else [bool(hit) for hit in cell.hits]
    return _share(hits, trials.WINDOWS)


def _delay(contestant: Contestant, found: Found, change: str, rows: int) -> str:
    """The median over streams, those in which it was never found counted as longer than all."""
    if rows not in DELAYS or contestant.share:
        return ""
    cell = found[Trial(kind="delay", change=change, rows=rows, windows=STREAMS)]
    median = statistics.median([hit or math.inf for hit in cell.hits])
    text = f"{median:g}" if median <= LONGEST else f"> {LONGEST}"
    return text if len(cell.hits) == STREAMS else f"{text} ({len(cell.hits)})"


def _outlier(contestant: Contestant, found: Found) -> str:
    [trial] = [trial for trial in found if trial.kind == "outlier"]
    return _share([bool(changed) for changed in found[trial].flagged], trial.windows)


def _share(hits: list[bool], wanted: int) -> str:
    text = f"{100 * sum(hits) / len(hits):.0f} %"
    return text if len(hits) == wanted else f"{text} ({len(hits)})"


def _goal(found: Mapping[Contestant, Found]) -> Goal:
    [equal] = [c for c in ALL if c.name == OURS_EQUAL]
    alarms = [a for rows in SIZES for a in _alarms(equal, found[equal][Trial(kind="quiet", rows=rows)])]
    return Goal(what=f"ours, stated at 5 %: quiet windows that alarm, all sizes ({len(alarms):,} windows)",
                limit=_STATED, found=100 * float(np.mean(alarms)), unit="%")  # fmt: skip


def _notes(homes: Mapping[str, Path], limit: float) -> list[str]:
    told = "; ".join(
        f"{name}: {', '.join(f'{package} {number}' for package, number in environments.versions(programs).items())}"
        for name, programs in homes.items()
    )
    return [
        (
            f"{FEATURES} columns, five each: normal, lognormal, heavy ties, words down to 0.07 %. {trials.REFERENCES} "
            f"references of {REFERENCE_ROWS:,} rows; {trials.WINDOWS} windows, or as many as a bracket says: a trial "
            f"ends after {limit:g} s of CPU."
        ),
        (
            "found: one column has changed in a single window, the first after the reference, and is flagged. windows "
            f"until: the change lasts; median of {STREAMS} streams. A monitor that alarms on quiet columns finds sooner "
            "by chance: the line that always alarms says how soon."
        ),
        (
            "River's detectors know no categories, and are fed row by row: KSWIN with the last rows of the reference, "
            "ADWIN with all. NannyML: a chunk is a window, so its thresholds come from "
            f"{REFERENCE_ROWS // SIZES[-1]} chunks at {SIZES[-1]:,} rows. Half of the columns: any alarm counts as found."
        ),
        f"In the project's own environment: Evidently {version('evidently')}, its preset's own choice of tests. {told}.",
    ]
