"""The outside of a trainer without Kafka and Spark; the trainer itself is the real one."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import msgspec
import pyarrow as pa

from stream_trainer.acting import Asked
from stream_trainer.acts import Read
from stream_trainer.alerts import TrainerAlert
from stream_trainer.learning import Cut
from stream_trainer.lineage import Lineage
from stream_trainer.offsets import Offsets, Ranges
from stream_trainer.outbox import rejected_key
from stream_trainer.outside import LearnCut, Outbox, Page, Position, Request, Requests, Source
from stream_trainer.pipeline import Pipeline
from stream_trainer.settings import Settings, StoreSettings, TrainerSettings
from stream_trainer.source import KafkaSource
from stream_trainer.start import Start
from stream_trainer.store import ModelStore, Version
from stream_trainer.store.storage import LocalStorage, Storage
from stream_trainer.testing.clock import FakeClock
from stream_trainer.testing.log import ScriptedLog
from stream_trainer.trainer import Trainer


@dataclass
class MemoryOutbox:
    """Keeps what it was given; `rejected` by key, as the compacted topic does, and `calls` names everything in order."""

    rejected: dict[str, dict[str, Any]] = field(default_factory=dict)
    announced: list[int] = field(default_factory=list)
    alerts: list[TrainerAlert] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)

    def reject(self, rows: pa.Table) -> None:
        """See `outside.Outbox.reject`."""
        self.calls.append("reject")
        for row in rows.to_pylist():
            self.rejected[rejected_key(row["_topic"], row["_partition"], row["_offset"], row["_row"])] = row

    def announce(self, version: Version, covered_at: datetime) -> None:  # noqa: ARG002
        """See `outside.Outbox.announce`."""
        self.calls.append("announce")
        self.announced.append(version.number)

    def alert(self, alerts: Iterable[TrainerAlert]) -> None:
        """See `outside.Outbox.alert`."""
        self.alerts += alerts

    def show_progress(self, version: Version) -> None:
        """Nobody looks."""


@dataclass
class MemoryRequests:
    """`P.actions` in memory: `ask` appends to it, `records` are what is there, by offset; None where nothing is any more."""

    records: list[tuple[bytes | None, bytes | None] | None] = field(default_factory=list)
    topic_id: str = "00000000-0000-0000-0000-00000000ac75"

    def ask(self, *asked: Asked) -> None:
        """Append requests as the monitor and the command do."""
        self.records += [(one.action_id.encode(), msgspec.json.encode(one)) for one in asked]

    def after(self, read: Read | None, most: int) -> Page:
        """See `outside.Requests.after`."""
        start = read.next if read is not None and read.topic_id == self.topic_id else 0
        there = [Request(i, *record) for i, record in enumerate(self.records) if i >= start and record is not None]
        if len(there) > most:
            return Page(topic_id=self.topic_id, records=tuple(there[:most]), next=there[most - 1].offset + 1)
        return Page(topic_id=self.topic_id, records=tuple(there), next=max(start, len(self.records)))


class ScriptedFeed:
    """Cuts a `ScriptedLog` into micro-batches, each learned by the one who asks whether all is well."""

    def __init__(self, log: ScriptedLog, clock: FakeClock, max_rows: int) -> None:
        self._log = log
        self._clock = clock
        self._max_rows = max_rows

    def read(self, ranges: Ranges) -> pa.Table:
        """See `outside.Feed.read`."""
        return self._log.read(ranges)

    def stream(self, start: Offsets, position: Position, learn: LearnCut) -> "ScriptedRunning":  # noqa: ARG002
        """See `outside.Feed.stream`."""
        return ScriptedRunning(self._log, self._clock, self._max_rows, position, learn)


class ScriptedRunning:
    """A stream that moves on only when it is looked at, up to the next pause."""

    def __init__(self, log: ScriptedLog, clock: FakeClock, max_rows: int, position: Position, learn: LearnCut) -> None:
        self._log = log
        self._clock = clock
        self._max_rows = max_rows
        self._position = position
        self._learn = learn

    def check(self) -> None:
        """Learn what has arrived, until a pause."""
        while (found := self._log.next_cut(self._position(), self._max_rows)) is not None:
            ranges, pause = found
            self._learn(Cut(ranges=ranges, covered_at=self._clock()), lambda ranges=ranges: self._log.read(ranges))  # type: ignore[misc]
            if pause is not None:
                self._clock.advance(pause)
                return

    def between(self) -> AbstractContextManager[None]:
        """Nothing runs unless it is looked at."""
        return nullcontext()

    def stop(self) -> None:
        """Nothing runs unless it is looked at."""


class ScriptedOutside:
    """See `outside.Outside`."""

    def __init__(
        self,
        log: ScriptedLog,
        store: ModelStore,
        outbox: Outbox,
        clock: FakeClock,
        *,
        requests: Requests | None = None,
        max_rows: int = 20_000,
        run_id: str = "scripted",
    ) -> None:
        self.requests = requests or MemoryRequests()
        self.run_id = run_id
        self.store = store
        self.source = KafkaSource(log.topic_name, log, log)
        self.outbox = outbox
        self.feed = ScriptedFeed(log, clock, max_rows)
        self.clock = clock
        self.monotonic = clock.monotonic

    @contextmanager
    def heartbeat(self, covered: Callable[[Source], Version | None]) -> Iterator[None]:  # noqa: ARG002
        """Nobody listens."""
        yield

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def train(
    pipeline: Pipeline,
    log: ScriptedLog,
    storage: Storage | Path,
    *,
    outbox: Outbox | None = None,
    clock: FakeClock | None = None,
    settings: TrainerSettings | None = None,
    retention: StoreSettings | None = None,
    start: Start | None = None,
    requests: Requests | None = None,
    run_id: str = "scripted",
) -> Lineage:
    """Learn everything in the log with the trainer of production, and end: where the lineage stands then.

    Each call is a new process as far as the trainer is concerned: what it knows is what the store holds.

    Args:
        pipeline: the one under test.
        log: what it learns.
        storage: where versions live; a folder, or any storage (a faulty one, say).
        outbox: takes rejected rows, announcements and alerts; a `MemoryOutbox` to look at them.
        clock: both clocks; moved by the script's pauses.
        settings: limits of micro-batches and versions.
        retention: which versions keep their data; without, all do.
        start: where a new lineage begins, and what may be lost.
        requests: what is asked of the trainer; `MemoryRequests` to ask something.
        run_id: how the run names itself in intents and manifests.

    Raises:
        Aborted: the script says so.
        Fatal: see `errors`.
    """
    chosen = settings or TrainerSettings(max_restarts=0)
    store = ModelStore(storage if isinstance(storage, Storage) else LocalStorage(storage), pipeline.name)
    outside = ScriptedOutside(
        log,
        store,
        outbox or MemoryOutbox(),
        clock or FakeClock(),
        requests=requests,
        max_rows=chosen.max_rows_per_batch,
        run_id=run_id,
    )
    trainer = Trainer(
        pipeline=pipeline,
        settings=Settings.model_construct(trainer=chosen, store=retention or StoreSettings(keep_versions=0)),
        connect=lambda: outside,
        start=replace(start or Start(), until_caught_up=True),
        stop=threading.Event(),
        poll_seconds=0.0,
    )
    trainer.run()
    assert trainer.lineage is not None  # noqa: S101 - a run that ends by itself has opened it
    return trainer.lineage
