"""A pipeline whose model can be held: by an event in this process, or by a file when a process of its own serves it."""

import os
import threading
import time
from pathlib import Path
from typing import Any

from torch import Tensor

from stream_trainer.features import FeatureSpec
from stream_trainer.learner import Batch, LearnReport, State
from stream_trainer.pipeline import Pipeline
from tests.serving.fixtures import CONTRACT, PATIENCE, PIPELINE

INNER = PIPELINE.learner
HOLD_AT = "HELD_AT_SWAP"


class Held:
    """Learns and answers as the usual learner; batches in the thread wait at the gate."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.rows: list[int] = []

    def init(self, spec: FeatureSpec, seed: int) -> State:
        return INNER.init(spec, seed)

    def predict(self, state: State, features: Tensor) -> Tensor:
        if threading.current_thread().name == "follower":
            _hold_at_swap()
        elif threading.current_thread().name.startswith("inference"):
            self.rows.append(len(features))
            self.entered.set()
            assert self.gate.wait(PATIENCE)
        return INNER.predict(state, features)

    def learn(self, state: State, batch: Batch) -> tuple[State, LearnReport]:
        return INNER.learn(state, batch)

    def hyperparameters(self) -> dict[str, Any]:
        return INNER.hyperparameters()


def _hold_at_swap() -> None:
    """While the file `wanted` is there: say so in the file `reached`, and wait."""
    folder = Path(os.environ.get(HOLD_AT, "/nonexistent"))
    if (folder / "wanted").exists():
        (folder / "reached").touch()
        while (folder / "wanted").exists():
            time.sleep(0.01)


PIPELINE_HELD = Pipeline(name="flights", contract=CONTRACT, learner=Held())
