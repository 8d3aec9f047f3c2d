"""A second version on the request path: it shadows every request, or answers the keys of its share."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from httpx import Client

from serving.app import create_app
from serving.model import load
from serving.prediction_records import Answered
from serving.trial_status import Challenger
from stream_trainer.assignment import salt_of, takes
from stream_trainer.features import encode
from stream_trainer.store.challenges import Mode
from tests.serving.fixtures import CONTRACT, PIPELINE, ROWS, Harness, columns_of, commit_version, learned_state, serving

KEYS = [f"key-{i}" for i in range(40)]


class Contest:
    """A service whose challenger is version 1 and whose champion is version 2."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.states = {n: learned_state(seed=n) for n in (1, 2)}
        for state in self.states.values():
            commit_version(harness.store, PIPELINE, state)
        harness.follower.look()
        self.challenger: Challenger | None = None
        self.shadowed = threading.Event()
        self.app = create_app(
            PIPELINE,
            harness.settings,
            log=self,
            follower=harness.follower,
            metrics=harness.metrics,
            store=harness.store,
            clock=harness.clock,
            challenger=lambda: self.challenger,
        )

    def challenge(self, mode: Mode, share: float = 0.0, version: int = 1) -> None:
        served = load(self.harness.store, PIPELINE, version)
        self.challenger = Challenger(served=served, entry=7, mode=mode, share=share)

    def record(self, answered: Answered) -> None:
        self.harness.log.record(answered)
        if answered.role == "challenger":
            self.shadowed.set()

    def outputs(self, version: int, rows: list[dict[str, Any]]) -> list[float]:
        features = encode(CONTRACT, columns_of(PIPELINE, rows))
        found: list[float] = PIPELINE.learner.predict(self.states[version], features).tolist()
        return found


@pytest.fixture
def contest(harness: Harness) -> Contest:
    return Contest(harness)


@pytest.fixture
def client(contest: Contest) -> Iterator[Client]:
    with serving(contest.app) as client:
        yield client


def test_a_shadow_predicts_and_is_logged_and_never_answers(contest: Contest, client: Client) -> None:
    contest.challenge("shadow")
    answer = client.post("/predict", json={"instances": ROWS}).json()
    assert answer["model_version"] == 2
    assert contest.shadowed.wait(10)
    said, shadow = contest.harness.log.answered
    assert (said.role, said.model_version, shadow.role, shadow.model_version) == ("champion", 2, "challenger", 1)
    assert shadow.ids == said.ids
    assert shadow.rows is said.rows
    assert shadow.outputs == pytest.approx(contest.outputs(1, ROWS), rel=1e-6)


def test_a_canary_answers_the_keys_of_its_share_and_no_others(contest: Contest, client: Client) -> None:
    contest.challenge("canary", 0.4)
    found = {}
    for key in KEYS:
        row = ROWS[0] | {"flight_id": key}
        answer = client.post("/predict", json={"instances": [row]}).json()
        found[key] = answer["model_version"]
        assert answer["predictions"][0]["output"] == pytest.approx(contest.outputs(found[key], [row])[0], rel=1e-6)
    assert found == {key: 1 if takes(key, 0.4, salt_of(7)) else 2 for key in KEYS}
    assert set(found.values()) == {1, 2}
    roles = {(a.role, a.model_version) for a in contest.harness.log.answered}
    assert roles == {("canary", 1), ("champion", 2)}


def test_a_canary_answers_nobody_who_demands_what_it_does_not_have(contest: Contest, client: Client) -> None:
    contest.challenge("canary", 1.0)
    body = {"instances": ROWS[:1]}
    assert client.post("/predict", json=body).json()["model_version"] == 1
    assert client.post("/predict", json=body, headers={"x-min-model-version": "2"}).json()["model_version"] == 2
    assert client.get("/v2/models/flights").json()["versions"] == ["2", "1"]


def test_a_canary_that_is_ahead_keeps_its_word_to_its_keys(contest: Contest, client: Client) -> None:
    state = learned_state(seed=3)
    contest.states[3] = state
    commit_version(contest.harness.store, PIPELINE, state)
    contest.challenge("canary", 1.0, version=3)
    answer = client.post("/predict", json={"instances": ROWS[:1]}, headers={"x-min-model-version": "3"})
    assert (answer.status_code, answer.json()["model_version"]) == (200, 3)


def test_who_is_asked_by_number_is_logged_as_what_it_is_and_a_shadow_is_not_asked(
    contest: Contest, client: Client
) -> None:
    body = {"inputs": [{"name": "distance", "shape": [1], "datatype": "FP64", "data": [1.0]}]}
    body["inputs"].append({"name": "carrier", "shape": [1], "datatype": "BYTES", "data": ["AA"]})
    by_number = "/v2/models/flights/versions/1/infer"
    contest.challenge("shadow")
    assert client.post(by_number, json=body).status_code == 404
    contest.challenge("canary", 0.001)
    assert client.post(by_number, json=body).json()["model_version"] == "1"
    assert [(a.role, a.model_version) for a in contest.harness.log.answered] == [("canary", 1)]


def test_without_a_key_the_prediction_id_decides(contest: Contest, client: Client) -> None:
    contest.challenge("canary", 0.5)
    row = {name: value for name, value in ROWS[0].items() if name != "flight_id"}
    for _ in range(20):
        answer = client.post("/predict", json={"instances": [row]}).json()
        taken = takes(answer["predictions"][0]["prediction_id"], 0.5, salt_of(7))
        assert answer["model_version"] == (1 if taken else 2)


def test_what_does_not_fit_is_not_shadowed_and_counted(harness: Harness) -> None:
    harness = Harness(harness.store, queue_rows=3)
    contest = Contest(harness)
    contest.challenge("shadow")
    with serving(contest.app) as client:
        assert client.post("/predict", json={"instances": ROWS}).status_code == 200
    assert harness.metric("shadow_dropped_total") == len(ROWS)
    assert [a.role for a in harness.log.answered] == ["champion"]
