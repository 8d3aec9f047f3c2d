import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from serving.metrics import Metrics
from serving.prediction_ids import PredictionIds
from serving.prediction_log import PredictionLog
from serving.prediction_records import Answered, RecordEncoder
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
    for key, value in RecordEncoder(CONTRACT).records(answered(**changes)):
        record = json.loads(value)
        jsonschema.Draft202012Validator(schema).validate(record)
        assert record["prediction_id"] == key.decode()
        assert record["event_time"] == "2026-01-01T10:00:00Z"
        assert record["segments"].keys() == {"origin", "carrier"}
        assert record["features"].keys() == {"distance", "pressure", "carrier"}


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
