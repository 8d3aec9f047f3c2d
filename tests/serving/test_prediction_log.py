import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.metrics import Metrics
from serving.prediction_ids import PredictionIds
from serving.prediction_log import PredictionLog
from serving.prediction_records import Answered, RecordEncoder
from stream_trainer import prediction_blocks
from tests.serving.fixtures import CONTRACT, NOW, PIPELINE, ROWS, parsed

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"


class FakeProducer:
    """Takes `room` records; reports `error` for each at the next poll."""

    def __init__(self, room: int, error: str | None = None) -> None:
        self.room = room
        self.error = error
        self.reports: list[Callable[[Any, Any], None]] = []

    def produce_batch(self, topic: str, messages: list[Any], *, on_delivery: Callable[[Any, Any], None]) -> int:
        taken = min(self.room, len(messages))
        self.room -= taken
        self.reports += [on_delivery] * taken
        return taken

    def poll(self, timeout: float) -> int:
        for report in self.reports:
            report(self.error, None)
        self.reports.clear()
        return 0

    def flush(self, timeout: float) -> int:
        return self.poll(timeout)


def answered(**changes: Any) -> Answered:
    ids = PredictionIds(lambda: NOW).take(len(ROWS))
    fields: dict[str, Any] = {"outputs": [0.5] * len(ROWS), "model_version": 3} | changes
    return Answered(ids=ids, requested_at=NOW, rows=parsed(PIPELINE, ROWS), **fields)


def log_of(producer: FakeProducer, max_rows: int = 100) -> tuple[PredictionLog, Metrics]:
    metrics = Metrics()
    return PredictionLog(CONTRACT, "flights.predictions", producer, metrics, max_rows=max_rows), metrics


def dropped(metrics: Metrics, reason: str) -> float:
    name = "stream_trainer_serving_prediction_log_dropped_total"
    return metrics.registry.get_sample_value(name, {"reason": reason}) or 0.0


@pytest.mark.parametrize("changes", [{}, {"outputs": None, "model_version": None}, {"outputs": [[0.1, 0.9]] * 8}])
def test_records_are_what_the_schema_says(changes: dict[str, Any]) -> None:
    schema = json.loads((SCHEMAS / "prediction.json").read_text())
    for key, value, _ in RecordEncoder(CONTRACT).messages(answered(**changes)):
        record = json.loads(value)
        jsonschema.Draft202012Validator(schema).validate(record)
        assert record["prediction_id"] == key.decode()
        assert record["event_time"] == "2026-01-01T10:00:00Z"
        assert record["segments"].keys() == {"origin", "carrier"}
        assert record["features"].keys() == {"distance", "pressure", "carrier"}


def many(count: int, **changes: Any) -> Answered:
    rows = [ROWS[i % len(ROWS)] for i in range(count)]
    fields: dict[str, Any] = {"outputs": [i / count for i in range(count)], "model_version": 3} | changes
    return Answered(ids=PredictionIds(lambda: NOW).take(count), requested_at=NOW, rows=parsed(PIPELINE, rows), **fields)


@pytest.mark.parametrize("changes", [{}, {"outputs": None, "model_version": None}, {"outputs": [[0.1, 0.9]] * 250}])
def test_many_rows_are_blocks_that_hold_the_records_they_would_have_been(changes: dict[str, Any]) -> None:
    schema = json.loads((SCHEMAS / "prediction-block.json").read_text())
    asked = many(250, **changes)
    messages = list(RecordEncoder(CONTRACT).messages(asked))
    assert [message.rows for message in messages] == [100, 100, 50]
    rows: list[bytes] = []
    for message in messages:
        block = json.loads(message.value)
        jsonschema.Draft202012Validator(schema).validate(block)
        assert block["prediction_id"][0] == message.key.decode()
        rows += prediction_blocks.records(message.value)
    assert rows == [value for _, value, _ in RecordEncoder(CONTRACT)._records(asked)]


@given(
    st.lists(
        st.fixed_dictionaries(
            {"distance": st.floats(0, 1e9), "carrier": st.sampled_from(["AA", "ü", 'a"b', ""])},
            optional={
                "pressure": st.none() | st.floats(allow_nan=False, allow_infinity=False, width=32),
                "origin": st.none() | st.text(max_size=5),
                "flight_id": st.none() | st.text(min_size=1, max_size=5) | st.integers(0, 9),
                "scheduled_at": st.none() | st.just("2026-01-01T12:00:00+02:00") | st.integers(0, 2**31),
            },
        ),
        min_size=9,
        max_size=12,
    )
)
def test_a_block_gives_back_any_rows_to_the_byte(rows: list[dict[str, Any]]) -> None:
    ids = PredictionIds(lambda: NOW).take(len(rows))
    asked = Answered(ids=ids, requested_at=NOW, rows=parsed(PIPELINE, rows), outputs=[0.1] * len(rows), model_version=1)
    (message,) = RecordEncoder(CONTRACT).messages(asked)
    assert list(prediction_blocks.records(message.value)) == [v for _, v, _ in RecordEncoder(CONTRACT)._records(asked)]


def test_a_block_that_kafka_would_not_take_is_halved() -> None:
    wide = [{"distance": 1.0, "carrier": "x" * 200, "origin": "y" * 200} for _ in range(100)]
    asked = replace(many(100), rows=parsed(PIPELINE, wide))
    encoder = RecordEncoder(CONTRACT, most_bytes=10_000)
    messages = list(encoder.messages(asked))
    assert len(messages) > 4
    assert max(len(message.value) for message in messages) <= 10_000
    assert sum(message.rows for message in messages) == 100
    found = [json.loads(row)["prediction_id"] for m in messages for row in prediction_blocks.records(m.value)]
    assert found == asked.ids


def test_blocks_are_counted_in_rows() -> None:
    log, metrics = log_of(FakeProducer(room=2), max_rows=300)
    log.start()
    log.record(many(250))
    log.close()
    assert metrics.registry.get_sample_value("stream_trainer_serving_prediction_log_sent_total") == 200
    assert dropped(metrics, "producer_full") == 50
    log.record(many(300))
    assert dropped(metrics, "queue_full") == 0


def test_a_full_producer_drops_and_counts() -> None:
    log, metrics = log_of(FakeProducer(room=3))
    log.start()
    log.record(answered())
    log.close()
    assert dropped(metrics, "producer_full") == 5
    assert metrics.registry.get_sample_value("stream_trainer_serving_prediction_log_sent_total") == 3


def test_rows_beyond_the_bound_are_dropped_at_once() -> None:
    log, metrics = log_of(FakeProducer(room=100), max_rows=10)
    for _ in range(3):
        log.record(answered())
    assert dropped(metrics, "queue_full") == 16
    log.start()
    log.close()
    assert metrics.registry.get_sample_value("stream_trainer_serving_prediction_log_sent_total") == 8


def test_failed_deliveries_are_counted_and_make_room() -> None:
    log, metrics = log_of(FakeProducer(room=100, error="timed out"), max_rows=8)
    log.start()
    log.record(answered())
    log.close()
    assert dropped(metrics, "delivery") == 8
    log.record(answered())
    assert dropped(metrics, "queue_full") == 0
