"""Time, Kafka and the service in a test's hands."""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from examples.flights.client import Answer, PredictionFailed


@dataclass
class FakeTime:
    """Moves when someone sleeps; `steps` calls what a test wants to happen then."""

    now: float = 0.0
    steps: list[Callable[[], None]] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.steps:
            self.steps.pop(0)()
        await asyncio.sleep(0)


class FakeKafka:
    """Keeps what it is given; full when `room` is used up, until polled with patience."""

    def __init__(self, room: int = 10**9, error: str | None = None) -> None:
        self.records: list[dict[str, Any]] = []
        self.keys: list[bytes] = []
        self.flushed = False
        self.full = 0
        self._room = room
        self._error = error
        self._queue: list[Callable[[Any, Any], None]] = []

    def produce(self, topic: str, *, key: bytes, value: bytes, on_delivery: Callable[[Any, Any], None]) -> None:
        if len(self._queue) >= self._room:
            self.full += 1
            raise BufferError
        self._queue.append(on_delivery)
        self.keys.append(key)
        self.records.append(json.loads(value))

    def poll(self, timeout: float) -> int:
        if timeout:
            self._deliver()
        return 0

    def flush(self, timeout: float) -> int:
        self.flushed = True
        self._deliver()
        return 0

    def _deliver(self) -> None:
        for report in self._queue:
            report(self._error, None)
        self._queue.clear()


@dataclass
class FakeService:
    """Answers at once, or when `gate` opens; fails or has no version on request."""

    gate: asyncio.Event | None = None
    fails: bool = False
    version: int | None = 3
    asked: list[dict[str, Any]] = field(default_factory=list)
    together: int = 0
    most_together: int = 0

    async def predict(self, instances: Sequence[dict[str, Any]]) -> list[Answer]:
        self.asked += instances
        self.together += 1
        self.most_together = max(self.most_together, self.together)
        try:
            if self.gate:
                await self.gate.wait()
            if self.fails:
                raise PredictionFailed("down")
            return [Answer(f"id-{i['flight_id']}", self.version, 0.5) for i in instances]
        finally:
            self.together -= 1
