"""Answers of models that were taught one false label in ten: over HTTP they are the probabilities of the whole stream."""

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from msgspec import UNSET

from monitors.performance.calibration import calibration_error
from monitors.performance.counting import joined as joined_rows
from monitors.performance.counting import tally
from monitors.performance.exact import as_float
from stream_trainer import BinaryLabel, Contract, Join, Numeric, Pipeline
from stream_trainer.decode import decode
from stream_trainer.features import encode
from stream_trainer.joining import matching
from stream_trainer.joining.matching import EXAMPLE, Matching
from stream_trainer.joining.records import LABEL, PREDICTION, Body, Event
from stream_trainer.joining.weights import corrected
from stream_trainer.learner import State
from stream_trainer.learners import Sgd
from stream_trainer.learning import to_batch
from stream_trainer.store import ModelStore
from stream_trainer.store.store import GOLDEN
from tests.core.test_microbatch import PIPELINE as TRAINED
from tests.core.test_microbatch import World, fill
from tests.core.worlds import kafka_batch
from tests.serving.examples import TOPIC, MemoryExamples, example
from tests.serving.fixtures import PIPELINE, Harness, app_of, commit_version, golden, learned_state, serving
from tests.serving.test_trial import Scene, known

RATE = 0.1
CONTRACT = Contract(features=[Numeric("x")], label=BinaryLabel("y"), key="id", event_time="at")


def joined(rate: float | None) -> Pipeline:
    join = None if rate is None else Join(on="prediction_id", horizon=timedelta(hours=1), negative_rate=rate)
    return Pipeline(name="flights", contract=CONTRACT, join=join, learner=Sgd(rates=(3e-3,)))


SAMPLED = joined(RATE)


def chance(x: float) -> float:
    """The known probability of true: 5 % on average or so."""
    return float(1 / (1 + np.exp(4.0 - 1.5 * x)))


def examples(rows: int, seed: int) -> list[bytes]:
    """What the joiner's own rules make of a prediction and a label for each row of the stream."""
    rng, rules = np.random.default_rng(seed), Matching(CONTRACT, SAMPLED.join)  # type: ignore[arg-type]
    made = []
    for i in range(rows):
        x, name = float(rng.normal()), f"p{seed}-{i}"
        body = Body(name, 1, chance(x), [x, name, "2026-01-01T00:00:00Z"])
        label = json.dumps({"prediction_id": name, "label": bool(rng.random() < chance(x))}).encode()
        events = [
            Event(name, PREDICTION, 0, f"p/0/{i}", msgspec.msgpack.encode(body)),
            Event(name, LABEL, 1, f"l/0/{i}", label),
        ]
        made += [out.value for out in rules.take(matching.load(None), events) if out.kind == EXAMPLE]
    return made


@pytest.fixture(scope="module")
def taught() -> State:
    """What a net has learned of 40,000 rows, of which some 6,000 were taught."""
    rows = decode(CONTRACT, kafka_batch(examples(40_000, 1)))
    assert 4_500 < rows.num_rows < 8_000
    batch = to_batch(SAMPLED, pa.Table.from_batches([rows]))
    state = SAMPLED.learner.init(SAMPLED.spec, 0)
    for _ in range(3):
        state, _ = SAMPLED.learner.learn(state, batch)
    return state


def asked(store: ModelStore, pipeline: Pipeline, xs: list[float]) -> list[float]:
    harness = Harness(store, pipeline)
    harness.follower.look()
    with serving(app_of(harness)) as client:
        said = client.post("/predict", json={"instances": [{"x": x} for x in xs]})
    assert said.status_code == 200, said.text
    return [row["output"] for row in said.json()["predictions"]]


XS = [-1.5, -0.5, 0.0, 0.5, 1.0, 1.5]


def committed(store: ModelStore, pipeline: Pipeline, state: State, rate: Any) -> int:
    rows = golden(pipeline, state, [{"x": x} for x in XS])
    return commit_version(store, pipeline, state, files={GOLDEN: rows}, negative_rate=rate).number


def raw(state: State) -> list[float]:
    """What the model itself says."""
    found: list[float] = SAMPLED.learner.predict(state, encode(CONTRACT, {"x": np.array(XS)})).tolist()
    return found


def test_what_is_answered_is_the_known_probability(store: ModelStore, taught: State) -> None:
    committed(store, SAMPLED, taught, RATE)
    found, truth = asked(store, SAMPLED, XS), [chance(x) for x in XS]
    assert max(abs(np.log(a / b)) for a, b in zip(found, truth, strict=True)) < 0.4
    assert sum(found) == pytest.approx(sum(truth), rel=0.15)
    assert sum(raw(taught)) > 2 * sum(truth)


@pytest.mark.parametrize("now", [None, 0.5, 1.0])
@pytest.mark.parametrize("then", [RATE, 1.0])
def test_a_version_is_corrected_for_what_it_was_taught_whatever_is_taught_now(
    store: ModelStore, taught: State, then: float, now: float | None
) -> None:
    committed(store, joined(now), taught, then)
    assert asked(store, joined(now), XS) == pytest.approx([corrected(p, then) for p in raw(taught)], rel=1e-5)


def test_a_version_that_does_not_say_is_corrected_as_the_pipeline_says(store: ModelStore, taught: State) -> None:
    committed(store, SAMPLED, taught, UNSET)
    assert asked(store, SAMPLED, XS) == pytest.approx([corrected(p, RATE) for p in raw(taught)], rel=1e-5)


def test_the_trainer_writes_the_rate_of_its_pipeline(tmp_path: Path) -> None:
    sampled = replace(TRAINED, join=Join(on="key", horizon=timedelta(hours=1), negative_rate=RATE))
    for pipeline, rate in ((TRAINED, 1.0), (sampled, RATE)):
        world = World(tmp_path / str(rate), pipeline)
        fill(world)
        world.learn()
        assert world.store.read(1).manifest.negative_rate == rate


def test_a_trial_compares_what_is_answered_on_rows_as_often_as_they_are_asked(store: ModelStore) -> None:
    """Half of the taught rows are true: one in eleven of those that were asked."""
    log, taught = MemoryExamples(), 600
    for i in range(taught):
        log.put(0, json.dumps(example(i) | {"late": i % 2 == 0, "_negative_rate": RATE}).encode())
    for rate in (1.0, RATE):
        commit_version(store, PIPELINE, learned_state(), negative_rate=rate, **known({TOPIC: {0: 0, 1: 0}}))
    scene = Scene(store, log)
    scene.champion(1)
    scene.challenge(2)
    scene.run()
    assert (scene.serving, scene.trial.status.verdict) == (2, "better")
    (brier,) = [of["brier"] for role, of in scene.trial.status.metrics.items() if role == "challenger"]
    assert brier == pytest.approx(1 / 11 * 10 / 11, abs=0.06)  # decided after few; as taught it would be 0.4


def test_the_monitor_counts_rows_as_often_as_they_are_asked() -> None:
    rows = joined_rows(CONTRACT, decode(CONTRACT, kafka_batch(examples(20_000, 2))))
    found = tally(CONTRACT, rows, {})
    assert found.labels[0] > 1_000
    share = found.labels[1] / sum(found.labels)
    rng = np.random.default_rng(3)
    of_all = np.array([chance(float(x)) for x in rng.normal(size=20_000)])
    assert share == pytest.approx(of_all.mean(), rel=0.2)
    entropy = -(of_all * np.log(of_all) + (1 - of_all) * np.log(1 - of_all)).mean()
    assert found.losses.mean == pytest.approx(entropy, rel=0.15)
    assert calibration_error(found) < 0.02
    assert abs(as_float(found.surprise)) < 4 * np.sqrt(as_float(found.surprise_variance))
