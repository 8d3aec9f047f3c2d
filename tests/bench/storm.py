"""Reload storm: a version every 50 ms while 50 clients ask; before and after it the same commits, told to nobody.

Each answer is compared with what the version that it names computes for that row.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from infra.supervisor import Unit
from stream_trainer.kafka import ControlProducer
from stream_trainer.outbox import announcement
from stream_trainer.settings import StoreSettings
from stream_trainer.store import ModelStore, open_store
from tests.bench import footprint, mlp, ours
from tests.bench.options import Options
from tests.bench.processes import running
from tests.bench.section import Goal, Section
from tests.bench.service import Service
from tests.bench.storm_load import CLIENTS

EVERY_SECONDS = 0.05
_VERSIONS = 1_000
_ROWS = 256
_WARM_UP_SECONDS, _START_SECONDS = 5.0, 60.0
_RTOL = 1e-5
_QUIET = "mlp-quiet"
_PHASES = ("before", "storm", "after")
_HEADINGS = (
    "phase", "commits", "requests/s", "p50 ms", "p99 ms", "max ms", "errors", "wrong", "versions", "swaps", "MiB", "files"
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One stretch of time. `held`: bytes and open files of the service at its start, middle and end.

    `writes`: seconds that each commit with its announcement took; `swaps`: by the service's own count.
    """

    begin: float
    end: float
    writes: Sequence[float]
    held: Sequence[tuple[int, int]]
    swaps: float


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


class Writer:
    """Commits versions at a steady pace and announces them, as the trainer does."""

    def __init__(self, service: ours.Service, producer: ControlProducer) -> None:
        self._service = service
        self._producer = producer

    def write(self, store: ModelStore, topic: str, count: int) -> Phase:
        """So many; one that is late is not waited for by the next."""
        time.sleep(EVERY_SECONDS)  # until the connection on which the last count was asked is closed
        held, writes = [self._held()], []
        swaps, begin = self._service.metrics()["swaps"], time.monotonic()
        for number in range(count):
            time.sleep(max(0.0, begin + number * EVERY_SECONDS - time.monotonic()))
            if number == count // 2:
                held.append(self._held())
            started = time.monotonic()
            self._write(store, topic)
            writes.append(time.monotonic() - started)
        time.sleep(EVERY_SECONDS)
        held.append(self._held())
        end = time.monotonic()
        return Phase(begin=begin, end=end, writes=writes, held=held, swaps=self._service.metrics()["swaps"] - swaps)

    def _write(self, store: ModelStore, topic: str) -> None:
        now = datetime.now(UTC)
        version = mlp.commit(store, mlp.state(store.highest() + 1), created_at=now, covered_at=now)
        value = announcement(version, now, datetime.now(UTC), alias=0)
        self._producer.send(topic, [("head", value), ("champion", value)])

    def _held(self) -> tuple[int, int]:
        return footprint.pss(self._service.pid), footprint.descriptors(self._service.pid)


def measure(options: Options) -> Section:
    """One run; `seconds` is how long each of the three phases lasts."""
    torch.set_num_threads(1)
    count = int((options.seconds or _VERSIONS * EVERY_SECONDS) / EVERY_SECONDS)
    rows = mlp.random_rows(_ROWS)
    with ours.world(_QUIET) as here:
        mlp.commit(here.store, mlp.state(1))
        with ours.service(here) as service:
            Service(service.port, authorization=service.key.authorization).wait(_START_SECONDS)
            phases, journal = _stormed(here, service, count, rows)
        committed = here.store.highest()
    expected = np.stack([mlp.outputs(mlp.state(number), rows).numpy() for number in range(1, committed + 1)])
    heard = {name: _heard(phase, journal, expected) for name, phase in phases.items()}
    return Section(
        title="Reload storm",
        headings=_HEADINGS,
        rows=[_cells(name, phases[name], heard[name]) for name in _PHASES],
        notes=_notes(phases, journal),
        goals=_goals(phases, heard),
    )


def _stormed(
    here: ours.World, service: ours.Service, count: int, rows: mlp.Rows
) -> tuple[dict[str, Phase], Mapping[str, NDArray[Any]]]:
    elsewhere = here.settings.model_copy(update={"store": StoreSettings(url=str(here.settings.data_dir / "quiet"))})
    quiet = (open_store(elsewhere, mlp.pipeline.name), f"{_QUIET}.models")
    loud = (here.store, mlp.pipeline.topics.models)
    out = here.settings.data_dir / "journal.npz"
    producer = ControlProducer(here.settings.kafka)
    writer = Writer(service, producer)
    with running([_load(here, service, rows, out)]):
        time.sleep(_WARM_UP_SECONDS)
        writer.write(*quiet, max(1, count // 10))  # warms the writer; counts for nothing
        phases = {name: writer.write(*(loud if name == "storm" else quiet), count) for name in _PHASES}
    producer.close()
    with np.load(out) as found:
        return phases, dict(found)


def _load(here: ours.World, service: ours.Service, rows: mlp.Rows, out: Path) -> Unit:
    bodies = here.settings.data_dir / "bodies"
    bodies.write_text("".join(f"{json.dumps({'instances': [one]})}\n" for one in mlp.instances(rows)))
    key = service.key.authorization
    return Unit(
        name="load",
        module="tests.bench.storm_load",
        arguments=[str(service.port), str(bodies), str(out)],
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


def _cells(name: str, phase: Phase, heard: Heard) -> list[str]:
    rate = len(heard.milliseconds) / (phase.end - phase.begin)
    return [
        name,
        f"{len(phase.writes):,}",
        f"{rate:,.0f}",
        *(f"{heard.quantile(share):.1f}" for share in (0.5, 0.99, 1.0)),
        f"{heard.errors:,}",
        f"{heard.wrong:,}",
        f"{heard.versions:,}",
        f"{phase.swaps:,.0f}",
        " ".join(f"{held / footprint.MIB:.0f}" for held, _ in phase.held),
        " ".join(f"{files}" for _, files in phase.held),
    ]


def _notes(phases: Mapping[str, Phase], journal: Mapping[str, NDArray[Any]]) -> list[str]:
    errors = dict(zip(journal["error"].tolist(), journal["times"].tolist(), strict=True))
    storm = phases["storm"]
    pace = (storm.end - storm.begin) / len(storm.writes)
    late = sum(seconds > EVERY_SECONDS for seconds in storm.writes)
    writes = " / ".join(f"{np.median(phases[name].writes) * 1000:.0f}" for name in _PHASES)
    return [
        (
            f"{CLIENTS} keep-alive clients in a process of their own, each asking for a row as soon as it was answered; "
            "service, clients, writer and Kafka share the cores."
        ),
        (
            f"A commit every {EVERY_SECONDS * 1000:.0f} ms in all phases; before and after the storm into a store and a "
            f"topic that the service does not read. A commit with its announcement took {writes} ms (p50 of each phase)."
        ),
        f"In the storm a version came every {pace * 1000:.0f} ms on average; {late} took longer than {EVERY_SECONDS * 1000:.0f} ms to write.",
        (
            f"Wrong: an answer that differs from what the named version computes (rtol {_RTOL:g}). MiB (PSS) and open "
            "files of the service: start, middle and end of each phase."
        ),
        f"Errors of the whole run: {errors or 'none'}.",
    ]


def _goals(phases: Mapping[str, Phase], heard: Mapping[str, Heard]) -> list[Goal]:
    storm, held = heard["storm"], phases["storm"].held
    both = np.concatenate([heard["before"].milliseconds, heard["after"].milliseconds])
    quiet = replace(storm, milliseconds=both)
    ratio = storm.quantile(0.99) / quiet.quantile(0.99)
    grown = (held[-1][0] - held[0][0]) / footprint.MIB
    return [
        Goal(what="p99 in the storm against the quiet phases", limit=1.1, found=ratio, unit="times"),
        Goal(what="errors", limit=0, found=sum(h.errors for h in heard.values()), unit="requests"),
        Goal(what="wrong answers", limit=0, found=sum(h.wrong for h in heard.values()), unit="answers"),
        Goal(what="memory grown in the storm", limit=10, found=grown, unit="MiB"),
        Goal(what="open files more after the storm", limit=0, found=held[-1][1] - held[0][1], unit="files"),
    ]
