"""deep-river's MLP behind River's `StandardScaler`: two hidden layers of 64, Adam at 1e-3, one step a row."""

import sys
from typing import Any

import torch
from deep_river import classification, regression

from tests.bench.learning import worker
from tests.bench.learning.peers.river_learners import Scaled
from tests.bench.learning.stream import Stream

_SHAPE: dict[str, Any] = {"n_width": 64, "n_layers": 2, "optimizer_fn": "adam", "lr": 1e-3}


def build(name: str, stream: Stream, seed: int) -> Scaled:
    """A fresh net."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    width = sum(1 if c.words is None else len(c.words) for c in stream.columns)
    if stream.task == "regression":
        model = regression.zoo.MultiLayerPerceptron(n_features=width, seed=seed, **_SHAPE)
    else:
        outputs = stream.outputs
        model = classification.zoo.MultiLayerPerceptron(n_features=width, n_init_classes=outputs, seed=seed, **_SHAPE)
    return Scaled(stream, model, dense=True)


if __name__ == "__main__":
    worker.main(sys.argv[1], build)
