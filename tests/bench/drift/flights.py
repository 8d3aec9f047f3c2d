"""A real year through the monitor: which alerts it raises, and how many when the same flights come in no order at all."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import pyarrow as pa
from rich.console import Console

from examples.flights.data import load_timeline
from monitors.findings import Against, Finding
from stream_trainer.reference import LABEL
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
_STORMS = ("precip", "visib", "wind_speed")
_SEASONS: Mapping[str, tuple[str, ...]] = {"February": ("02",), "June and July": ("06", "07")}
_TOLD = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One day: alerts opened by key, and by feature the PSI of what had changed against what was learned, all rows."""

    date: str
    opened: list[str]
    learned: dict[str, float]
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
    if path.exists():
        return [Told(**one) for one in json.loads(path.read_text())]
    found = [_told(day) for day in make()]
    record.write(path, [asdict(one) for one in found])
    return found


def _told(day: Day) -> Told:
    drifted = [finding for finding in day.findings if finding.state == "drift"]
    learned = [f for f in drifted if f.against == "learned" and not f.segment and f.windows == 1]
    strongest: dict[str, float] = {}
    for finding in learned:
        strongest[finding.feature] = max(strongest.get(finding.feature, 0.0), _psi(finding))
    return Told(
        date=f"{day.start:%Y-%m-%d}",
        opened=[event.alert_key for event in day.events if event.status == "opened"],
        learned=strongest,
        rounds=len({(finding.windows, finding.kind == "label") for finding in drifted}),
    )


def _psi(finding: Finding) -> float:
    return finding.effect.psi or 0.0


def _section(real: Sequence[Told], shuffled: Sequence[Sequence[Told]]) -> Section:
    months = sorted({day.date[:7] for day in real})
    counts = [sum(len(day.opened) for day in days) for days in shuffled]
    rounds = [sum(day.rounds for day in days) for days in shuffled]
    stated = len(real) * MONITORING.false_alarms_per_window
    return Section(
        title="The flights of a year",
        headings=("month", "alerts opened", "most often", "days on which `late` had changed", "its largest PSI",
                  *(f"days: {name}" for name in _STORMS)),
        rows=[_month(month, [day for day in real if day.date.startswith(month)]) for month in months],
        notes=[
            (f"Windows of a day (UTC), {len(real)} of them; compared with the first week, and with the week before; flights that never arrived are left out. "
            "`late` by the day of departure. A day's weather is shared by all its flights, and a day has one weekday: "
            "most days differ from the week before them, and the monitor says so."),
            *_storms(real),
            (f"{len(shuffled)} shuffles of the year: alerts opened {_list(counts)}; rounds with any {_list(rounds)}; "
            f"stated: at most {stated:.1f} a year are to be expected."),
        ],
        goals=[Goal(what=f"mean alerts in a shuffled year ({len(counts)} of them)", limit=stated,
                    found=float(np.mean(counts)), unit="alerts"),
               Goal(what="mean rounds with an alarm in a shuffled year", limit=stated,
                    found=float(np.mean(rounds)), unit="rounds")] if counts else [],
    )  # fmt: skip


def _month(month: str, days: Sequence[Told]) -> list[str]:
    keys: Counter[str] = Counter(_feature(key) for day in days for key in day.opened)
    late = [day.learned[LABEL] for day in days if LABEL in day.learned]
    return [
        month,
        f"{keys.total()}",
        ", ".join(f"{name} {count}" for name, count in keys.most_common(3)),
        f"{len(late)} of {len(days)}",
        f"{max(late, default=0.0):.2f}",
        *(f"{sum(name in day.learned for day in days)}" for name in _STORMS),
    ]


def _feature(key: str) -> str:
    """`<kind>[/<reference>]/<feature>[/<segment>]` to kind and feature."""
    kind, *rest = key.split("/")
    return f"{kind} of {rest[rest[0] in get_args(Against)]}"


def _storms(real: Sequence[Told]) -> list[str]:
    """The days on which lateness differed most from the week before, with what else had changed."""
    found = []
    for name, wanted in _SEASONS.items():
        days = [d for d in real if d.date[5:7] in wanted and LABEL in d.learned]
        most = sorted(days, key=lambda d: -d.learned[LABEL])[:_TOLD]
        told = "; ".join(
            f"{d.date} (PSI {d.learned[LABEL]:.2f}{_others(d)})" for d in sorted(most, key=lambda d: d.date)
        )
        found.append(f"{name}: `late` differs most from the week before on {told or 'no day'}.")
    return found


def _others(day: Told) -> str:
    changed = [name for name in _STORMS if name in day.learned]
    return f"; {', '.join(changed)} too" if changed else ""


def _list(numbers: Sequence[int]) -> str:
    return f"{', '.join(map(str, numbers))} (mean {np.mean(numbers):.1f})" if numbers else "not counted"
