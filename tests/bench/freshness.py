"""From the broker's append of a record to the first answer of weights that learned from it, for every record."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stream_trainer.offsets import Offsets
from stream_trainer.store import Manifest, open_store
from tests.bench import flights
from tests.bench.load import SteadyLoad
from tests.bench.options import Options
from tests.bench.section import Goal, Section
from tests.bench.service import Service
from tests.bench.topic import Floats, append_times
from tests.bench.watch import Watch
from tests.bench.world import NAME, TOPICS, World, world

RATE = 2_000
WARM_UP_SECONDS = 30.0
_START_SECONDS = 120.0
_DRAIN_SECONDS = 60.0
_POLL_ROWS = 40
_HEADINGS = ("trainer", "p50 s", "p90 s", "p99 s", "max s", "rows/s", "versions/s", "rows/version", "behind", "drain s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run. `behind`: rows that no answering version had learned when the load stopped; `drain`: until it had."""

    seconds: float
    freshness: Floats
    versions: int
    rows_per_version: float
    behind: int
    drain: float

    def quantile(self, share: float) -> float:
        """Seconds; infinity when that many records were never served."""
        return float(np.quantile(self.freshness, share, method="higher"))

    def cells(self, label: str) -> list[str]:
        """A row of the table."""
        quantiles = [f"{self.quantile(share):.2f}" for share in (0.5, 0.9, 0.99, 1.0)]
        rate, versions = len(self.freshness) / self.seconds, self.versions / self.seconds
        return [
            label,
            *quantiles,
            f"{rate:,.0f}",
            f"{versions:.2f}",
            f"{self.rows_per_version:,.0f}",
            f"{self.behind:,}",
            f"{self.drain:.1f}",
        ]


def measure(options: Options) -> Section:
    """Runs without and with the monitor in the trainer's Spark, in turn."""
    seconds = options.seconds or 60.0
    runs: dict[bool, list[Run]] = {False: [], True: []}
    rows: list[list[str]] = []
    for _ in range(options.runs or 3):
        for with_monitor, found in runs.items():
            found.append(run(seconds, with_monitor=with_monitor))
            rows.append(found[-1].cells("with monitor" if with_monitor else "alone"))
    rows.sort(key=lambda cells: cells[0])
    goals = [goal for with_monitor, found in runs.items() for goal in _goals(found, with_monitor)]
    notes = [
        (
            f"{RATE:,} examples/s for {seconds:.0f} s after {WARM_UP_SECONDS:.0f} s of warm-up; service asked every 20 ms. "
            f"With the monitor each ask is for {_POLL_ROWS} predictions, so that it has something to watch."
        ),
        "behind: rows not yet served when the load stopped; drain: seconds until they were.",
    ]
    return Section(title="Event to served weights", headings=_HEADINGS, rows=rows, notes=notes, goals=goals)


def run(seconds: float, *, with_monitor: bool) -> Run:
    """One fresh world under load."""
    with world(with_monitor=with_monitor) as here:
        watch = Watch(Service(here.port, flights.request_body(_POLL_ROWS) if with_monitor else None))
        load = SteadyLoad(here.settings.kafka, TOPICS.examples, RATE)
        load.start()
        try:
            Service(here.port).wait(_START_SECONDS)
            watch.start()
            time.sleep(WARM_UP_SECONDS)
            begin = time.time()
            time.sleep(seconds)
        finally:
            load.stop()
        end = time.time()
        answering = watch.newest
        times = append_times(here.settings.kafka, TOPICS.examples)
        _await_all(here, {partition: len(found) for partition, found in times.items()}, watch)
        watch.stop()
        return _evaluate(here, watch, times, begin, end, answering)


def _await_all(here: World, ends: dict[int, int], watch: Watch) -> None:
    """Until a version that learned everything answers, or patience ends."""
    store = open_store(here.settings, NAME)
    deadline = time.monotonic() + _DRAIN_SECONDS
    while time.monotonic() < deadline:
        if watch.newest and _covers(store.read(watch.newest).manifest.next_offsets, ends):
            return
        time.sleep(0.2)


def _covers(offsets: Offsets, ends: dict[int, int]) -> bool:
    return all(offsets[TOPICS.examples].get(partition, 0) >= end for partition, end in ends.items())


def _evaluate(here: World, watch: Watch, times: dict[int, Floats], begin: float, end: float, answering: int) -> Run:
    store = open_store(here.settings, NAME)
    manifests = [store.read(number).manifest for number in range(1, store.highest() + 1)]
    freshness = [_partition(manifests, watch, partition, found) for partition, found in times.items()]
    chosen = [(found >= begin) & (found < end) for found in times.values()]
    served_at = max(float(np.max(times[p] + f)) for p, f in zip(times, freshness, strict=True))
    known = manifests[answering - 1].next_offsets[TOPICS.examples] if answering else {}
    inside = [version for at, version in watch.answered if begin <= at < end]
    return Run(
        seconds=end - begin,
        freshness=np.concatenate([f[c] for f, c in zip(freshness, chosen, strict=True)]),
        versions=len(inside),
        rows_per_version=statistics.median(manifests[n - 1].rows.seen for n in inside) if inside else 0.0,
        behind=sum(len(found) - known.get(partition, 0) for partition, found in times.items()),
        drain=max(0.0, served_at - end),
    )


def _partition(manifests: Sequence[Manifest], watch: Watch, partition: int, times: Floats) -> Floats:
    """Each record's seconds: the manifests' ranges say which version learned it."""
    found = np.full(len(times), np.inf)
    for manifest in manifests:
        first, following = manifest.ranges[TOPICS.examples].get(partition, (0, 0))
        found[first:following] = watch.first(manifest.version) - times[first:following]
    return found


def _goals(runs: Sequence[Run], with_monitor: bool) -> list[Goal]:
    where = "with monitor" if with_monitor else "alone"
    return [
        Goal(
            what=f"{name} {where}, median of {len(runs)} runs",
            limit=limit,
            found=statistics.median(r.quantile(share) for r in runs),
            unit="s",
        )
        for name, share, limit in (("p50", 0.5, 1.5), ("p99", 0.99, 4.0))
    ]
