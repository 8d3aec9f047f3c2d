"""`POST /feedback`: what is taken, what is refused, and that nothing is accepted before Kafka's word."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest
from httpx import Client

from serving.app import create_app
from serving.delivery import Count
from stream_trainer import Join
from stream_trainer.joining.join import On
from stream_trainer.settings import Settings
from tests.serving.fixtures import PIPELINE, Harness, serving


@dataclass
class Labels:
    """Takes labels and acknowledges so many of each request."""

    most: int = 1_000
    records: list[tuple[bytes, bytes]] = field(default_factory=list)

    def send(self, records: list[tuple[bytes, bytes]], done: Callable[[int], None]) -> None:
        self.records += records
        done(min(len(records), self.most))

    def close(self) -> None:
        pass


@contextmanager
def service(harness: Harness, labels: Labels, on: On | None) -> Iterator[Client]:
    join = None if on is None else Join(on=on, horizon=timedelta(hours=1))
    app = create_app(
        replace(PIPELINE, join=join),
        Settings(),
        log=harness.log,
        follower=harness.follower,
        metrics=harness.metrics,
        store=harness.store,
        labels=labels,
    )
    with serving(app) as client:
        yield client


@pytest.mark.parametrize(("on", "name"), [("prediction_id", "prediction_id"), ("key", "flight_id")])
def test_labels_are_written_under_what_they_name(harness: Harness, on: On, name: str) -> None:
    labels = Labels()
    with service(harness, labels, on) as client:
        body = {"labels": [{name: "a1", "label": True, "time": "2026-01-01T00:00:00Z"}, {name: "b", "label": 0}]}
        answer = client.post("/feedback", json=body)
        assert "/feedback" in client.get("/openapi.json").json()["paths"]
    assert (answer.status_code, answer.json()) == (202, {"accepted": 2})
    assert [(key, json.loads(value)[name]) for key, value in labels.records] == [(b"a1", "a1"), (b"b", "b")]


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"labels": [{"flight_id": "a", "label": True}]}, "$.labels[0]"),
        ({"labels": [{"prediction_id": "a", "label": "late"}]}, "$.labels[0].label"),
        ({"labels": []}, "$.labels"),
        ({}, "$"),
    ],
)
def test_the_other_kind_of_key_and_wrong_labels_are_refused(harness: Harness, body: object, where: str) -> None:
    labels = Labels()
    with service(harness, labels, "prediction_id") as client:
        answer = client.post("/feedback", json=body)
    assert (answer.status_code, answer.json()["where"], labels.records) == (422, where, [])


def test_a_prediction_id_is_refused_where_labels_name_the_key(harness: Harness) -> None:
    labels = Labels()
    with service(harness, labels, "key") as client:
        answer = client.post("/feedback", json={"labels": [{"prediction_id": "a", "label": True}]})
    assert (answer.status_code, answer.json()["where"], labels.records) == (422, "$.labels[0]", [])


def test_labels_that_kafka_did_not_take_are_asked_for_again(harness: Harness) -> None:
    with service(harness, Labels(most=1), "prediction_id") as client:
        body = {"labels": [{"prediction_id": name, "label": True} for name in "ab"]}
        answer = client.post("/feedback", json=body)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert (answer.json()["reason"], answer.json()["acknowledged"]) == ("labels_not_taken", 1)


def test_without_a_join_there_is_no_such_route(harness: Harness) -> None:
    with service(harness, Labels(), None) as client:
        assert client.post("/feedback", json={"labels": []}).status_code == 404


def test_a_request_is_done_when_its_last_record_is() -> None:
    said: list[int] = []
    count = Count(2, said.append)
    count.delivered(None, None)
    assert said == []
    count.delivered("timed out", None)
    assert said == [1]
