"""`GET /page/contract`: what the page's form asks for, and rows to fill it with.

The rows are the golden rows of the version that serves: real ones, so they are shown in the development profile only,
and never with their key. They are read in a thread of their own; a store that hangs delays nobody.
"""

import asyncio
import logging
import shlex
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any, Literal

import msgspec
import pyarrow as pa

from serving.daemon_threads import DaemonThreads
from serving.follower import Follower
from serving.model import Served
from stream_trainer.contract import FLOAT32_MAX, BinaryLabel, Categorical, ClassLabel, Contract, Feature, Label, Numeric
from stream_trainer.errors import StreamTrainerError
from stream_trainer.pipeline import Pipeline
from stream_trainer.reference import table_from_bytes
from stream_trainer.schema import field_names
from stream_trainer.store import ModelStore, Version
from stream_trainer.store.store import GOLDEN

logger = logging.getLogger(__name__)

READ_SECONDS = 2.0
_MOST_ROWS = 4
_KEPT_SECONDS = 60.0

Kind = Literal["number", "choice", "text", "vector", "key", "time"]


class Field(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One input.

    Attributes:
        low: of a number; absent when it has no bound of its own.
        options: of a choice.
        size: of a vector: how many numbers.
        segment: whether reports are made by it.
    """

    name: str
    kind: Kind
    required: bool
    low: float | None = None
    high: float | None = None
    options: tuple[str, ...] = ()
    size: int | None = None
    segment: bool = False


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """The answer. `label` is what is predicted, `classes` its classes if it has any, `trace` a command to put an id to."""

    pipeline: str
    label: str
    kind: Literal["binary", "classes", "number"]
    classes: tuple[str, ...]
    fields: list[Field]
    trace: str
    examples: list[dict[str, Any]]


def form(pipeline: Pipeline, address: str | None, examples: list[dict[str, Any]]) -> Form:
    """The form of a pipeline.

    Args:
        pipeline: whose contract it is.
        address: `module:attribute`, as commands take it; None shows a placeholder.
        examples: rows to fill it with.
    """
    contract, label = pipeline.contract, pipeline.contract.label
    fields = [_field(feature, contract) for feature in contract.features]
    fields += [Field(name=name, kind="text", required=False, segment=True) for name in contract.extra_segments]
    fields += [Field(name=contract.event_time, kind="time", required=False)]
    fields += [Field(name=contract.key, kind="key", required=False)]
    return Form(
        pipeline=pipeline.name,
        label=label.name,
        kind=_label_kind(label),
        classes=tuple(label.classes) if isinstance(label, ClassLabel) else (),
        fields=fields,
        trace=f"stream-trainer lineage {shlex.quote(address) if address else 'MODULE:PIPELINE'}",
        examples=examples,
    )


class Examples:
    """Golden rows of the version that serves, or of one that served within the last minute."""

    def __init__(
        self,
        contract: Contract,
        store: ModelStore,
        follower: Follower,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._contract = contract
        self._store = store
        self._follower = follower
        self._monotonic = monotonic
        self._thread = DaemonThreads("page")
        self._reading: asyncio.Future[list[dict[str, Any]]] | None = None
        self._rows: list[dict[str, Any]] = []
        self._read_at: float | None = None

    async def rows(self) -> list[dict[str, Any]]:
        """At most a few; none when there is no version, or when its file cannot be read in time."""
        served = self._follower.served
        fresh = self._read_at is not None and self._monotonic() - self._read_at < _KEPT_SECONDS
        if served is None or fresh:
            return self._rows
        if self._reading is None:
            self._reading = asyncio.get_running_loop().run_in_executor(self._thread, self._read, served)
            self._reading.add_done_callback(self._have_read)
        with suppress(TimeoutError):
            async with asyncio.timeout(READ_SECONDS):
                await asyncio.shield(self._reading)
        return self._rows

    def _have_read(self, reading: "asyncio.Future[list[dict[str, Any]]]") -> None:
        self._reading = None
        if not reading.cancelled():
            self._rows = reading.result() or self._rows
            self._read_at = self._monotonic()

    def _read(self, served: Served) -> list[dict[str, Any]]:
        version = Version(manifest=served.manifest, sha256=served.sha256)
        try:
            table = table_from_bytes(self._store.file(version, GOLDEN)).slice(0, _MOST_ROWS)
        except (StreamTrainerError, pa.ArrowException, OSError) as error:
            logger.warning("the page has no rows to fill its form with: %s", error)
            return []
        names = set(field_names(self._contract, "request")) - {self._contract.key}
        rows = table.select([name for name in table.column_names if name in names]).to_pylist()
        return [{name: _plain(value) for name, value in row.items()} for row in rows]


def _field(feature: Feature, contract: Contract) -> Field:
    match feature:
        case Numeric(name=name, low=low, high=high, optional=optional):
            return Field(
                name=name,
                kind="number",
                required=not optional,
                low=low if low > -FLOAT32_MAX else None,
                high=high if high < FLOAT32_MAX else None,
            )
        case Categorical(name=name, vocabulary=vocabulary, optional=optional):
            return Field(
                name=name,
                kind="text" if vocabulary is None else "choice",
                required=not optional,
                options=tuple(vocabulary or ()),
                segment=name in contract.segments,
            )
        case _:
            return Field(name=feature.name, kind="vector", required=True, size=feature.size)


def _label_kind(label: Label) -> Literal["binary", "classes", "number"]:
    match label:
        case BinaryLabel():
            return "binary"
        case ClassLabel():
            return "classes"
        case _:
            return "number"


def _plain(value: Any) -> Any:
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else value
