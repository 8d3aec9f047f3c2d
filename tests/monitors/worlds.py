"""A small pipeline with a drift reference, and predictions of it."""

import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import torch

from monitors.alerts import Alert, WindowSpan
from monitors.findings import Effect
from stream_trainer.contract import BinaryLabel, Categorical, Contract, Numeric, Vector
from stream_trainer.features import encode
from stream_trainer.learner import Batch
from stream_trainer.monitoring import Monitoring
from stream_trainer.pipeline import Pipeline
from stream_trainer.reference import LABEL, OUTPUT, Learned, Reference, coded, freeze
from stream_trainer.schema import TIMESTAMP
from stream_trainer.settings import Settings, StoreSettings
from stream_trainer.store import Manifest, ModelStore, Rows, open_store, tensors

CONTRACT = Contract(
    features=[
        Numeric("distance", low=0),
        Numeric("dep_hour", low=0, high=24, optional=True),
        Categorical("carrier", buckets=16),
        Vector("place", 2),
    ],
    label=BinaryLabel("late"),
    key="flight_id",
    event_time="scheduled_at",
    segments=["origin", "carrier"],
)
FAR = 1_000.0
START = datetime(2026, 1, 1, tzinfo=UTC)
ROWS_A_SECOND = 100
WINDOW_ROWS = 500
WINDOW = timedelta(seconds=WINDOW_ROWS / ROWS_A_SECOND)
# Rows are drawn one by one, and some worlds have moved before their first window.
MONITORING = Monitoring(window=WINDOW, lateness=timedelta(0), silence=None, unlabelled=None, staleness=None)
PREDICTIONS, EXAMPLES = "flights.predictions", "flights.examples"
Rng = np.random.Generator


def pipeline(name: str) -> Pipeline:
    return Pipeline(name=name, contract=CONTRACT, monitoring=MONITORING)


def settings(folder: Path, **sections: Any) -> Settings:
    return Settings(data_dir=folder, store=StoreSettings(url=str(folder / "models")), **sections)


def alert(**fields: object) -> Alert:
    """An alert on `x`, over four windows, with some fields replaced."""
    found = Alert(
        alert_key="drift/learned/x",
        pipeline="flights",
        status="opened",
        severity="warning",
        feature="x",
        statistic=12.0,
        p_value=1e-9,
        threshold=1e-6,
        psi=0.2,
        effect=Effect(psi=0.2, jensen_shannon=0.01, kolmogorov_smirnov=0.1, wasserstein=0.3),
        windows=4,
        window=WindowSpan(start=START, end=START + timedelta(minutes=20), rows=800),
        since=START,
        offsets={"P.predictions": {0: (10, 400), 1: (7, 417)}},
        model_version=3,
        opened_at=START + timedelta(minutes=20),
        updated_at=START + timedelta(minutes=20),
        message="moved",
    )
    return msgspec.structs.replace(found, **fields)


def features(rng: Rng, rows: int, *, shift: float = 0.0) -> list[dict[str, Any]]:
    return [
        {
            "distance": float(math.exp(rng.normal(6.5 + shift, 0.5))),
            "dep_hour": float(rng.integers(0, 24)),
            "carrier": str(rng.choice(["AA", "UA", "DL", "B6"])),
            "place": [float(v) for v in rng.normal(size=2)],
        }
        for _ in range(rows)
    ]


def columns(rows: Sequence[dict[str, Any]], rng: Rng) -> dict[str, pa.Array]:
    found = {name: pa.array([r[name] for r in rows]) for name in ("distance", "dep_hour", "carrier")}
    found["place"] = pa.array([r["place"] for r in rows], pa.list_(pa.float64()))
    found["origin"] = pa.array(list(rng.choice(["EWR", "JFK"], len(rows))))
    found[LABEL] = pa.array(rng.integers(0, 2, len(rows)).astype(float))
    found[OUTPUT] = pa.array([[0.5]] * len(rows), pa.list_(pa.float64()))
    return found


def frozen(rng: Rng, rows: int = 4_000) -> tuple[Reference, Learned]:
    """A reference over the first 2,000 rows, and what was learned, over two hours."""
    first, learned = columns(features(rng, 2_000), rng), columns(features(rng, rows), rng)
    reference = freeze(CONTRACT, first)
    hours = pa.array([START + timedelta(hours=i % 2) for i in range(rows)], TIMESTAMP)
    return reference, Learned().add(coded(CONTRACT, reference, learned), hours, 48)


def commit_version(
    store: ModelStore, number: int, reference: Reference | None, learned: Learned | None, weights: bytes | None = None
) -> None:
    """A version with nothing but what the monitor reads; without a reference it only exists."""
    attempt = store.new_attempt()
    given = {"learned.arrow": learned.to_bytes() if learned else None, "weights.safetensors": weights}
    files = {name: content for name, content in given.items() if content is not None}
    store.commit(
        Manifest(
            pipeline=store.pipeline,
            contract=CONTRACT.fingerprint,
            version=number,
            previous=number - 1 or None,
            parent=number - 1 or None,
            parent_sha256=None,
            run_id="test",
            attempt=attempt,
            created_at=START,
            files=store.write_files(number, attempt, files),
            next_offsets={},
            ranges={},
            cuts=[],
            topic_ids={},
            rows=Rows(),
            total=Rows(),
            unknown_fields=0,
            event_time=None,
            append_time=None,
            trained_through=None,
            covered_at=None,
            metrics={},
            gates=[],
            strategy="local",
            world_size=1,
            partition_order=[],
            seed=0,
            hyperparameters={},
            libraries={},
            threads=1,
            cpu_capability="",
            reference=None if reference is None else store.put_reference(reference.to_bytes()),
        )
    )


def store_with_reference(of: Settings, name: str, rng: Rng, weights: bytes | None = None) -> ModelStore:
    store = open_store(of, name)
    commit_version(store, 1, *frozen(rng), weights)
    return store


def taught(of: Pipeline, rng: Rng, rows: int = 2_000) -> bytes:
    """The weights of a version that knows: what goes far is late, and nothing else matters."""
    values = features(rng, rows)
    given = columns(values, rng)
    inputs = encode(CONTRACT, {f.name: given[f.name] for f in CONTRACT.features})
    late = torch.tensor([float(one["distance"] > FAR) for one in values], dtype=torch.float64)
    state = of.learner.init(of.spec, 0)
    for start in range(0, rows, 200):
        state, _ = of.learner.learn(
            state, Batch(features=inputs[start : start + 200], labels=late[start : start + 200])
        )
    return tensors.to_bytes(state.serving)


def record(number: int, values: dict[str, Any], **changes: Any) -> bytes:
    fields = {
        "prediction_id": f"id-{number:08d}",
        "key": f"flight-{number}",
        "requested_at": _at(number),
        "event_time": _at(number),
        "segments": {"origin": "EWR" if number % 2 else "JFK"},
        "features": values,
        "output": 0.5,
        "model_version": 1,
        "role": "champion",
    }
    return msgspec.json.encode(fields | changes)


def records(values: Iterable[dict[str, Any]], first: int = 0) -> list[bytes]:
    return [record(first + i, row) for i, row in enumerate(values)]


def example(number: int, values: dict[str, Any], *, label: int, **changes: Any) -> bytes:
    fields = {
        **values,
        "flight_id": f"flight-{number}",
        "scheduled_at": _at(number),
        "origin": "EWR" if number % 2 else "JFK",
        "late": label,
        "_model_version": 1,
        "_output": 0.5,
    }
    return msgspec.json.encode(fields | changes)


def kafka(
    values: Sequence[bytes | None],
    *,
    topic: str = PREDICTIONS,
    offset: int = 0,
    partition: int = 0,
    after: float = 86_400.0,
) -> pa.RecordBatch:
    """Records as Spark's Kafka source hands them over, appended `after` seconds from the start."""
    rows = len(values)
    return pa.record_batch(
        {
            "topic": pa.array([topic] * rows, pa.string()),
            "partition": pa.array([partition] * rows, pa.int32()),
            "offset": pa.array(range(offset, offset + rows), pa.int64()),
            "timestamp": pa.array([START + timedelta(seconds=after)] * rows, TIMESTAMP),
            "value": pa.array(values, pa.binary()),
        }
    )


def _at(number: int) -> datetime:
    return START + timedelta(seconds=number / ROWS_A_SECOND)
