"""Scripts of flights for the trainer over a scripted log, and what it left in its store."""

from pathlib import Path
from typing import Any

from stream_trainer.learners import Sgd
from stream_trainer.pipeline import Pipeline
from stream_trainer.settings import TrainerSettings
from stream_trainer.store import Manifest, ModelStore
from stream_trainer.store.storage import LocalStorage
from stream_trainer.testing import (
    Pause,
)
from stream_trainer.testing.log import Item
from tests.core.worlds import CONTRACT, flight

PIPELINE = Pipeline(name="flights", contract=CONTRACT, learner=Sgd(), reference_rows=50)


def flights(n: int, first: int = 0) -> list[dict[str, Any]]:
    return [flight(i) for i in range(first, first + n)]


def paused(batches: int, rows: int, seconds: float = 0.0) -> list[Item]:
    """So many micro-batches of so many rows."""
    script: list[Item] = []
    for i in range(batches):
        script += [*flights(rows, rows * i), Pause(seconds)]
    return script


def store(folder: Path) -> ModelStore:
    return ModelStore(LocalStorage(folder), "flights")


def manifests(folder: Path) -> list[Manifest]:
    there = store(folder)
    return [there.read(number).manifest for number in there.numbers()]


def of_batches(rows: int, **more: Any) -> TrainerSettings:
    return TrainerSettings(max_restarts=0, max_rows_per_batch=rows, **more)
