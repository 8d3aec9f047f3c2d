"""A real year through the monitor: which alerts it raises, and how many when the same flights come in no order at all."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

import msgspec
import numpy as np
import pyarrow as pa
from rich.console import Console

from examples.flights.data import load_timeline
from monitors.findings import Against, Severity
from stream_trainer.acting import SEVERITIES
from stream_trainer.settings import Settings
from tests.bench import record
from tests.bench.drift import year
from tests.bench.drift.year import MONITORING, Day
from tests.bench.learning import plan
from tests.bench.learning.contestants import code_of
from tests.bench.options import Options
from tests.bench.section import Goal, Section

SHUFFLES = 20
_ROOT = Path(__file__).parents[3]
# What decides these figures.
_CODE = (
    "tests/bench/drift/year.py",
    "examples/flights/data.py",
    "examples/flights/pipeline.py",
    *(
        f"monitors/{name}.py"
        for name in (
            "companions",
            "comparing",
            "consequences",
            "deciding",
            "effects",
            "judging",
            "life",
            "missing",
            "questions",
            "scales",
            "tables",
            "usual",
        )
    ),
    *(f"stream_trainer/reference/{name}.py" for name in ("bins", "counting", "freezing", "pseudo")),
)
_SEASONS: Mapping[str, tuple[str, ...]] = {"February": ("02",), "June and July": ("06", "07")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An alert that opened; `windows`: so many days together showed it."""

    key: str
    severity: Severity
    windows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One day: the alerts that opened, and how many rounds had a finding that is drift."""

    date: str
    opened: list[Opened]
    rounds: int


def measure(options: Options) -> Section:
    """`--runs`: shuffles; each year is kept in the cache, so this goes on where it was interrupted."""
    shuffles = options.runs or SHUFFLES
    folder = Settings().cache_dir / "bench" / "drift" / "years"
    code = plan.key(*(code_of(_ROOT / path) for path in _CODE))
    timeline = load_timeline()
    columns, days = year.columns_of(timeline), year.days_of(timeline)
    real = _kept(folder / f"{code}.json", lambda: year.watched(columns, days))
    console, shuffled = Console(), []
    for seed in range(shuffles):
        order = pa.array(np.random.default_rng(seed).permutation(len(days)))

        def mixed(order: pa.Array = order) -> list[Day]:
            return year.watched({name: column.take(order) for name, column in columns.items()}, days)

        shuffled.append(_kept(folder / f"{code}-{seed}.json", mixed))
        console.print(f"shuffle {seed + 1}/{shuffles}", style="dim")
    return _section(real, shuffled)


def _kept(path: Path, make: Callable[[], Sequence[Day]]) -> list[Told]:
    if not path.exists():
        record.write(path, [asdict(_told(day)) for day in make()])
    return msgspec.json.decode(path.read_bytes(), type=list[Told])


def _told(day: Day) -> Told:
    opened = [event for event in day.events if event.status == "opened"]
    return Told(
        date=f"{day.start:%Y-%m-%d}",
        opened=[Opened(key=one.alert_key, severity=one.severity, windows=one.windows) for one in opened],
        rounds=len({(f.windows, f.kind == "label") for f in day.findings if f.state == "drift"}),
    )


def _section(real: Sequence[Told], shuffled: Sequence[Sequence[Told]]) -> Section:
    months = sorted({day.date[:7] for day in real})
    counts = [sum(len(day.opened) for day in days) for days in shuffled]
    rounds = [sum(day.rounds for day in days) for days in shuffled]
    stated = len(real) * MONITORING.false_alarms_per_window
    return Section(
        title="The flights of a year",
        headings=("month", "alerts opened", *SEVERITIES, "on days", "most often"),
        rows=[_month(month, [day for day in real if day.date.startswith(month)]) for month in months],
        notes=[
            (f"As the example's pipeline is watched: windows of a day (UTC), {len(real)} of them, compared with the first week, with the week before, and with how much days "
            "usually differ. Flights that never arrived are left out; lateness is by the day of departure. Quality: weather that is missing."),
            *_seasons(real),
            (f"{len(shuffled)} shuffles of the year: alerts opened {_list(counts)}; rounds with any {_list(rounds)}; "
            f"stated: at most {stated:.1f} a year are to be expected."),
        ],
        goals=[Goal(what=f"mean alerts in a shuffled year ({len(counts)} of them)", limit=stated,
                    found=float(np.mean(counts)), unit="alerts"),
               Goal(what="mean rounds with an alarm in a shuffled year", limit=stated,
                    found=float(np.mean(rounds)), unit="rounds")] if counts else [],
    )  # fmt: skip


def _month(month: str, days: Sequence[Told]) -> list[str]:
    opened = [one for day in days for one in day.opened]
    often = Counter(_feature(one.key) for one in opened).most_common(3)
    severe = Counter(one.severity for one in opened)
    return [
        month,
        f"{len(opened)}",
        *(f"{severe[severity]}" for severity in SEVERITIES),
        f"{sum(bool(day.opened) for day in days)}",
        ", ".join(f"{name} {count}" for name, count in often),
    ]


def _feature(key: str) -> str:
    """`<kind>[/<reference>]/<feature>[/<segment>]` to kind and feature."""
    kind, *rest = key.split("/")
    return f"{kind} of {rest[rest[0] in get_args(Against)]}"


def _seasons(real: Sequence[Told]) -> list[str]:
    """What is told of the months of snow and of storms."""
    found = []
    for name, months in _SEASONS.items():
        days = [day for day in real if day.date[5:7] in months and day.opened]
        told = [f"{day.date[5:]} {', '.join(_named(one) for one in day.opened)}" for day in days]
        found.append(f"{name}: {'; '.join(told) or 'nothing'}.")
    return found


def _named(one: Opened) -> str:
    together = f", {one.windows} days together" if one.windows > 1 else ""
    return f"`{one.key}` ({one.severity}{together})"


def _list(numbers: Sequence[int]) -> str:
    return f"{', '.join(map(str, numbers))} (mean {np.mean(numbers):.1f})" if numbers else "not counted"
