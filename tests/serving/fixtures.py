"""Real committed versions, a fixed clock and fakes for what serving talks to."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pyarrow as pa
import torch
import uvicorn
from fastapi import FastAPI
from httpx import Client
from starlette.types import ASGIApp

from serving.announcements import Announcement
from serving.app import create_app
from serving.follower import Follower
from serving.metrics import Metrics
from serving.ports import Server, listen
from serving.prediction_log import PredictionSink
from serving.prediction_records import Answered
from serving.rows import Rows as RequestRows
from stream_trainer.contract import BinaryLabel, Categorical, Contract, Numeric
from stream_trainer.errors import BrokerUnavailable
from stream_trainer.features import encode
from stream_trainer.learner import Batch, State, answer
from stream_trainer.learners import Sgd
from stream_trainer.pipeline import Pipeline
from stream_trainer.reference import table_to_bytes
from stream_trainer.schema import arrow_fields, struct_type, to_columns
from stream_trainer.settings import Settings
from stream_trainer.store import Manifest, ModelStore, Rows, Span, Version
from stream_trainer.store.aliases import Alias
from stream_trainer.store.manifest import Verdict
from stream_trainer.store.store import GOLDEN, TRAINER, WEIGHTS
from stream_trainer.store.tensors import to_bytes

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)

CONTRACT = Contract(
    features=[
        Numeric("distance", low=0),
        Numeric("pressure", optional=True),
        Categorical("carrier", vocabulary=["AA", "UA"]),
    ],
    label=BinaryLabel("late"),
    key="flight_id",
    event_time="scheduled_at",
    segments=["origin", "carrier"],
)
PIPELINE = Pipeline(name="flights", contract=CONTRACT, learner=Sgd())

ROWS: list[dict[str, Any]] = [
    {
        "distance": 100.0 * i,
        "pressure": 1000.0 + i if i % 2 else None,
        "carrier": ["AA", "UA", "ZZ"][i % 3],
        "origin": "JFK",
        "flight_id": f"f{i}",
        "scheduled_at": "2026-01-01T10:00:00Z",
    }
    for i in range(8)
]


PATIENCE = 20.0


async def when(condition: Callable[[], bool]) -> None:
    """Let the loop turn until something holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what is waited for sets no event
            await asyncio.sleep(0)


class ManualClock:
    """An instant that moves when told to."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class FakeAnnouncements:
    """Announcements that a test puts there; `down` makes it a broker that does not answer."""

    def __init__(self) -> None:
        self.waiting: list[Announcement] = []
        self.down = False
        self.patience: list[float] = []

    def push(self, version: Version, at: datetime, covered_at: datetime | None = None, *, alias: int = 0) -> None:
        self.waiting.append(
            Announcement(
                version=version.number, manifest_sha256=version.sha256, at=at, covered_at=covered_at, alias=alias
            )
        )

    def poll(self, seconds: float) -> list[Announcement]:
        self.patience.append(seconds)
        if self.down:
            raise BrokerUnavailable("the broker does not answer")
        found, self.waiting = self.waiting, []
        return found

    def close(self) -> None:
        pass


class MemoryLog:
    """Keeps what it was given."""

    def __init__(self) -> None:
        self.answered: list[Answered] = []

    def record(self, answered: Answered) -> None:
        self.answered.append(answered)


class Harness:
    """A follower over a store in a folder, stepped by the test."""

    def __init__(self, store: ModelStore, pipeline: Pipeline = PIPELINE, **settings: Any) -> None:
        self.pipeline = pipeline
        self.store = store
        self.settings = Settings(serving=settings)
        self.clock = ManualClock()
        self.source = FakeAnnouncements()
        self.metrics = Metrics()
        self.log = MemoryLog()
        self.seconds = 0.0
        self.follower = Follower(
            pipeline,
            store,
            self.source,
            self.metrics,
            self.clock,
            poll_seconds=0.01,
            swap_every_seconds=settings.get("swap_every_seconds", 0.0),
            monotonic=lambda: self.seconds,
        )

    @property
    def version(self) -> int | None:
        return None if self.follower.served is None else self.follower.served.number

    def metric(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"stream_trainer_serving_{name}", labels) or 0.0


def app_of(harness: Harness, log: PredictionSink | None = None) -> FastAPI:
    """The service of a harness, with its own log or another."""
    return create_app(
        harness.pipeline,
        harness.settings,
        log=log or harness.log,
        follower=harness.follower,
        metrics=harness.metrics,
        store=harness.store,
        clock=harness.clock,
    )


@contextmanager
def serving(app: ASGIApp) -> Iterator[Client]:
    """A real server on a free port, and a client of it."""
    started = threading.Event()
    config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", ws="none")
    server = Server(config, started.set)
    with listen("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        assert started.wait(10)
        try:
            with Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}") as client:
                yield client
        finally:
            server.should_exit = True
            thread.join(10)


def columns_of(pipeline: Pipeline, rows: list[dict[str, Any]]) -> dict[str, pa.Array]:
    """Rows as a request's columns."""
    return to_columns(pipeline.contract, "request", parsed(pipeline, rows))


def parsed(pipeline: Pipeline, rows: list[dict[str, Any]]) -> list[Any]:
    """Rows as a request's structs."""
    struct = struct_type(pipeline.contract, "request")
    return [msgspec.convert(row, struct) for row in rows]


def requested(pipeline: Pipeline, rows: list[dict[str, Any]]) -> RequestRows:
    """Rows as whoever answers is given them."""
    return RequestRows.of(parsed(pipeline, rows))


def learned_state(pipeline: Pipeline = PIPELINE, seed: int = 0, rows: list[dict[str, Any]] = ROWS) -> State:
    """A state that has learned from a few rows; another seed gives other weights."""
    state = pipeline.learner.init(pipeline.spec, seed)
    features = encode(pipeline.contract, columns_of(pipeline, rows))
    labels = torch.arange(len(rows), dtype=torch.float64) % 2
    return pipeline.learner.learn(state, Batch(features=features, labels=labels))[0]


def golden(pipeline: Pipeline, state: State, rows: list[dict[str, Any]] = ROWS) -> bytes:
    """`golden.arrow` as the trainer writes it."""
    columns = columns_of(pipeline, rows)
    outputs = answer(pipeline.learner, state, encode(pipeline.contract, columns))
    fields = [*arrow_fields(pipeline.contract, "request"), pa.field("_output", pa.list_(pa.float32()))]
    column = pa.array(outputs.reshape(len(outputs), -1).tolist(), pa.list_(pa.float32()))
    return table_to_bytes(pa.table([*columns.values(), column], schema=pa.schema(fields)))


def commit_version(
    store: ModelStore,
    pipeline: Pipeline,
    state: State,
    *,
    files: Mapping[str, bytes] | None = None,
    **fields: Any,
) -> Version:
    """Commit the next version; `files` and `fields` replace what a healthy one would have."""
    number = store.highest() + 1
    attempt = store.new_attempt()
    contents = {WEIGHTS: to_bytes(state.serving), TRAINER: to_bytes(state.training)}
    if files is None or GOLDEN not in files:
        contents[GOLDEN] = golden(pipeline, state)
    created = NOW + timedelta(seconds=number)
    manifest = Manifest(
        pipeline=pipeline.name,
        contract=pipeline.contract.fingerprint,
        version=number,
        previous=number - 1 or None,
        parent=number - 1 or None,
        parent_sha256=None,
        run_id="run",
        attempt=attempt,
        created_at=created,
        files=store.write_files(number, attempt, contents | dict(files or {})),
        next_offsets={},
        ranges={},
        cuts=[],
        topic_ids={},
        rows=Rows(seen=8, trained=8),
        total=Rows(seen=8 * number, trained=8 * number),
        unknown_fields=0,
        event_time=None,
        append_time=Span(min=created - timedelta(seconds=2), max=created - timedelta(seconds=1)),
        trained_through=datetime(2013, 2, 1, 10, tzinfo=UTC),
        covered_at=created,
        metrics={},
        gates=[Verdict(gate="finite", passed=True, detail="")],
        strategy="local",
        world_size=1,
        partition_order=[],
        seed=0,
        hyperparameters=pipeline.learner.hyperparameters(),
        libraries={},
        threads=1,
        cpu_capability="",
        reference=None,
    )
    return store.commit(msgspec.structs.replace(manifest, **fields))


def put_alias(store: ModelStore, version: int, at: datetime, *, hold: bool) -> None:
    """Point the champion somewhere."""
    folder = f"{store.pipeline}/aliases/champion"
    number = len(store.storage.names(folder)) + 1
    alias = Alias(version=version, reason="test", by="test", at=at, hold=hold)
    store.storage.put_if_absent(f"{folder}/{number}.json", msgspec.json.encode(alias))


def damaged(state: State, name: str, value: float, shape: tuple[int, ...] | None = None) -> State:
    """The state with one number of a tensor replaced, or with a tensor of another shape."""
    tensor = state.serving[name].clone() if shape is None else torch.zeros(shape)
    tensor.view(-1)[0] = value
    return replace(state, serving={**state.serving, name: tensor})
