"""The same records through training's decoder and through HTTP: the tensors are the same bits."""

import json
import threading
from typing import Any

import pyarrow as pa
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from stream_trainer.contract import BinaryLabel, Categorical, Contract, Numeric, Vector
from stream_trainer.decode import decode
from stream_trainer.features import encode
from stream_trainer.learner import State
from stream_trainer.learners.sgd import Sgd
from stream_trainer.pipeline import Pipeline
from stream_trainer.store import ModelStore
from stream_trainer.store.store import GOLDEN
from tests.serving.fixtures import Harness, app_of, commit_version, golden, learned_state, serving

CONTRACT = Contract(
    features=[
        Numeric("x"),
        Numeric("y", optional=True),
        Categorical("word", vocabulary=["a", "é", "c"]),
        Categorical("hashed", buckets=16, optional=True),
        Vector("v", size=3),
    ],
    label=BinaryLabel("label"),
    key="id",
    event_time="at",
    segments=["where"],
)
NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False, min_value=-3e38, max_value=3e38),
    st.integers(min_value=-(2**70), max_value=2**70),
    st.sampled_from([0, -0.0, 5e-324, 1e-310, 0.1, 1 / 3, 2**53 + 1, 3.4028234663852886e38]),
)
TEXTS = st.text(max_size=20).filter(lambda text: max(text, default="") < "\ud800" or max(text) > "\udfff")
RECORDS = st.fixed_dictionaries(
    {
        "x": NUMBERS,
        "word": st.sampled_from(["a", "é", "c"]) | TEXTS,
        "v": st.lists(NUMBERS, min_size=3, max_size=3),
        "id": st.just("k") | st.integers(),
        "at": st.just("2026-01-01T10:00:00Z"),
        "where": TEXTS,
        "label": st.booleans(),
    },
    optional={"y": st.none() | NUMBERS, "hashed": st.none() | TEXTS},
)


class Recording(Sgd):
    """Remembers the features that requests were predicted from."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []
        self.asked = threading.Event()

    def predict(self, state: State, features: Tensor) -> Tensor:
        if self.asked.is_set():
            self.seen.append(features.clone())
        return super().predict(state, features)


def trained_from(records: list[dict[str, Any]]) -> Tensor:
    """The features that training makes of the records."""
    binary = [json.dumps(record).encode() for record in records]
    rows = len(binary)
    batch = pa.record_batch(
        {
            "topic": pa.array(["t"] * rows),
            "partition": pa.array([0] * rows, pa.int32()),
            "offset": pa.array(range(rows), pa.int64()),
            "timestamp": pa.array([1_767_261_600_000_000] * rows, pa.timestamp("us", tz="UTC")),
            "value": pa.array(binary, pa.binary()),
        }
    )
    decoded = decode(CONTRACT, batch)
    assert decoded.column("_reason").null_count == rows, decoded.column("_reason").to_pylist()
    return encode(CONTRACT, {name: decoded.column(name) for name in decoded.schema.names})


def bits(features: Tensor) -> list[list[int]]:
    return features.view(torch.int64).tolist()


def test_training_and_serving_see_the_same_bits(store: ModelStore) -> None:
    learner = Recording()
    pipeline = Pipeline(name="flights", contract=CONTRACT, learner=learner)
    first = [{"x": 1.0, "word": "a", "v": [1, 2, 3]}]
    state = learned_state(pipeline, rows=first)
    commit_version(store, pipeline, state, files={GOLDEN: golden(pipeline, state, first)})
    harness = Harness(store, pipeline)
    harness.follower.look()
    app = app_of(harness)
    learner.asked.set()

    @settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(RECORDS, min_size=1, max_size=5))
    def same(records: list[dict[str, Any]]) -> None:
        learner.seen.clear()
        unlabelled = [{name: value for name, value in r.items() if name != "label"} for r in records]
        answer = client.post("/predict", json={"instances": unlabelled})
        assert answer.status_code == 200, answer.text
        (served,) = learner.seen
        assert bits(served) == bits(trained_from(records))

    with serving(app) as client:
        same()
