"""The history that processes are killed in: three partitions, over twenty versions, poison, gaps, a retention at work.

`live` is one life of a trainer; it runs in a child process that may not come to its end. What survives lies in a
folder: the store, what was sent to Kafka, and which cuts were fixed.
"""

import json
import random
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from stream_trainer import BinaryLabel, Categorical, Contract, Numeric, Pipeline, Sgd, crashpoints
from stream_trainer.acting import (
    Action,
    Asked,
    HoldPromotion,
    RaiseLearningRate,
    ReleasePromotion,
    RollBack,
    WarmRetrain,
)
from stream_trainer.acts import Read
from stream_trainer.offsets import Offsets, Ranges
from stream_trainer.outbox import rejected_key
from stream_trainer.outside import Page
from stream_trainer.settings import StoreSettings, TrainerSettings
from stream_trainer.store import ModelStore, Version
from stream_trainer.store.storage import LocalStorage
from stream_trainer.testing import Gap, MemoryOutbox, MemoryRequests, Poison, ScriptedLog, train
from stream_trainer.testing.log import Item
from tests.core.worlds import asked
from tests.faults import broken

NAME = "killed"
CONTRACT = Contract(
    features=[Numeric("x"), Numeric("gap", optional=True), Categorical("colour", vocabulary=["red", "blue"])],
    label=BinaryLabel("y"),
    key="id",
    event_time="at",
)
PIPELINE = Pipeline(name=NAME, contract=CONTRACT, learner=Sgd(rows_per_step=4), reference_rows=40, seed=11)
RECORDS = 240
KEEP = StoreSettings(keep_versions=6, keep_every=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """One process: on which history, and how it is to end.

    Attributes:
        folder: what survives it.
        seed: decides the history.
        kill: the point at which it dies, and at which arrival; "*" is any point. None: it may live.
        mutant: a deliberately broken order of commit; see `broken`.
        live: records keep arriving, more of them when a process was away.
        cuts_per_version: `commit_every`.
        seconds: after which a process that hangs is ended.
    """

    folder: str
    seed: int
    kill: tuple[str, int] | None = None
    mutant: str | None = None
    live: bool = False
    cuts_per_version: int = 1
    seconds: int = 60


def script(seed: int) -> list[Item]:
    """Good records, every ninth or so unusable, and offsets without records, at the end of the log too."""
    rng = random.Random(seed)
    items: list[Item] = []
    for i in range(RECORDS):
        draw = rng.random()
        if draw < 0.08:
            items.append(Poison(rng.choice([b"{", None, b'{"x": 1}', b"\xff" * 9])))
        elif draw < 0.14:
            items.append(Gap(rng.randint(1, 3)))
        else:
            items.append(_record(i, rng))
    return [*items, Gap(2)]


def _record(i: int, rng: random.Random) -> dict[str, Any]:
    x = rng.gauss(0, 1)
    at = f"2025-12-{1 + i // 24 % 28:02d}T{i % 24:02d}:00:00Z"
    colour = rng.choice(["red", "blue"])
    return {"id": f"r{i}", "x": x, "gap": None if i % 3 else 1.0, "colour": colour, "at": at, "y": x > 0}


def live(life: Life) -> None:
    """Train to the end of the log, unless the process is killed before."""
    folder = Path(life.folder)
    log = GrowingLog(life, folder)
    arrivals = _watch(life, log)
    if life.mutant:
        broken.MUTANTS[life.mutant]()
    rows = 12
    settings = TrainerSettings(
        max_restarts=0, max_rows_per_batch=rows, commit_every_rows=1 + rows * (life.cuts_per_version - 1)
    )
    train(
        PIPELINE,
        log,
        store_folder(folder),
        outbox=FileOutbox(folder),
        requests=TimedRequests(log),
        settings=settings,
        retention=KEEP,
        run_id=_run_id(folder),
    )
    (folder / "arrivals.json").write_text(json.dumps(arrivals))


def store_folder(folder: Path) -> Path:
    """Where the versions of a history lie."""
    return folder / "store"


def store_of(folder: Path) -> ModelStore:
    """The versions of a history."""
    return ModelStore(LocalStorage(store_folder(folder)), NAME)


def sent_by(folder: Path) -> list[dict[str, Any]]:
    """What all lives together have sent to Kafka, in order; the last line may be torn by a kill."""
    path = folder / "sent.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


class FileOutbox(MemoryOutbox):
    """What was sent survives the process, as it does in Kafka."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._path = folder / "sent.jsonl"

    def reject(self, rows: pa.Table) -> None:
        for row in rows.to_pylist():
            key = rejected_key(row["_topic"], row["_partition"], row["_offset"], row["_row"])
            self._write({"rejected": key, "reason": row["_reason"]})

    def announce(self, version: Version, covered_at: Any) -> None:
        self._write({"announced": version.number, "sha256": version.sha256})

    def _write(self, value: dict[str, Any]) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps(value) + "\n")


class GrowingLog(ScriptedLog):
    """A cut that was fixed once would come back larger, as Spark plans it again when more has arrived meanwhile."""

    def __init__(self, life: Life, folder: Path) -> None:
        super().__init__(PIPELINE, script(life.seed))
        self._grown = folder / "planned.jsonl"
        self._rng = random.Random() if life.live else None
        self.asked: Offsets = {}

    def next_cut(self, position: Offsets, most: int) -> tuple[Ranges, float | None] | None:
        self.asked = position
        if self._rng is not None:
            return super().next_cut(position, self._rng.randint(1, 2 * most))
        known = self._grown.read_text().splitlines() if self._grown.exists() else []
        return super().next_cut(position, 2 * most if _line(position) in known else most)

    def fixed(self) -> None:
        """The intent of the cut that was asked for last is written."""
        with self._grown.open("a") as file:
            file.write(_line(self.asked) + "\n")


def _asked(action: Action, day: int = 4) -> Asked:
    return asked(action, "drift/x", datetime(2025, 12, day, tzinfo=UTC))


HOLD = _asked(HoldPromotion())
# What is asked once so many offsets were learned: of every kind, and one of them twice. Whatever the cuts, version 5, which
# the retention keeps, has learned from nothing after the fifth day.
REQUESTS = (
    (30, _asked(RaiseLearningRate(factor=4, rows=40))),
    (60, HOLD),
    (70, HOLD),
    (120, _asked(ReleasePromotion(hold=HOLD.action_id))),
    (150, _asked(WarmRetrain(records=60))),
    (200, _asked(RollBack(), day=7)),
)


class TimedRequests(MemoryRequests):
    """`P.actions`, to which something is added whenever the trainer has come so far in the log."""

    def __init__(self, log: GrowingLog) -> None:
        super().__init__()
        self._log = log

    def after(self, read: Read | None, most: int) -> Page:
        learned = sum(sum(partitions.values()) for partitions in self._log.asked.values())
        self.records.clear()
        self.ask(*(request for since, request in REQUESTS if learned >= since))
        return super().after(read, most)


def _line(position: Offsets) -> str:
    return json.dumps({t: dict(sorted(ps.items())) for t, ps in position.items()})


def _watch(life: Life, log: GrowingLog) -> dict[str, int]:
    """Remember what was planned, and die where the life is to end. Arrivals at each point are counted."""
    die = broken.killer(life.kill) if life.kill else None
    arrivals: dict[str, int] = {}

    def reached(name: str) -> None:
        arrivals[name] = arrivals.get(name, 0) + 1
        if name == "microbatch.cut_fixed":
            log.fixed()
        if die is not None:
            die(name)

    crashpoints.watch(reached)
    return arrivals


def _run_id(folder: Path) -> str:
    lives = folder / "lives"
    lives.write_text(str(int(lives.read_text()) + 1 if lives.exists() else 1))
    return f"life-{lives.read_text()}"


def reborn(life: Life, kill: tuple[str, int] | None = None) -> Life:
    """The next process over the same folder."""
    return replace(life, kill=kill)
