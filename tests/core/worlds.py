"""One small pipeline, records of it as Kafka would hand them over, and stand-ins for Kafka itself."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from stream_trainer.acting import Action, Asked, Cause, id_of_alert
from stream_trainer.contract import BinaryLabel, Categorical, ClassLabel, Contract, Numeric, NumericLabel, Vector
from stream_trainer.decode import ARROW_CONTENT_TYPE, decode
from stream_trainer.learning import Cut
from stream_trainer.lineage import Lineage
from stream_trainer.microbatch import CommitPolicy, Context
from stream_trainer.offsets import Loss, Offsets, Ranges
from stream_trainer.pipeline import Pipeline
from stream_trainer.schema import TIMESTAMP
from stream_trainer.store import ModelStore
from stream_trainer.testing import MemoryOutbox, MemoryRequests

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
MIDNIGHT = datetime(2026, 1, 1, tzinfo=UTC)
TOPIC = "flights.examples"
FIELDS = {
    "key": "flight_id",
    "event_time": "scheduled_at",
}

CONTRACT = Contract(
    features=[
        Numeric("distance", low=0, high=10_000),
        Numeric("pressure", optional=True),
        Categorical("carrier", vocabulary=["AA", "UA"]),
        Categorical("tail", buckets=8, optional=True),
        Vector("place", 2),
    ],
    label=BinaryLabel("late"),
    segments=["origin", "carrier"],
    **FIELDS,
)
CLASSES = Contract(features=[Numeric("x")], label=ClassLabel("kind", ["a", "b", "c"]), **FIELDS)
NUMBERS = Contract(features=[Numeric("x")], label=NumericLabel("y"), **FIELDS)

GOOD: dict[str, Any] = {
    "distance": 250.5,
    "pressure": 1013.0,
    "carrier": "AA",
    "tail": "N123",
    "place": [1.0, -2.0],
    "origin": "JFK",
    "flight_id": "f1",
    "scheduled_at": "2026-01-01T10:00:00Z",
    "late": True,
}


def asked(action: Action, key: str = "drift/learned/x", at: datetime = MIDNIGHT) -> Asked:
    """What the monitor asks for because of an alert."""
    cause = Cause(alert_key=key, severity="critical", opened_at=at, since=at)
    return Asked(action_id=id_of_alert(key, at, action), action=action, by="monitor", asked_at=at, alert=cause)


def changed(**fields: Any) -> dict[str, Any]:
    """A good record with some fields replaced."""
    return GOOD | fields


def without(*names: str) -> dict[str, Any]:
    """A good record that lacks some fields."""
    return {name: value for name, value in GOOD.items() if name not in names}


def json_bytes(record: Any) -> bytes:
    return msgspec.json.encode(record)


def arrow_bytes(table: pa.Table) -> bytes:
    """An Arrow IPC stream."""
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def kafka_batch(values: Sequence[bytes | None], *, arrow: bool = False, first: int = 0, partition: int = 0) -> Any:
    """Records as Spark's Kafka source hands them over, at consecutive offsets."""
    n = len(values)
    columns: dict[str, Any] = {
        "topic": pa.array([TOPIC] * n, pa.string()),
        "partition": pa.array([partition] * n, pa.int32()),
        "offset": pa.array(range(first, first + n), pa.int64()),
        "timestamp": pa.array([NOW + timedelta(seconds=first + i) for i in range(n)], TIMESTAMP),
        "value": pa.array(values, pa.binary()),
    }
    if arrow:
        header = [{"key": "content-type", "value": ARROW_CONTENT_TYPE}]
        kind = pa.list_(pa.struct([("key", pa.string()), ("value", pa.binary())]))
        columns["headers"] = pa.array([header] * n, kind)
    return pa.RecordBatch.from_pydict(columns)


def decoded(*records: Any, contract: Contract = CONTRACT) -> list[dict[str, Any]]:
    """The decoded rows of records, given as bytes, None or JSON values."""
    values = [r if isinstance(r, bytes | None) else json_bytes(r) for r in records]
    rows: list[dict[str, Any]] = decode(contract, kafka_batch(values)).to_pylist()
    return rows


def by_offset(rows: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    return {row["_offset"]: row for row in rows}


def code(row: dict[str, Any]) -> str | None:
    """The reason's code of a decoded row; None for a good one."""
    reason: str | None = row["_reason"]
    return reason if reason is None else reason.split(":", 1)[0]


def flight(i: int, **fields: Any) -> dict[str, Any]:
    """The i-th of a learnable stream: long flights of UA are late."""
    draw = np.random.default_rng(i)
    distance = float(draw.uniform(0, 5_000))
    carrier = str(draw.choice(["AA", "UA", "ZZ"]))
    return {
        "distance": distance,
        "pressure": None if i % 5 == 0 else 1000.0 + i % 7,
        "carrier": carrier,
        "tail": f"N{i % 11}",
        "place": [float(draw.normal()), float(draw.normal())],
        "origin": ["JFK", "LGA", "EWR"][i % 3],
        "flight_id": f"f{i}",
        "scheduled_at": (NOW + timedelta(minutes=i)).isoformat(),
        "late": bool(distance > 2_500 or carrier == "UA"),
    } | fields


@dataclass(slots=True)
class MemoryLog:
    """A topic in memory: per partition, the values by offset."""

    partitions: dict[int, list[bytes | None]] = field(default_factory=dict)

    def append(self, partition: int, *records: Any) -> None:
        values = [r if isinstance(r, bytes | None) else json_bytes(r) for r in records]
        self.partitions.setdefault(partition, []).extend(values)

    def ends(self) -> Offsets:
        return {TOPIC: {p: len(values) for p, values in self.partitions.items()}}

    def fetch(self, cut: Cut, contract: Contract = CONTRACT, *, backwards: bool = False) -> pa.Table:
        """What a read of exactly these ranges gives, in partition order or the other way round."""
        parts = [
            decode(contract, kafka_batch(self.partitions[p][start:end], first=start, partition=p))
            for p, (start, end) in sorted(cut.ranges[TOPIC].items())
        ]
        table = pa.Table.from_batches(parts)
        return table.take(pa.array(range(table.num_rows - 1, -1, -1), pa.int64())) if backwards else table


class FakeSource:
    """A topic that is still the same; `seen` is what it was asked about."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.failure = failure
        self.seen: list[Offsets] = []

    def expect(self, topic_ids: dict[str, str]) -> None:
        raise NotImplementedError

    def earliest(self) -> Offsets:
        raise NotImplementedError

    def latest(self) -> Offsets:
        raise NotImplementedError

    def covered(self, vector: Offsets) -> bool:
        raise NotImplementedError

    def missing(self, needed: Offsets) -> list[Loss]:
        raise NotImplementedError

    def check(self, needed: Offsets) -> dict[str, str]:
        self.seen.append(needed)
        if self.failure is not None:
            raise self.failure
        return {TOPIC: "11111111-2222-3333-4444-555555555555"}


def context_of(
    store: ModelStore,
    pipeline: Pipeline,
    *,
    source: FakeSource | None = None,
    outbox: MemoryOutbox | None = None,
    run_id: str = "run",
    clock: Callable[[], datetime] = lambda: NOW,
    monotonic: Callable[[], float] = lambda: 0.0,
    policy: CommitPolicy | None = None,
    requests: MemoryRequests | None = None,
    reread: Callable[[Ranges], pa.Table] | None = None,
) -> Context:
    return Context(
        pipeline=pipeline,
        store=store,
        source=source or FakeSource(),
        outbox=outbox or MemoryOutbox(),
        run_id=run_id,
        clock=clock,
        monotonic=monotonic,
        policy=policy or CommitPolicy(),
        requests=requests or MemoryRequests(),
        reread=reread or _unasked,
    )


def _unasked(ranges: Ranges) -> pa.Table:
    raise NotImplementedError


def bits(lineage: Lineage) -> dict[str, bytes]:
    """Every tensor of the lineage's state, byte for byte."""
    tensors = {**lineage.state.serving, **lineage.state.training}
    return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}
