"""The walk with time, service and Kafka in hand: what is asked, what is written, and how it ends."""

import asyncio
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from examples.flights import replayer
from examples.flights.data import Timeline, rfc3339
from examples.flights.replayer import Replayer
from examples.flights.schedule import Schedule, SimulatedClock
from tests.examples.doubles import FakeKafka, FakeService, FakeTime

JANUARY = 1_356_998_400
FLIGHTS = 600


def _replayer(timeline: Timeline, service: FakeService, kafka: FakeKafka, time: FakeTime, speed: float) -> Replayer:
    schedule = Schedule(timeline.scheduled_at, timeline.landed_at, start=JANUARY, max_flights=FLIGHTS)
    clock = SimulatedClock(start=JANUARY, speed=speed, max_step=0.1, real=time.now)
    return Replayer(
        timeline, schedule, clock, service, kafka, topic="flights.labels", real=time.clock, sleep=time.sleep
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


def test_a_label_names_its_flight_and_when_it_landed_and_nothing_else(timeline: Timeline) -> None:
    kafka = FakeKafka()
    asyncio.run(_replayer(timeline, FakeService(), kafka, FakeTime(), 20_000).run())
    by_id = {record["flight_id"]: record for record in kafka.records}
    flight_id = timeline.flight_id(0)
    landed_at = rfc3339(int(timeline.landed_at[0]))
    assert by_id[flight_id] == {"flight_id": flight_id, "label": timeline.label(0), "time": landed_at}


def test_a_flight_whose_request_failed_lands_all_the_same(timeline: Timeline) -> None:
    kafka = FakeKafka()
    counts = asyncio.run(_replayer(timeline, FakeService(fails=True), kafka, FakeTime(), 20_000).run())
    assert counts.failed == FLIGHTS
    assert len(kafka.records) > 500


def test_a_flight_lands_too_when_there_was_no_version(timeline: Timeline) -> None:
    kafka = FakeKafka()
    counts = asyncio.run(_replayer(timeline, FakeService(version=None), kafka, FakeTime(), 20_000).run())
    assert counts.without_version == FLIGHTS
    assert len(kafka.records) > 500


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


def test_labels_that_are_not_delivered_are_counted_and_logged_once(
    timeline: Timeline, caplog: pytest.LogCaptureFixture
) -> None:
    kafka = FakeKafka(error="broker gone")
    counts = asyncio.run(_replayer(timeline, FakeService(), kafka, FakeTime(), 20_000).run())
    assert counts.undelivered == counts.written > 500
    assert [record.message for record in caplog.records] == ["label not delivered"]


@pytest.mark.parametrize(("fatal", "goes_on"), [(False, True), (True, False)])
def test_a_refused_label_is_counted_and_only_a_fatal_error_ends_the_walk(
    timeline: Timeline, fatal: bool, goes_on: bool
) -> None:
    class Refusing(FakeKafka):
        def produce(self, *args: Any, **named: Any) -> None:
            raise KafkaException(KafkaError(KafkaError._UNKNOWN_TOPIC, "no such topic", fatal=fatal))

    counts = asyncio.run(_replayer(timeline, FakeService(), Refusing(), FakeTime(), 20_000).run())
    assert counts.undelivered == counts.written > 0
    assert (counts.asked == FLIGHTS) is goes_on


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
