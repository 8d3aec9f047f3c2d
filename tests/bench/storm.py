"""Reload storm: a version every 50 ms while 50 clients ask, in rounds of quiet, writer only and storm.

`writer`: the same commits, told to nobody: what differs from `quiet` is what the writer costs, and what the storm adds
to that is what swaps cost. Each answer is compared with what the version that it names computes for that row.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from infra.supervisor import Unit
from stream_trainer.kafka import ControlProducer
from stream_trainer.outbox import announcement
from stream_trainer.settings import Settings, StoreSettings
from stream_trainer.store import ModelStore, open_store
from tests.bench import footprint, mlp, ours
from tests.bench.options import Options
from tests.bench.processes import running
from tests.bench.section import Goal, Section
from tests.bench.service import Service
from tests.bench.storm_load import CLIENTS

EVERY_SECONDS = 0.05
_VERSIONS = 250
_ROUNDS = 4
_ROWS = 256
_WARM_UP_SECONDS, _START_SECONDS = 5.0, 60.0
_RTOL = 1e-5
_QUIET = "mlp-quiet"
_QUIETLY, _WRITER, _STORM = "quiet", "writer", "storm"
_PHASES = (_QUIETLY, _WRITER, _STORM)
_HEADINGS = (
    "phase", "commits", "requests/s", "p50 ms", "p99 ms", "max ms", "CPU ms", "errors", "wrong", "versions", "swaps", "MiB", "files"
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One stretch of time. `held`: bytes and open files of the service at its start, middle and end.

    `writes`: seconds that each commit with its announcement took; `swaps`: by the service's own count; `cpu`: seconds
    of the service.
    """

    begin: float
    end: float
    writes: Sequence[float]
    held: Sequence[tuple[int, int]]
    swaps: float
    cpu: float

    @property
    def seconds(self) -> float:
        return self.end - self.begin


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What clients were answered in one phase."""

    milliseconds: NDArray[np.float64]
    versions: int
    errors: int
    wrong: int

    def quantile(self, share: float) -> float:
        """Milliseconds; NaN when nobody was answered."""
        return float(np.quantile(self.milliseconds, share)) if len(self.milliseconds) else float("nan")


Target = tuple[ModelStore, str]


class Writer:
    """Commits versions at a steady pace and announces them, as the trainer does."""

    def __init__(self, service: ours.Service, producer: ControlProducer) -> None:
        self._service = service
        self._producer = producer

    def write(self, where: Target | None, count: int) -> Phase:
        """So many; one that is late is not waited for by the next. None: only the time passes."""
        time.sleep(EVERY_SECONDS)  # until the connection on which the last count was asked is closed
        held, writes = [self._held()], []
        swaps, cpu, begin = self._service.metrics()["swaps"], footprint.cpu_seconds(self._service.pid), time.monotonic()
        for number in range(count):
            time.sleep(max(0.0, begin + number * EVERY_SECONDS - time.monotonic()))
            if number == count // 2:
                held.append(self._held())
            if where is not None:
                started = time.monotonic()
                self._write(*where)
                writes.append(time.monotonic() - started)
        time.sleep(EVERY_SECONDS)
        held.append(self._held())
        end, cpu = time.monotonic(), footprint.cpu_seconds(self._service.pid) - cpu
        swaps = self._service.metrics()["swaps"] - swaps
        return Phase(begin=begin, end=end, writes=writes, held=held, swaps=swaps, cpu=cpu)

    def _write(self, store: ModelStore, topic: str) -> None:
        now, highest = datetime.now(UTC), store.highest()
        version = mlp.commit(
            store,
            mlp.state(highest + 1),
            created_at=now,
            covered_at=now,
            parent_sha256=store.read(highest).sha256 if highest else None,
        )
        value = announcement(version, now, datetime.now(UTC), alias=0)
        self._producer.send(topic, [("head", value), ("champion", value)])

    def _held(self) -> tuple[int, int]:
        return footprint.pss(self._service.pid), footprint.descriptors(self._service.pid)


def measure(options: Options, *, every: float = 0.0) -> Section:
    """`seconds` is how long a phase of a round lasts; `runs` is how many rounds there are.

    `every`: seconds from a client's request to its next; 0: as soon as it was answered, which leaves no core any rest.
    """
    torch.set_num_threads(1)
    count = int((options.seconds or _VERSIONS * EVERY_SECONDS) / EVERY_SECONDS)
    rows = mlp.random_rows(_ROWS)
    with ours.world(_QUIET) as here:
        mlp.commit(here.store, mlp.state(1))
        with ours.service(here) as service:
            Service(service.port, authorization=service.key.authorization).wait(_START_SECONDS)
            load = _load(here, service, rows, every)
            rounds, journal = _stormed(here, service, count, options.runs or _ROUNDS, load)
        committed = here.store.highest()
    expected = np.stack([mlp.outputs(mlp.state(number), rows).numpy() for number in range(1, committed + 1)])
    heard = [{name: _heard(phase, journal, expected) for name, phase in phases.items()} for phases in rounds]
    return Section(
        title="Reload storm" if every == 0 else f"Reload storm, {CLIENTS / every:,.0f} requests a second",
        headings=_HEADINGS,
        rows=[_cells(name, [one[name] for one in rounds], [one[name] for one in heard]) for name in _PHASES],
        notes=[_asked(every), *_notes(rounds, heard, journal)],
        goals=_goals(rounds, heard),
    )


def _stormed(
    here: ours.World, service: ours.Service, count: int, runs: int, load: Unit
) -> tuple[list[dict[str, Phase]], Mapping[str, NDArray[Any]]]:
    elsewhere = here.settings.model_copy(update={"store": StoreSettings(url=str(here.settings.data_dir / "quiet"))})
    unheard = (open_store(elsewhere, mlp.pipeline.name), f"{_QUIET}.models")
    targets = {_QUIETLY: None, _WRITER: unheard, _STORM: (here.store, mlp.pipeline.topics.models)}
    producer = ControlProducer(here.settings.kafka)
    writer = Writer(service, producer)
    with running([load]):
        time.sleep(_WARM_UP_SECONDS)
        writer.write(unheard, max(1, count // 5))  # warms the writer; counts for nothing
        # Every other round backwards: what drifts with time is no difference between phases.
        rounds = [
            {name: writer.write(targets[name], count) for name in (_PHASES if number % 2 == 0 else _PHASES[::-1])}
            for number in range(runs)
        ]
    producer.close()
    with np.load(_journal(here)) as found:
        return rounds, dict(found)


def _journal(here: ours.World) -> Path:
    return here.settings.data_dir / "journal.npz"


def _load(here: ours.World, service: ours.Service, rows: mlp.Rows, every: float) -> Unit:
    bodies = here.settings.data_dir / "bodies"
    bodies.write_text("".join(f"{json.dumps({'instances': [one]})}\n" for one in mlp.instances(rows)))
    key = service.key.authorization
    return Unit(
        name="load",
        module="tests.bench.storm_load",
        arguments=[str(service.port), str(bodies), str(_journal(here)), str(every)],
        variables={"BENCH_AUTHORIZATION": key} if key else {},
        log=here.settings.data_dir / "load.log",
    )


def _heard(phase: Phase, journal: Mapping[str, NDArray[Any]], expected: NDArray[np.float32]) -> Heard:
    inside = (journal["started"] >= phase.begin) & (journal["started"] < phase.end)
    versions, rows, outputs = (journal[name][inside] for name in ("version", "row", "output"))
    known = (versions >= 1) & (versions <= len(expected))
    right = known & np.isclose(outputs, expected[np.where(known, versions, 1) - 1, rows], rtol=_RTOL, atol=0)
    failed = journal["failed"]
    return Heard(
        milliseconds=journal["seconds"][inside] * 1000,
        versions=len(np.unique(versions)),
        errors=int(((failed >= phase.begin) & (failed < phase.end)).sum()),
        wrong=int((~right).sum()),
    )


def _cells(name: str, phases: Sequence[Phase], heard: Sequence[Heard]) -> list[str]:
    answered = sum(len(one.milliseconds) for one in heard)
    middle = [float(np.median([one.quantile(share) for one in heard])) for share in (0.5, 0.99)]
    return [
        name,
        f"{sum(len(phase.writes) for phase in phases):,}",
        f"{answered / sum(phase.seconds for phase in phases):,.0f}",
        *(f"{value:.1f}" for value in (*middle, max(one.quantile(1.0) for one in heard))),
        f"{sum(phase.cpu for phase in phases) / answered * 1000:.3f}" if answered else "",
        f"{sum(one.errors for one in heard):,}",
        f"{sum(one.wrong for one in heard):,}",
        f"{sum(one.versions for one in heard):,}",
        f"{sum(phase.swaps for phase in phases):,.0f}",
        " ".join(f"{held / footprint.MIB:.0f}" for held, _ in (phases[0].held[0], phases[-1].held[-1])),
        " ".join(f"{files}" for _, files in (phases[0].held[0], phases[-1].held[-1])),
    ]


def _ratio(heard: Sequence[Mapping[str, Heard]], share: float, name: str, base: str) -> float:
    """How many times longer a quantile is, compared within each round: the median of all rounds."""
    return float(np.median([one[name].quantile(share) / one[base].quantile(share) for one in heard]))


def _asked(every: float) -> str:
    when = f"every {every * 1000:.0f} ms" if every else "as soon as it was answered"
    return (
        f"{CLIENTS} keep-alive clients in a process of their own, each asking for a row {when}; service, clients, writer "
        "and Kafka share the cores."
    )


def _notes(
    rounds: Sequence[Mapping[str, Phase]], heard: Sequence[Mapping[str, Heard]], journal: Mapping[str, NDArray[Any]]
) -> list[str]:
    errors = dict(zip(journal["error"].tolist(), journal["times"].tolist(), strict=True))
    storms = [one[_STORM] for one in rounds]
    written = [seconds for storm in storms for seconds in storm.writes]
    pace = sum(storm.seconds for storm in storms) / len(written)
    late = sum(seconds > EVERY_SECONDS for seconds in written)
    usual = float(np.median([seconds for one in rounds for seconds in one[_WRITER].writes])) * 1000
    each = " / ".join(f"{one[_STORM].quantile(0.99) / one[_WRITER].quantile(0.99):.2f}" for one in heard)
    return [
        (
            f"{len(rounds)} rounds of three phases; p50, p99: medians of the rounds, max: of all. quiet: nothing is "
            f"committed. writer: a commit every {EVERY_SECONDS * 1000:.0f} ms into a store and a topic that the service "
            "does not read. storm: into its own. CPU: of the service, a request."
        ),
        (
            f"A commit with its announcement took {usual:.0f} / {np.median(written) * 1000:.0f} ms (p50 of writer / "
            f"storm). In the storm a version came every {pace * 1000:.0f} ms on average; {late} took longer than "
            f"{EVERY_SECONDS * 1000:.0f} ms to write. The service swaps at most every "
            f"{Settings().serving.swap_every_seconds * 1000:.0f} ms (`serving.swap_every_seconds`); versions that come "
            "sooner are overtaken."
        ),
        (
            f"p99 of writer against quiet, without any swap: {_ratio(heard, 0.99, _WRITER, _QUIETLY):.2f} times; of storm "
            f"against quiet: {_ratio(heard, 0.99, _STORM, _QUIETLY):.2f} times; of storm against writer, round by round: "
            f"{each}."
        ),
        (
            f"Wrong: an answer that differs from what the named version computes (rtol {_RTOL:g}). MiB (PSS) and open "
            "files of the service: before its first and after its last phase of the kind."
        ),
        f"Errors of the whole run: {errors or 'none'}.",
    ]


def _goals(rounds: Sequence[Mapping[str, Phase]], heard: Sequence[Mapping[str, Heard]]) -> list[Goal]:
    every = [one for phases in heard for one in phases.values()]
    held = [one[_STORM].held for one in rounds]
    grown = max(one[-1][0] - one[0][0] for one in held) / footprint.MIB
    ratio = _ratio(heard, 0.99, _STORM, _WRITER)
    return [
        Goal(what="p99 of the storm against the writer alone", limit=1.1, found=ratio, unit="times"),
        Goal(what="errors", limit=0, found=sum(one.errors for one in every), unit="requests"),
        Goal(what="wrong answers", limit=0, found=sum(one.wrong for one in every), unit="answers"),
        Goal(what="memory grown in a storm", limit=10, found=grown, unit="MiB"),
        Goal(
            what="open files more after a storm",
            limit=0,
            found=max(one[-1][1] - one[0][1] for one in held),
            unit="files",
        ),
    ]
