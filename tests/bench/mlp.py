"""The model that servers are compared with: 20 numbers, layers of 64 and 32, a probability; weights from a seed."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from stream_trainer.contract import BinaryLabel, Contract, Numeric, Vector
from stream_trainer.features import encode
from stream_trainer.learner import State
from stream_trainer.learners import Sgd
from stream_trainer.pipeline import Pipeline
from stream_trainer.store import ModelStore, Version
from stream_trainer.store.store import GOLDEN
from tests.bench.peers import net
from tests.serving.fixtures import columns_of, commit_version, golden

ADDRESS = "tests.bench.mlp:pipeline"
TENSOR_ADDRESS = "tests.bench.mlp:tensor_pipeline"
WIDTH = 20
_GOLDEN_ROWS = 8

pipeline = Pipeline(
    name="mlp",
    contract=Contract(
        features=[Numeric(f"f{i}") for i in range(WIDTH)], label=BinaryLabel("hit"), key="id", event_time="at"
    ),
    learner=Sgd(model=lambda spec: net.build(spec.width)),
)

# The same net behind one tensor instead of twenty named numbers, as the other servers take it.
tensor_pipeline = Pipeline(
    name="mlp-tensor",
    contract=Contract(features=[Vector("rows", size=WIDTH)], label=BinaryLabel("hit"), key="id", event_time="at"),
    learner=Sgd(model=lambda spec: net.build(spec.width)),
)

Rows = NDArray[np.float64]


def random_rows(count: int, seed: int = 0) -> Rows:
    """`[count, 20]`, standard normal, as a client sends them: all the digits of a float64."""
    return np.random.default_rng(seed).normal(size=(count, WIDTH)).clip(-6, 6)


def instances(rows: Rows) -> list[dict[str, Any]]:
    """Rows as `/predict` takes them."""
    names = [feature.name for feature in pipeline.contract.features]
    return [dict(zip(names, row, strict=True)) for row in rows.tolist()]


def state(seed: int, of: Pipeline = pipeline) -> State:
    """Random weights, the same for both pipelines. The standardiser has seen nothing, so it hands on what it gets, as the other servers do."""
    return of.learner.init(of.spec, seed)


def outputs(of: State, rows: Rows) -> Tensor:
    """What the pipeline's own learner computes: `[rows]`."""
    return pipeline.learner.predict(of, encode(pipeline.contract, columns_of(pipeline, instances(rows))))


def weights(of: State) -> dict[str, Tensor]:
    """The net's tensors under the names that the plain net has."""
    return {k.removeprefix("net."): v for k, v in of.serving.items() if k.startswith("net.")}


def commit(store: ModelStore, of: State, **fields: Any) -> Version:
    """The next version."""
    rows = instances(random_rows(_GOLDEN_ROWS))
    return commit_version(store, pipeline, of, files={GOLDEN: golden(pipeline, of, rows)}, **fields)


def commit_tensor(store: ModelStore, seed: int) -> Version:
    """The first version of the pipeline that takes one tensor."""
    of = state(seed, tensor_pipeline)
    rows = [{"rows": row} for row in random_rows(_GOLDEN_ROWS).tolist()]
    return commit_version(store, tensor_pipeline, of, files={GOLDEN: golden(tensor_pipeline, of, rows)})
