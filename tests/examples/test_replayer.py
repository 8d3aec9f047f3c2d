"""The walk with time, service and Kafka in hand: what is asked, what is written, and how it ends."""

import asyncio
import json
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from examples.flights import replay, replayer
from examples.flights.client import Answer, PredictionFailed
from examples.flights.data import Timeline
from examples.flights.replayer import Producer, Replayer
from examples.flights.schedule import Schedule, SimulatedClock
from stream_trainer.errors import UsageError
from stream_trainer.settings import KafkaSettings

JANUARY = 1_356_998_400
FLIGHTS = 600


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


def _replayer(timeline: Timeline, service: FakeService, kafka: FakeKafka, time: FakeTime, speed: float) -> Replayer:
    schedule = Schedule(timeline.scheduled_at, timeline.landed_at, start=JANUARY, max_flights=FLIGHTS)
    clock = SimulatedClock(start=JANUARY, speed=speed, max_step=0.1, real=time.now)
    return Replayer(
        timeline, schedule, clock, service, kafka, topic="flights.examples", real=time.clock, sleep=time.sleep
    )


@pytest.mark.parametrize("speed", [20_000, 10_000_000])
def test_each_flight_is_asked_once_and_written_when_it_has_landed(timeline: Timeline, speed: float) -> None:
    service, kafka, time = FakeService(), FakeKafka(), FakeTime()
    walk = _replayer(timeline, service, kafka, time, speed)
    counts = asyncio.run(walk.run())
    labelled = [timeline.flight_id(row) for row in range(FLIGHTS) if timeline.label(row) is not None]
    assert [i["flight_id"] for i in service.asked] == [timeline.flight_id(row) for row in range(FLIGHTS)]
    assert sorted(r["flight_id"] for r in kafka.records) == sorted(labelled)
    assert kafka.keys == [r["flight_id"].encode() for r in kafka.records]
    assert (counts.asked, counts.answered, counts.delivered) == (FLIGHTS, FLIGHTS, len(labelled))
    assert counts.undelivered == 0
    assert walk.status()["in_the_air"] == 0


def test_an_example_is_the_request_with_its_label_and_its_answer(timeline: Timeline) -> None:
    kafka = FakeKafka()
    asyncio.run(_replayer(timeline, FakeService(), kafka, FakeTime(), 20_000).run())
    by_id = {record["flight_id"]: record for record in kafka.records}
    flight_id = timeline.flight_id(0)
    assert by_id[flight_id] == timeline.request(0) | {
        "late": timeline.label(0),
        "_prediction_id": f"id-{flight_id}",
        "_model_version": 3,
        "_output": 0.5,
    }


def test_a_failed_request_leaves_the_example_without_reserved_fields(timeline: Timeline) -> None:
    kafka = FakeKafka()
    counts = asyncio.run(_replayer(timeline, FakeService(fails=True), kafka, FakeTime(), 20_000).run())
    assert counts.failed == FLIGHTS
    assert len(kafka.records) > 500
    assert not any(name.startswith("_") for record in kafka.records for name in record)


def test_without_a_version_the_example_keeps_its_prediction_id(timeline: Timeline) -> None:
    kafka = FakeKafka()
    counts = asyncio.run(_replayer(timeline, FakeService(version=None), kafka, FakeTime(), 20_000).run())
    assert counts.without_version == FLIGHTS
    assert all({n for n in record if n.startswith("_")} == {"_prediction_id"} for record in kafka.records)


async def _let_run() -> None:
    for _ in range(200):
        await asyncio.sleep(0)


def test_a_flight_that_lands_before_its_answer_waits_for_it(timeline: Timeline) -> None:
    async def go() -> None:
        gate = asyncio.Event()
        service, kafka = FakeService(gate=gate), FakeKafka()
        # At this speed everything departs and lands in one step.
        walk = _replayer(timeline, service, kafka, FakeTime(), 100_000_000)
        running = asyncio.create_task(walk.run())
        await _let_run()
        assert walk.status()["waiting"] == len(service.asked) == FLIGHTS
        assert kafka.records == []
        gate.set()
        counts = await running
        assert counts.delivered == counts.landed == len(kafka.records) > 500
        assert all(record["_model_version"] == 3 for record in kafka.records)

    asyncio.run(go())


def test_requests_in_flight_are_bounded_and_nothing_is_dropped(
    timeline: Timeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replayer, "MAX_INSTANCES", 7)

    async def go() -> None:
        gate = asyncio.Event()
        service, kafka = FakeService(gate=gate), FakeKafka()
        walk = _replayer(timeline, service, kafka, FakeTime(), 100_000_000)
        running = asyncio.create_task(walk.run())
        await _let_run()
        assert len(service.asked) == 7 * replayer.MAX_IN_FLIGHT
        gate.set()
        counts = await running
        assert service.most_together == replayer.MAX_IN_FLIGHT
        assert counts.answered == FLIGHTS

    asyncio.run(go())


def test_a_full_queue_holds_the_walk_back_and_loses_nothing(timeline: Timeline) -> None:
    kafka = FakeKafka(room=5)
    counts = asyncio.run(_replayer(timeline, FakeService(), kafka, FakeTime(), 20_000).run())
    assert kafka.full > 0
    assert counts.delivered == counts.written == len(kafka.records) > 500


def test_stop_asks_no_more_and_writes_and_flushes_what_has_landed(timeline: Timeline) -> None:
    service, kafka = FakeService(), FakeKafka()
    time = FakeTime(steps=[lambda: None] * 60)
    walk = _replayer(timeline, service, kafka, time, 20_000)
    time.steps.append(walk.stop)
    counts = asyncio.run(walk.run())
    assert 0 < counts.asked < FLIGHTS
    assert counts.answered == counts.asked == len(service.asked)
    assert kafka.flushed
    assert counts.delivered == counts.landed == len(kafka.records)
    assert walk.status()["in_the_air"] > 0


def test_stop_with_kafka_gone_ends_and_says_what_was_not_delivered(timeline: Timeline) -> None:
    kafka = FakeKafka(error="broker gone")
    counts = asyncio.run(_replayer(timeline, FakeService(), kafka, FakeTime(), 20_000).run())
    assert counts.undelivered == counts.written > 0


class StuckKafka(FakeKafka):
    """Never delivers and has room for nothing more; polling it takes time."""

    def __init__(self, time: FakeTime) -> None:
        super().__init__(room=0)
        self._time = time
        self.walk: Replayer | None = None

    def poll(self, timeout: float) -> int:
        if timeout and self.walk:
            self.walk.stop()
            self._time.now += timeout
        return 0


def test_a_drain_with_a_stuck_kafka_gives_up_after_its_time_and_says_so(timeline: Timeline) -> None:
    time = FakeTime()
    kafka = StuckKafka(time)
    kafka.walk = walk = _replayer(timeline, FakeService(), kafka, time, 20_000)
    counts = asyncio.run(walk.run())
    assert counts.undelivered == counts.landed > 0
    assert 30 < time.now < 40


class SignalsAtFirstPoll(FakeKafka):
    """Sends this process a signal with the first poll."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__()
        self._number = number
        self._sent = False

    def poll(self, timeout: float) -> int:
        if not self._sent:
            self._sent = True
            signal.raise_signal(self._number)
        return super().poll(timeout)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_prints_one_line_and_exits_zero(
    timeline: Timeline, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    monkeypatch.setattr(replay, "load_timeline", lambda: timeline)
    kafka = SignalsAtFirstPoll(number)

    def connect(settings: KafkaSettings) -> Producer:
        assert settings.bootstrap_servers == "127.0.0.1:9"
        return kafka

    code = replay.main(
        ["--bootstrap-servers", "127.0.0.1:9", "--predict-url", "http://127.0.0.1:1/predict"], connect=connect
    )
    assert code == 0
    assert kafka.flushed
    summary = capsys.readouterr().out.splitlines()
    assert len(summary) == 1
    assert json.loads(summary[0])["undelivered"] == 0


def test_the_producer_loses_nothing_and_partitions_as_java_does() -> None:
    options = replay.producer_options(KafkaSettings(bootstrap_servers="127.0.0.1:9092"))
    assert options["partitioner"] == "murmur2_random"
    assert options["acks"] == "all"
    assert options["enable.idempotence"] is True
    assert options["bootstrap.servers"] == "127.0.0.1:9092"


def test_without_kafka_the_command_says_so() -> None:
    with pytest.raises(UsageError, match="--bootstrap-servers"):
        replay._connect(KafkaSettings())


@pytest.mark.parametrize("flags", [["--speed", "0"], ["--start", "soon"], ["--max-flights", "0"], ["--for", "-1"]])
def test_unusable_flags_are_refused(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        replay.parse(flags)
    assert refused.value.code == 2
    assert flags[0] in capsys.readouterr().err
