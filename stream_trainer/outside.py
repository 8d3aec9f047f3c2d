"""What a trainer asks of the outside: where examples come from, where news go, and a store.

`connections.py` has the real thing, Kafka and Spark; `stream_trainer.testing` a scripted one. Both are driven by the
same trainer.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, Self

import pyarrow as pa

from stream_trainer.acts import Read
from stream_trainer.alerts import TrainerAlert
from stream_trainer.learning import Cut
from stream_trainer.offsets import Loss, Offsets, Ranges
from stream_trainer.store import ModelStore, Version

LearnCut = Callable[[Cut, Callable[[], pa.Table]], None]
Position = Callable[[], Offsets]


class Source(Protocol):
    """The examples topic: which partitions there are, where they begin and end, and whether it is still the same."""

    def expect(self, topic_ids: dict[str, str]) -> None:
        """Take these ids for the topics that the offsets belong to; without this, those found first."""
        ...

    def earliest(self) -> Offsets:
        """The first offset of every partition that still exists."""
        ...

    def latest(self) -> Offsets:
        """The next offset of every partition."""
        ...

    def covered(self, vector: Offsets) -> bool:
        """Whether the log ends where the vector stands."""
        ...

    def missing(self, needed: Offsets) -> list[Loss]:
        """What is gone of the records from `needed` on, or ends before it; empty when all are there."""
        ...

    def check(self, needed: Offsets) -> dict[str, str]:
        """The ids of the topics, after making sure that nothing from `needed` on is missing.

        Raises:
            InputLost: a topic was re-created, a partition vanished, or retention has passed an offset.
        """
        ...


class Outbox(Protocol):
    """Where rejected records, announcements and alerts go."""

    def reject(self, rows: pa.Table) -> None:
        """Write rejected rows, keyed by position; returns when the broker has them."""
        ...

    def announce(self, version: Version, covered_at: datetime) -> None:
        """Tell the serving side about a version."""
        ...

    def alert(self, alerts: Iterable[TrainerAlert]) -> None:
        """Say what opened, goes on or is resolved; keyed, at least once."""
        ...

    def show_progress(self, version: Version) -> None:
        """Let lag tools see how far a version has come; never read back."""
        ...


@dataclass(frozen=True, slots=True)
class Request:
    """One record of `P.actions` as it stands there: hostile until it is parsed."""

    offset: int
    key: bytes | None
    value: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What follows a place in `P.actions`, in order, and the offset after it."""

    topic_id: str
    records: tuple[Request, ...] = ()
    next: int = 0


class Requests(Protocol):
    """`P.actions`: what monitors and people ask of the trainer."""

    def after(self, read: Read | None, most: int) -> Page:
        """At most so many records from where it was read up to; from its start when that was another topic, or nowhere."""
        ...


class Running(Protocol):
    """A stream that has been started."""

    def check(self) -> None:
        """Nothing while it runs; raises what ended it."""
        ...

    def between(self) -> AbstractContextManager[None]:
        """No micro-batch runs inside the block."""
        ...

    def stop(self) -> None:
        """Let a running micro-batch finish, start no other, and end."""
        ...


class Feed(Protocol):
    """Reads and decodes examples."""

    def read(self, ranges: Ranges) -> pa.Table:
        """The decoded records of exactly these ranges."""
        ...

    def stream(self, start: Offsets, position: Position, learn: LearnCut) -> Running:
        """Cut what follows `start` into micro-batches; each calls `learn` with its cut and what fetches it."""
        ...


class Outside(Protocol):
    """Everything that a run holds open; entering opens nothing more, leaving closes it."""

    @property
    def run_id(self) -> str:
        """How this run names itself in intents and manifests."""
        ...

    @property
    def store(self) -> ModelStore:
        """Where versions live."""
        ...

    @property
    def source(self) -> Source:
        """What is known of the examples topic."""
        ...

    @property
    def requests(self) -> Requests:
        """What is asked of the trainer."""
        ...

    @property
    def outbox(self) -> Outbox:
        """Where news go."""
        ...

    @property
    def feed(self) -> Feed:
        """What reads examples."""
        ...

    def clock(self) -> datetime:
        """The present instant, UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds on a clock that is never set."""
        ...

    def heartbeat(self, covered: Callable[[Source], Version | None]) -> AbstractContextManager[None]:
        """For the length of the block, announce now and then the version that `covered` says covers the whole log."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...
