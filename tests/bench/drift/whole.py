"""The stated rate as a whole: all alarms of all kinds over quiet streams, against the one number that a user states."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path

import numpy as np
from rich.console import Console
from scipy.stats import poisson

from monitors.judging import ESTIMATE, FEATURES, LABELS, OUTCOMES
from stream_trainer.monitoring import Monitoring
from stream_trainer.settings import Settings
from tests.bench.drift import quiet
from tests.bench.drift.quiet import FROZEN_ROWS, NUMBERS, RHO, SEGMENTS, Pool, Stream
from tests.bench.drift.watched import TIMES, Course, Look, watch
from tests.bench.learning import plan
from tests.bench.learning.contestants import code_of
from tests.bench.options import Options
from tests.bench.section import Goal, Section

STREAMS = 3
SHARES: Mapping[str, tuple[float, Sequence[str]]] = {
    "features, answers, directions": (
        FEATURES,
        ("drift (learned)", "drift (baseline)", "quality", "prediction", "multivariate"),
    ),
    "estimate": (ESTIMATE, ("estimate",)),
    "label": (LABELS, ("label",)),
    "loss": (OUTCOMES / 2, ("loss",)),
    "concept": (OUTCOMES / 2, ("concept",)),
}
_ROOT = Path(__file__).parents[3]
_MIB, _FLAT_MIB = 2**20, 16.0
_TOLD = ("windows", "opened", "rounds", "often", "seconds")
_LOOKS = (1_000, 2_000, 5_000, 10_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Streams of one length of windows."""

    name: str
    window: timedelta
    rows: int
    windows: int
    streams: int

    @property
    def monitoring(self) -> Monitoring:
        """As a user would state it: one false alarm in 30 days."""
        return Monitoring(window=self.window, lateness=timedelta(0))

    @property
    def stated(self) -> float:
        """Alarms in all streams together."""
        return self.streams * self.windows * self.monitoring.false_alarms_per_window


def plans(streams: int) -> list[Plan]:
    """A year in windows of an hour (a third of it a stream), 35 days of five minutes."""
    return [
        Plan(name="an hour", window=timedelta(hours=1), rows=400, windows=2_920, streams=streams),
        Plan(name="5 minutes", window=timedelta(minutes=5), rows=120, windows=10_000, streams=1),
    ]


def measure(options: Options) -> Section:
    """`--runs`: streams of a third of a year in windows of an hour. Each is kept in the cache, so this goes on where it was interrupted."""
    wanted = plans(options.runs or STREAMS)
    folder = Settings().cache_dir / "bench" / "drift" / "whole"
    console, found = Console(), []
    for number, one in enumerate(wanted):
        courses = []
        for seed in range(one.streams):
            courses.append(_kept(folder / f"{_key(one)}-{seed}.json", one, (number, seed)))
            console.print(f"windows of {one.name}: stream {seed + 1}/{one.streams}", style="dim")
        found.append(courses)
    return _section(wanted, found)


def _key(one: Plan) -> str:
    files = [*(_ROOT / "monitors").glob("*.py"), *(_ROOT / "monitors/performance").glob("*.py")]
    deciding = {
        "report",
        "reports",
        "status",
        "gauges",
        "webhook",
        "outgoing",
        "forwarding",
        "explaining",
        "main",
        "query",
    }
    used = [path for path in files if path.stem not in deciding]
    own = [Path(__file__).with_name(f"{name}.py") for name in ("quiet", "watched")]
    return plan.key(*(code_of(path) for path in sorted(used) + own), repr((one.window, one.rows, one.windows)))


@cache
def _pool() -> Pool:
    return quiet.pool(np.random.default_rng(0))


def _kept(path: Path, one: Plan, seed: tuple[int, int]) -> Course:
    if not path.exists():
        course = watch(Stream(_pool(), seed), one.monitoring, one.windows, one.rows, _LOOKS)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(
            json.dumps(
                {name: getattr(course, name) for name in _TOLD} | {"looks": [asdict(look) for look in course.looks]}
            )
        )
        part.replace(path)
    read = json.loads(path.read_text())
    return Course(
        windows=read["windows"],
        opened=Counter(read["opened"]),
        rounds=Counter(read["rounds"]),
        often=Counter(read["often"]),
        seconds=read["seconds"],
        looks=[Look(**look) for look in read["looks"]],
    )


def _section(wanted: Sequence[Plan], found: Sequence[Sequence[Course]]) -> Section:
    rows: list[list[str]] = []
    goals: list[Goal] = []
    for one, courses in zip(wanted, found, strict=True):
        opened, rounds, often = (
            sum((getattr(course, name) for course in courses), Counter[str]()) for name in ("opened", "rounds", "often")
        )
        rows += [*_rows(one, opened, rounds, often), _any(one, opened, rounds, often)]
        goals += [
            _goal(f"rounds with an alarm, windows of {one.name}", one.stated, rounds[""]),
            _goal(f"the same at one a day, without `concept`, windows of {one.name}", _often(one), often[""]),
        ]
    looks = found[-1][-1].looks
    if looks:
        growth = (looks[-1].resident - looks[0].resident) / _MIB
        what = f"growth of the process from {looks[0].windows:,} to {looks[-1].windows:,} windows"
        goals.append(Goal(what=what, limit=_FLAT_MIB, found=growth, unit="MiB"))
    seconds = sum(course.seconds for courses in found for course in courses)
    return Section(
        title="False alarms of all kinds together",
        headings=("windows of", "kind", "stated", "alerts opened", "rounds with an alarm", "stated at one a day",
                  "rounds at one a day"),
        rows=rows,
        notes=[*_notes(wanted), _memory(looks), f"CPU: {seconds:,.0f} s."],
        goals=goals,
    )  # fmt: skip


def _notes(wanted: Sequence[Plan]) -> list[str]:
    streams = [
        f"{one.streams * one.windows * one.window // timedelta(days=1)} days in windows of {one.name}, of about {one.rows} rows "
        f"({one.streams} streams with bins of their own)"
        for one in wanted
    ]
    return [
        f"Nothing changes: {'; '.join(streams)}. Stated: one false alarm in 30 days. Rows are drawn from one pool.",
        (f"{NUMBERS + 5} features ({NUMBERS} numbers; hidden values correlate by {RHO:g}; missing values, ties, rare words), "
         f"{len(SEGMENTS)} segments, answers and labels; labels come a window late. The baseline is the first {FROZEN_ROWS:,} rows; "
         "what was learned is anew in each window what came in the 48 hours before it."),
        ("At one a day: the same p-values against 30 times the rate; `concept` is left out, because its detectors follow from the "
         "rate. Of `concept`, rounds are those in which it begins. Stated is the share of each part; kinds within it share that. "
         "In brackets where 95 % of Poisson counts lie."),
    ]  # fmt: skip


def _memory(looks: Sequence[Look]) -> str:
    told = "; ".join(f"{look.windows:,}: {look.resident / _MIB:.1f} MiB, {look.state / 1024:.0f} KiB" for look in looks)
    return f"After so many windows of five minutes the process, and the state between micro-batches: {told}."


def _rows(one: Plan, opened: Counter[str], rounds: Counter[str], often: Counter[str]) -> list[list[str]]:
    rows = []
    for part, (share, names) in SHARES.items():
        kinds = {name.split(" ")[0] for name in names}
        untold = part == "concept"
        rows.append([
            one.name,
            part,
            _interval(one.stated * share),
            f"{sum(opened[kind] for kind in kinds)}",
            _counted(names, rounds),
            "" if untold else _interval(one.stated * share * TIMES),
            "" if untold else _counted(names, often),
        ])  # fmt: skip
    return rows


def _any(one: Plan, opened: Counter[str], rounds: Counter[str], often: Counter[str]) -> list[str]:
    counts = f"{opened.total()}", f"{rounds['']}"
    return [one.name, "any", _interval(one.stated), *counts, _interval(_often(one)), f"{often['']}"]


def _often(one: Plan) -> float:
    return one.stated * TIMES * (1 - SHARES["concept"][0])


def _counted(names: Sequence[str], counts: Mapping[str, int]) -> str:
    """All rounds of some kinds; one in which several alarm counts for each."""
    told = [f"{name} {counts[name]}" for name in names if counts[name]]
    return f"{sum(counts[name] for name in names)}" + (f" ({', '.join(told)})" if len(names) > 1 and told else "")


def _interval(stated: float) -> str:
    """A number that is expected, and where 95 % of Poisson counts lie."""
    low, high = poisson.interval(0.95, stated)
    return f"{stated:.1f} ({low:.0f}-{high:.0f})"


def _goal(what: str, stated: float, found: int) -> Goal:
    """Chance alone has more than the limit in one of forty streams that alarm as often as is stated."""
    return Goal(
        what=f"{what} (stated {stated:.1f})", limit=float(poisson.ppf(0.975, stated)), found=found, unit="rounds"
    )
