"""Labelled examples in memory, and versions that have learned from them more or less."""

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import torch

from serving.examples_log import Bounds
from stream_trainer.decode import decode, decoded_schema
from stream_trainer.errors import BrokerUnavailable, InputLost
from stream_trainer.features import encode
from stream_trainer.learner import Batch, State
from stream_trainer.log_reader import RECORDS
from stream_trainer.offsets import Ranges
from stream_trainer.schema import struct_type, to_columns
from tests.serving.fixtures import CONTRACT, NOW, PIPELINE, learned_state

TOPIC = PIPELINE.topics.examples
TOPIC_ID = "11111111-2222-3333-4444-555555555555"


def example(i: int) -> dict[str, Any]:
    """The i-th of a learnable stream: long flights are late."""
    distance = float(np.random.default_rng(i).uniform(0, 5_000))
    return {
        "distance": distance,
        "pressure": None,
        "carrier": "AA",
        "origin": "JFK",
        "flight_id": f"f{i}",
        "scheduled_at": "2026-01-01T10:00:00Z",
        "late": distance > 2_500,
    }


@cache
def good_state() -> State:
    """One that has learned the stream; `learned_state` of the fixtures has not."""
    struct = struct_type(CONTRACT, "example")
    columns = to_columns(CONTRACT, "example", [msgspec.convert(example(-i % 2**32), struct) for i in range(1, 1_000)])
    labels = torch.tensor(columns["late"].to_pylist(), dtype=torch.float64)
    batch = Batch(features=encode(CONTRACT, columns), labels=labels)
    return PIPELINE.learner.learn(learned_state(), batch)[0]


class MemoryExamples:
    """An examples topic of two partitions; one record a second, appended long ago. `down`: the broker is."""

    def __init__(self, count: int = 0, *, clock: Callable[[], datetime] = lambda: NOW) -> None:
        self.partitions: dict[int, list[tuple[datetime, bytes]]] = {0: [], 1: []}
        self.starts = {0: 0, 1: 0}
        self.topic_id = TOPIC_ID
        self.down = False
        self.opened = 0
        self.reads: list[Ranges] = []
        self._clock = clock
        self._sent = 0
        self.append(count)

    def append(self, count: int) -> None:
        for _ in range(count):
            self.put(self._sent % 3 // 2, msgspec.json.encode(example(self._sent)))

    def put(self, partition: int, value: bytes) -> None:
        self.partitions[partition].append((NOW - timedelta(hours=12) + timedelta(seconds=self._sent), value))
        self._sent += 1

    def open(self) -> "MemoryExamples":
        self.opened += 1
        return self

    def bounds(self) -> Bounds:
        if self.down:
            raise BrokerUnavailable("the broker does not answer")
        ends = {p: (self.starts[p], len(records)) for p, records in self.partitions.items()}
        return Bounds(topic_id=self.topic_id, at=self._clock(), partitions=ends)

    def read(self, ranges: Ranges, topic_id: str) -> pa.Table:
        if self.down:
            raise BrokerUnavailable("the broker does not answer")
        self.reads.append(ranges)
        batches = []
        for partition, (start, end) in ranges[TOPIC].items():
            if topic_id != self.topic_id or start < self.starts[partition]:
                raise InputLost("those records are gone")
            batches.append(decode(CONTRACT, self._batch(partition, start, end)))
        return pa.Table.from_batches(batches, decoded_schema(CONTRACT))

    def _batch(self, partition: int, start: int, end: int) -> pa.RecordBatch:
        rows = [
            {"topic": TOPIC, "partition": partition, "offset": start + i, "timestamp": at, "value": value}
            for i, (at, value) in enumerate(self.partitions[partition][start:end])
        ]
        return pa.RecordBatch.from_pylist(rows, schema=RECORDS)

    def close(self) -> None:
        self.opened -= 1
