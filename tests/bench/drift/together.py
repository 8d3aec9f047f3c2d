"""Errors and losses of windows that go with their neighbours: how often that is called a change, and how soon a change is found."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monitors.performance import concept
from monitors.performance.concept import Concept
from monitors.performance.counting import figures
from monitors.performance.exact import exact
from monitors.performance.levels import Levels
from monitors.performance.past import Past
from monitors.performance.realised import loss_findings
from monitors.performance.step import PAST_ROWS
from monitors.performance.tally import Losses, Tally
from tests.bench.options import Options
from tests.bench.section import Goal, Section

Floats = NDArray[np.float64]
Rng = np.random.Generator
QUIET, LOSSES, STREAMS, ROWS = 20_000, 1_000, 11, 500
RISES, TURNED = (1.0, 2.0, 4.0), (0.1, 0.2, 0.3)
SELDOM, LOSS = 1 / 720, 0.02
_KNOWN, _MOST, _CHANGED = 600, 1_500, 50


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """How windows differ: `errors` in standard errors of their rows, `losses` as deviation of how hard questions are (logarithm)."""

    name: str
    rho: float
    errors: float
    losses: float


WORLDS = (
    World(name="rows alone", rho=0.0, errors=0.0, losses=0.0),
    World(name="windows, 0", rho=0.0, errors=3.0, losses=0.2),
    World(name="windows, 0.5", rho=0.5, errors=3.0, losses=0.2),
    World(name="windows, 0.9", rho=0.9, errors=3.0, losses=0.2),
)


def measure(options: Options) -> Section:
    """`--runs`: quiet windows of the detectors of concept change."""
    windows = options.runs or QUIET
    errors = [alarms(world, windows) for world in WORLDS]
    rounds = [high(world) for world in WORLDS]
    stated = LOSSES * LOSS / 2
    return Section(
        title="Windows that go with their neighbours",
        headings=("windows differ by, and their autocorrelation", "concept: alarms",
                  *(f"windows until a rise by {rise:g} is found" for rise in RISES), "loss: rounds",
                  *(f"windows found, {share:.0%} turned" for share in TURNED)),
        rows=[
            [world.name, f"{errors[i]}", *(_delay(world, rise) for rise in RISES), f"{rounds[i]}",
             *(f"{share:.0%}" for share in caught(world))]
            for i, world in enumerate(WORLDS)
        ],
        notes=[
            (f"concept: {windows:,} windows in which nothing changes; one alarm in {1 / SELDOM:.0f} windows is stated: "
             f"{windows * SELDOM:.0f}. Rises are in deviations of a window's error, median of {STREAMS} streams after {_KNOWN} windows, "
             f"one alarm in {1 / SELDOM:.0f} stated; at most {_MOST} were waited for. Windows differ by {WORLDS[1].errors:g} standard errors of their rows."),
            (f"loss: {LOSSES:,} windows of {ROWS} rows; {stated:.0f} rounds are stated at most. Found: of {_CHANGED} windows each in which so many labels are turned, "
             f"after 200, one round in {1 / SELDOM:,.0f} stated."),
        ],
        goals=[Goal(what="concept: alarms", limit=windows * SELDOM, found=max(errors), unit="alarms"),
               Goal(what="loss: rounds", limit=stated, found=max(rounds), unit="rounds")],
    )  # fmt: skip


def course(rng: Rng, windows: int, rho: float) -> Floats:
    """A stationary autoregression of deviation 1."""
    found = rng.standard_normal(windows)
    for i in range(1, windows):
        found[i] = rho * found[i - 1] + (1 - rho**2) ** 0.5 * found[i]
    return found


def alarms(world: World, windows: int) -> int:
    """How often a change of the concept is said to begin while there is none."""
    rng = np.random.default_rng(1)
    state, found, before = Concept(), 0, False
    for mean in world.errors * course(rng, windows, world.rho) + rng.standard_normal(windows):
        state, finding = concept.judged(state, _surprised(float(mean)), rate=SELDOM)
        found += finding.state == "drift" and not before
        before = finding.state == "drift"
    return found


def _delay(world: World, rise: float) -> str:
    found = [_found_after(world, rise, seed) for seed in range(STREAMS)]
    return f"{np.median(found):.0f}"


def _found_after(world: World, rise: float, seed: int) -> int:
    rng = np.random.default_rng([seed, 2])
    means = world.errors * course(rng, _KNOWN + _MOST, world.rho) + rng.standard_normal(_KNOWN + _MOST)
    means[_KNOWN:] += rise * (1 + world.errors**2) ** 0.5
    state = Concept()
    for i, mean in enumerate(means):
        state, finding = concept.judged(state, _surprised(float(mean)), rate=SELDOM)
        if i >= _KNOWN and finding.state == "drift":
            return i - _KNOWN + 1
    return _MOST


def _surprised(mean: float) -> Tally:
    """A window whose rows have variance 1, and a mean of so many standard errors."""
    total, squares, variance = (exact(np.array([v])) for v in (mean * ROWS**0.5, ROWS + mean**2, float(ROWS)))
    return Tally(
        task="binary",
        losses=Losses(rows=ROWS),
        labels=[1, 1],
        surprise=total,
        surprise_squares=squares,
        surprise_variance=variance,
    )


def high(world: World) -> int:
    """How many rounds call the loss high while nothing changes."""
    past, usual, found = Past(), Levels(), 0
    for window in _windows(np.random.default_rng(3), world, LOSSES):
        findings, usual = loss_findings(window, past.total(), usual, alpha=LOSS, min_rows=50)
        found += any(finding.state == "drift" for finding in findings)
        past = past.then(window, rows=PAST_ROWS)
    return found


def caught(world: World) -> list[float]:
    """Which share of windows is found in which so many labels are turned."""
    rng = np.random.default_rng(4)
    past, usual = Past(), Levels()
    for window in _windows(rng, world, 200):
        _, usual = loss_findings(window, past.total(), usual, alpha=2 * SELDOM, min_rows=50)
        past = past.then(window, rows=PAST_ROWS)
    total = past.total()
    return [
        float(np.mean([_drifts(window, total, usual) for window in _windows(rng, world, _CHANGED, turned)]))
        for turned in TURNED
    ]


def _drifts(window: Tally, past: Tally, usual: Levels) -> bool:
    findings, _ = loss_findings(window, past, usual, alpha=2 * SELDOM, min_rows=50)
    return findings[0].state == "drift"


def _windows(rng: Rng, world: World, many: int, turned: float = 0.0) -> Iterator[Tally]:
    """Questions that are harder in some windows than in others, with answers that know it."""
    ones = np.ones(ROWS, np.int64)
    for hard in world.losses * course(rng, many, world.rho):
        answers = 1 / (1 + np.exp(-1.5 * np.exp(-hard) * rng.standard_normal(ROWS)))
        labels = (rng.random(ROWS) < answers) ^ (rng.random(ROWS) < turned)
        yield figures("binary", answers[:, None], labels.astype(np.float64), ones, {})
