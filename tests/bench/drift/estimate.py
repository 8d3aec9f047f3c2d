"""Performance estimated without labels: ours and NannyML's CBPE, on windows whose labels are known to us only.

The answers are too sure of themselves, so both have to calibrate them by the same 10,000 joined examples.
"""

import json
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from monitors.performance.calibration import calibration_map
from monitors.performance.counting import figures
from monitors.performance.estimate import Estimate, estimate, estimate_finding
from monitors.performance.levels import Levels
from monitors.performance.tally import BINS
from stream_trainer.evaluation.calibration import roc_auc
from stream_trainer.settings import Settings
from tests.bench.options import Options
from tests.bench.peers import environments
from tests.bench.section import Section

Floats = NDArray[np.float64]
REFERENCE_ROWS, WINDOWS, SIZES = 10_000, 100, (200, 1_000)
ALPHA = 0.01
_METRICS = ("accuracy", "roc_auc")


@dataclass(frozen=True, slots=True)
class World:
    """What is asked in a window: Beta(a, b) of the true chance; `moved` is added to it, and the answers do not know."""

    title: str
    a: float = 2.0
    b: float = 4.0
    moved: float = 0.0


WORLDS = (
    World("quiet"),
    World("harder questions", 4.0, 4.0),
    World("easier questions", 1.0, 6.0),
    World("another concept", moved=0.15),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Answers and labels, each `[windows, rows]`."""

    answers: Floats
    labels: Floats


def draw(world: World, rng: np.random.Generator, windows: int, rows: int) -> Rows:
    """Windows of a world; the log-odds answered are 1.5 times the true ones."""
    chance = np.clip(rng.beta(world.a, world.b, (windows, rows)), 1e-3, 1.0 - 1e-3)
    answers = 1.0 / (1.0 + (1.0 / chance - 1.0) ** 1.5)
    labels = rng.random((windows, rows)) < np.clip(chance + world.moved, 0.0, 1.0)
    return Rows(answers=answers, labels=labels.astype(np.float64))


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Of one contestant: per metric the estimates and standard errors `[windows]`, alarms, and CPU seconds."""

    values: Mapping[str, Floats]
    errors: Mapping[str, Floats]
    alarms: NDArray[np.bool_]
    seconds: float


def ours(reference: Rows, windows: Rows) -> Found:
    """What the monitor would say of each window."""
    began = time.process_time()
    labels = reference.labels.ravel()
    past = figures("binary", reference.answers.reshape(-1, 1), labels, np.ones(len(labels), dtype=np.int64), {})
    known = calibration_map(past)
    counts = [_counts(row) for row in windows.answers]
    said: list[Estimate] = [estimate("binary", known, row.astype(float)) for row in counts]
    usual, alarms = Levels(), []
    for row in [*map(_counts, reference.answers), *counts]:
        finding, usual = estimate_finding(past, row.tolist(), usual, alpha=ALPHA, min_rows=50)
        alarms.append(finding.state == "drift")
    told = {name: [getattr(one, name) for one in said] for name in ("log_loss", *_METRICS)}
    return Found(
        values={name: np.array([figure.value for figure in figures_]) for name, figures_ in told.items()},
        errors={name: np.array([figure.error for figure in figures_]) for name, figures_ in told.items()},
        alarms=np.array(alarms[-len(counts) :]),
        seconds=time.process_time() - began,
    )


def _counts(answers: Floats) -> NDArray[np.int64]:
    return np.bincount((answers * BINS).astype(int).clip(0, BINS - 1), minlength=BINS)


def nannyml(programs: Path, reference: Rows, windows: Rows) -> Found:
    """What NannyML says of each window as a chunk; an alarm is one of either metric."""
    with tempfile.TemporaryDirectory(prefix="stream-trainer-bench-") as name:
        folder = Path(name)
        np.savez(
            folder / "rows.npz",
            reference=reference.answers.ravel(),
            reference_labels=reference.labels.ravel(),
            windows=windows.answers.ravel(),
        )
        script = Path(environments.__file__).with_name("nannyml_cbpe.py")
        subprocess.run([programs / "python", script, folder, str(windows.answers.shape[1])], check=True)
        found = json.loads((folder / "found.json").read_text())
    return Found(
        values={metric: np.array(found[metric]["value"]) for metric in _METRICS},
        errors={metric: np.array(found[metric]["sampling_error"]) for metric in _METRICS},
        alarms=np.any([np.array(found[metric]["alert"]) > 0 for metric in _METRICS], axis=0),
        seconds=found["seconds"],
    )


def realised(windows: Rows) -> dict[str, Floats]:
    """What came true `[windows]`."""
    chance = np.where(windows.labels == 1.0, windows.answers, 1.0 - windows.answers)
    areas = [roc_auc(a, y) for a, y in zip(windows.answers, windows.labels, strict=True)]
    return {
        "log_loss": -np.log(chance).mean(axis=1),
        "accuracy": ((windows.answers > 0.5) == windows.labels).mean(axis=1),
        "roc_auc": np.array([np.nan if area is None else area for area in areas]),
    }


def measure(_options: Options) -> Section:
    """Every world and size, both contestants."""
    programs = environments.ensure("nannyml", Settings().cache_dir, own_torch=True)
    rows: list[list[str]] = []
    for number, world in enumerate(WORLDS):
        for size in SIZES:
            rng = np.random.default_rng((number, size))
            reference, windows = draw(WORLDS[0], rng, 1, REFERENCE_ROWS), draw(world, rng, WINDOWS, size)
            truth = realised(windows)
            both = {"ours": ours(reference, windows), "NannyML": nannyml(programs, reference, windows)}
            rows += [[world.title, f"{size:,}", who, *_columns(found, truth)] for who, found in both.items()]
    return Section(
        title="Performance estimated without labels",
        headings=("windows", "rows", "", "log loss: error", "within 1.96 SE", "accuracy: error", "within 1.96 SE",
                  "ROC AUC: error", "within 1.96 SE", "windows that alarm", "CPU s"),
        rows=rows,
        notes=(
            (f"error: mean distance between the estimate and what came true, {WINDOWS} windows; what labels do by chance is "
            "part of it. within 1.96 SE: 95 % is right. Answers are too sure: log-odds times 1.5; "
            f"{REFERENCE_ROWS:,} joined examples calibrate them."),
            (f"ours alarms when more log loss is to be expected than before, error {ALPHA:g} a window; NannyML when accuracy "
            "or ROC AUC leaves three standard deviations of the reference's chunks, up or down. NannyML 0.13 has no log loss."),
            "Another concept is what no estimate without labels can see: labels come true 0.15 more often than before.",
        ),
    )  # fmt: skip


def _columns(found: Found, truth: Mapping[str, Floats]) -> list[str]:
    told = []
    for metric in ("log_loss", *_METRICS):
        if metric not in found.values:
            told += ["", ""]
            continue
        gaps = np.abs(found.values[metric] - truth[metric])
        inside = np.nanmean(gaps <= 1.96 * found.errors[metric])
        told += [f"{np.nanmean(gaps):.4f}", f"{100 * inside:.0f} %"]
    return [*told, f"{100 * found.alarms.mean():.0f} %", f"{found.seconds:.2f}"]


if __name__ == "__main__":
    print(measure(Options()).markdown())  # noqa: T201 - it is a program
