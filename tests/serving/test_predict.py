import threading
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from httpx import Client

from stream_trainer.features import encode
from stream_trainer.store import ModelStore
from tests.serving.fixtures import (
    CONTRACT,
    PIPELINE,
    ROWS,
    Harness,
    app_of,
    columns_of,
    commit_version,
    learned_state,
    serving,
)


@pytest.fixture
def client(harness: Harness) -> Iterator[Client]:
    commit_version(harness.store, PIPELINE, learned_state())
    harness.follower.look()
    with serving(app_of(harness)) as client:
        yield client


def test_outputs_equal_the_learners_own(harness: Harness, client: Client) -> None:
    answer = client.post("/predict", json={"instances": ROWS}).json()
    expected = PIPELINE.learner.predict(learned_state(), encode(CONTRACT, columns_of(PIPELINE, ROWS)))
    assert [p["output"] for p in answer["predictions"]] == pytest.approx(expected.tolist(), rel=1e-6)
    assert answer["trained_through"] == "2013-02-01T10:00:00Z"
    ids = [p["prediction_id"] for p in answer["predictions"]]
    assert ids == sorted(set(ids))
    assert all(uuid.UUID(i).version == 7 and uuid.UUID(i).variant == uuid.RFC_4122 for i in ids)
    assert harness.log.answered[0].ids == ids


def test_without_a_version_503_names_the_ids_it_logged(harness: Harness) -> None:
    with serving(app_of(harness)) as client:
        answer = client.post("/predict", json={"instances": ROWS[:2]})
        assert client.get("/health/live").status_code == 200
        assert client.get("/health/ready").status_code == 503
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["reason"] == "no_version"
    logged = harness.log.answered[0]
    assert answer.json()["prediction_ids"] == logged.ids
    assert (logged.model_version, logged.outputs) == (None, None)


@pytest.mark.parametrize(
    ("body", "reason", "where"),
    [
        (b"", "invalid_json", "$"),
        (b"[]", "invalid_value", "$"),
        (b'{"instances": []}', "invalid_value", "$.instances"),
        (b'{"instances": [{"distance": NaN}]}', "invalid_json", "$"),
        (b'{"instances": [{"distance": 1e999, "carrier": "AA"}]}', "invalid_value", "$.instances[0].distance"),
        (b'{"instances": [{"distance": "x", "carrier": "AA"}]}', "invalid_value", "$.instances[0].distance"),
        (b'{"instances": [{"distance": null, "carrier": "AA"}]}', "invalid_value", "$.instances[0].distance"),
        (b'{"instances": [{"carrier": "AA"}]}', "invalid_value", "$.instances[0]"),
        (b'{"instances": [{"distance": 1, "carrier": "\xff"}]}', "bad_utf8", "$"),
        (b'{"instances": [{"distance": 1, "carrier": "A", "x": ' + b"[" * 100_000, "too_deep", "$"),
    ],
)
def test_bad_input_says_what_and_where(client: Client, body: bytes, reason: str, where: str) -> None:
    answer = client.post("/predict", content=body)
    problem = answer.json()
    assert answer.status_code == problem["status"] == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert (problem["reason"], problem["where"]) == (reason, where)
    assert {"type", "title", "detail"} < problem.keys()


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00", 253402300799])
def test_the_edge_of_the_calendar_is_answered(client: Client, time: str | int) -> None:
    row = ROWS[0] | {"scheduled_at": time, "flight_id": 10**30, "unknown": {"a": [1]}}
    assert client.post("/predict", json={"instances": [row]}, headers={"content-type": "text/x"}).status_code == 200


def test_a_body_beyond_the_limit_is_refused_while_it_is_read(store: ModelStore) -> None:
    def long() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 1024

    rows = [{"distance": 1, "carrier": "A"}] * 4
    with serving(app_of(Harness(store, max_body_bytes=2048, max_rows=3))) as client:
        for content in (long(), b" " * 4096):
            answer = client.post("/predict", content=content)
            assert (answer.status_code, answer.headers["connection"]) == (413, "close")
        assert client.post("/predict", json={"instances": rows}).json()["reason"] == "too_many_rows"


def test_unknown_paths_and_failures_are_problems_without_stacks(harness: Harness, client: Client) -> None:
    assert client.get("/nothing").json()["reason"] == "not_found"
    assert client.get("/predict").json()["reason"] == "method_not_allowed"
    served = harness.follower.served
    assert served is not None
    harness.follower.served = replace(served, state=replace(served.state, serving={}))
    answer = client.post("/predict", json={"instances": ROWS})
    assert (answer.status_code, answer.json()["reason"]) == (500, "internal_error")
    assert "net." not in answer.text


def test_each_answer_is_that_of_the_version_it_names(harness: Harness, client: Client) -> None:
    states = {1: learned_state()}
    for seed in range(1, 6):
        state = learned_state(seed=seed)
        states[commit_version(harness.store, PIPELINE, state).number] = state
    features = encode(CONTRACT, columns_of(PIPELINE, ROWS))
    expected = {number: PIPELINE.learner.predict(state, features).tolist() for number, state in states.items()}
    answers: list[Any] = []
    swapped = threading.Event()

    def ask() -> None:
        while not swapped.is_set():
            answers.append(client.post("/predict", json={"instances": ROWS}).json())

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(2, 7):
        harness.source.push(harness.store.read(number), harness.clock())
        harness.follower.step()
    swapped.set()
    for thread in threads:
        thread.join()
    answers.append(client.post("/predict", json={"instances": ROWS}).json())
    assert answers[-1]["model_version"] == 6
    for answer in answers:
        outputs = [p["output"] for p in answer["predictions"]]
        assert outputs == pytest.approx(expected[answer["model_version"]], rel=1e-5)


def test_openapi_is_written_from_the_contract_and_hidden_in_production(store: ModelStore, client: Client) -> None:
    instance = client.get("/openapi.json").json()["components"]["schemas"]["Instance"]
    assert set(instance["properties"]) == {"distance", "pressure", "carrier", "origin", "flight_id", "scheduled_at"}
    assert instance["required"] == ["distance", "carrier"]
    assert client.get("/docs").status_code == 200
    with serving(app_of(Harness(store, profile="production"))) as hidden:
        assert [hidden.get(path).status_code for path in ("/openapi.json", "/docs")] == [404, 404]


def test_ready_and_metrics(client: Client) -> None:
    assert client.get("/health/ready").json()["model_version"] == 1
    client.post("/predict", content=b"{")
    text = client.get("/metrics").text
    assert "stream_trainer_serving_model_version 1.0" in text
    assert 'stream_trainer_serving_requests_total{outcome="invalid_json"} 1.0' in text
