"""Walks the schedule: asks at departure, writes the label at landing. IO comes in from outside.

A flight's label waits for the answer to its request, or for its failure; nothing else waits for an answer. When
too many requests are in flight or Kafka's queue is full, simulated time slows down: nothing is dropped.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import msgspec
from confluent_kafka import KafkaError, KafkaException

from examples.flights.client import Answer, PredictionFailed
from examples.flights.data import Timeline, rfc3339
from examples.flights.schedule import Schedule, SimulatedClock

TICK_SECONDS = 0.05
MAX_STEP_SECONDS = 2 * TICK_SECONDS
MAX_INSTANCES = 500
MAX_IN_FLIGHT = 8
QUEUE_FULL_WAIT = 0.1

log = logging.getLogger(__name__)


class Predictor(Protocol):
    """What gives answers."""

    async def predict(self, instances: Sequence[dict[str, Any]]) -> list[Answer]:
        """One answer an instance; raises PredictionFailed."""
        ...


class Producer(Protocol):
    """The part of confluent-kafka's producer in use. `produce` raises BufferError when its queue is full."""

    def produce(self, topic: str, *, key: bytes, value: bytes, on_delivery: Callable[[Any, Any], None]) -> None:
        """Queue one record; raises KafkaException when it never could be delivered."""
        ...

    def poll(self, timeout: float) -> int:
        """Serve delivery reports."""
        ...

    def flush(self, timeout: float) -> int:
        """Wait for everything queued; how many are still queued."""
        ...


@dataclass(slots=True)
class Counts:
    """What has happened so far, in flights."""

    asked: int = 0
    answered: int = 0
    without_version: int = 0
    failed: int = 0
    landed: int = 0
    written: int = 0
    delivered: int = 0
    undelivered: int = 0


class Replayer:
    """One walk. `run` returns when the schedule has ended or after `stop`, with everything written flushed."""

    def __init__(
        self,
        timeline: Timeline,
        schedule: Schedule,
        clock: SimulatedClock,
        predictor: Predictor,
        producer: Producer,
        *,
        topic: str,
        real: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        flush_seconds: float = 30.0,
    ) -> None:
        self.counts = Counts()
        self.stopping = False
        self._timeline = timeline
        self._schedule = schedule
        self._clock = clock
        self._predictor = predictor
        self._producer = producer
        self._topic = topic
        self._real = real
        self._sleep = sleep
        self._flush_seconds = flush_seconds
        self._drain_by = float("inf")
        self._slots = asyncio.Semaphore(MAX_IN_FLIGHT)
        self._pending: set[int] = set()
        self._answers: dict[int, Answer | None] = {}
        self._landed_early: set[int] = set()
        self._said: set[str] = set()

    def stop(self) -> None:
        """Ask for no more predictions; what was asked and has landed is still written."""
        if not self.stopping:
            self.stopping = True
            self._drain_by = self._real() + self._flush_seconds

    async def run(self) -> Counts:
        """Walk, then drain: 1. requests in flight, 2. their labels, 3. Kafka's queue."""
        async with asyncio.TaskGroup() as requests:
            while not (self.stopping or self._schedule.done):
                started = self._real()
                await self._step(requests)
                await self._sleep(max(0.0, TICK_SECONDS - (self._real() - started)))
        await asyncio.to_thread(self._producer.flush, self._flush_seconds)
        self.counts.undelivered = self.counts.written - self.counts.delivered
        return self.counts

    def status(self) -> dict[str, Any]:
        """The counts, and where the walk is."""
        return {
            "simulated_at": rfc3339(int(self._schedule.now)),
            **asdict(self.counts),
            "waiting": len(self._pending),
            "in_the_air": len(self._answers) + len(self._pending) - len(self._landed_early),
            "slowed_seconds": round(self._clock.slowed_seconds, 2),
        }

    async def _step(self, requests: asyncio.TaskGroup) -> None:
        tick = self._schedule.advance(self._clock.tick(self._real()))
        for first in range(tick.departures.start, tick.departures.stop, MAX_INSTANCES):
            await self._slots.acquire()
            if self.stopping:
                self._slots.release()
                break
            rows = range(first, min(first + MAX_INSTANCES, tick.departures.stop))
            self.counts.asked += len(rows)
            self._pending.update(rows)
            requests.create_task(self._ask(rows))
        for row in tick.landings:
            if row in self._answers:
                await self._write(row)
            elif row in self._pending:
                self._landed_early.add(row)
        self._producer.poll(0)

    async def _ask(self, rows: range) -> None:
        try:
            answers: Sequence[Answer | None] = await self._predictor.predict([self._timeline.request(r) for r in rows])
        except PredictionFailed as error:
            log.warning("prediction failed", extra={"fields": {"flights": len(rows), "error": str(error)}})
            answers = [None] * len(rows)
        finally:
            self._slots.release()
        for row, answer in zip(rows, answers, strict=True):
            self._count(answer)
            self._pending.discard(row)
            if self._timeline.label(row) is not None:
                self._answers[row] = answer
            if row in self._landed_early:
                self._landed_early.discard(row)
                await self._write(row)

    def _count(self, answer: Answer | None) -> None:
        if answer is None:
            self.counts.failed += 1
        elif answer.model_version is None:
            self.counts.without_version += 1
        else:
            self.counts.answered += 1

    async def _write(self, row: int) -> None:
        del self._answers[row]
        label = self._timeline.landing(row)
        self.counts.landed += 1
        key, value = label["flight_id"].encode(), msgspec.json.encode(label)
        self.counts.written += 1
        while self._real() < self._drain_by:
            try:
                self._producer.produce(self._topic, key=key, value=value, on_delivery=self._delivered)
            except BufferError:
                await asyncio.to_thread(self._producer.poll, QUEUE_FULL_WAIT)
            except KafkaException as error:
                self._delivered(error.args[0], None)
                return
            else:
                return

    def _delivered(self, error: Any, message: Any) -> None:  # noqa: ARG002 - the client's signature
        if error is None:
            self.counts.delivered += 1
            return
        self.counts.undelivered += 1
        said = str(error)
        if said not in self._said:
            self._said.add(said)
            fields = {"topic": self._topic, "error": said, "more": "counted as undelivered, not logged again"}
            log.error("label not delivered", extra={"fields": fields})
        if isinstance(error, KafkaError) and error.fatal():
            self.stop()
