"""Versions whose scores are real and whose weights are not: what a report reads, made quickly."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from stream_trainer import reference
from stream_trainer.contract import Task
from stream_trainer.evaluation.scores import SCORING
from stream_trainer.evaluation.table import EVALUATION, evaluation
from stream_trainer.prequential import Answers, Prequential, uniform
from stream_trainer.store import ModelStore, tensors
from stream_trainer.store.aliases import Alias
from stream_trainer.store.manifest import Rows
from stream_trainer.store.storage import LocalStorage
from stream_trainer.store.store import TRAINER
from tests.core.test_store import FILES, Unsynced, manifest

HOSTILE = "</script><script>document.title='taken'</script>"
VALUES = ("JFK", "LGA", "$x$<b>", HOSTILE)
ROWS = 200
FAILED, PINNED = 3, 2


def answered(task: Task, labels: np.ndarray[Any, Any], rng: np.random.Generator, sure: float) -> np.ndarray[Any, Any]:
    """Forecasts that know something of the labels: the more, the surer."""
    if task == "regression":
        return np.asarray(labels + rng.normal(size=len(labels)) * (1 - sure))
    if task == "binary":
        return np.asarray(np.clip(np.where(labels == 1, sure, 1 - sure) + rng.normal(size=len(labels)) * 0.1, 0, 1))
    found = np.full((len(labels), 3), (1 - sure) / 2)
    found[np.arange(len(labels)), labels.astype(int)] = sure
    return found


def scored_store(folder: Path, task: Task = "binary", *, versions: int = 5, served: bool = True) -> ModelStore:
    """Each version scores `ROWS` rows; from the second on half of them were answered, by version 1, and worse.

    Version 3 failed its gates; version 2 was pinned after version 4.
    """
    store, rng = ModelStore(LocalStorage(folder, Unsynced()), "flights"), np.random.default_rng(7)
    found = Prequential.fresh(task, 3 if task == "multiclass" else 1, segments=1)
    for number in range(1, versions + 1):
        labels = rng.normal(size=ROWS) if task == "regression" else rng.integers(0, 2, ROWS).astype(float)
        outputs = uniform(task, 3, ROWS) if number == 1 else torch.tensor(answered(task, labels, rng, 0.8))
        says = Answers(versions=np.arange(ROWS) % 2, outputs=answered(task, labels, rng, 0.6))
        found, _ = found.score(
            outputs,
            torch.tensor(labels),
            answers=says if served and number > 1 else None,
            segments=[[VALUES[i] for i in rng.choice(4, ROWS, p=[0.35, 0.35, 0.29, 0.01])]],
        )
        found = found.at_version(number)
        commit_scored(store, number, found)
        if number == 4:
            at = store.read(4).manifest.created_at
            store.set_alias("champion", Alias(version=PINNED, reason="better", by="me", at=at, hold=True), 0)
    return store


def commit_scored(store: ModelStore, number: int, found: Prequential) -> None:
    """One version with these scores."""
    kept = tensors.to_bytes({f"prequential.{name}": tensor for name, tensor in found.tensors().items()})
    table = reference.table_to_bytes(evaluation(found, ["origin"]))
    made, attempt = manifest(store, number), store.new_attempt()
    bad = number == FAILED
    fields: dict[str, Any] = {
        "attempt": attempt,
        "files": store.write_files(number, attempt, {**FILES, TRAINER: kept, EVALUATION: table}),
        "metrics": found.metrics(),
        "rows": Rows(seen=ROWS, trained=0 if bad else ROWS, quarantined=ROWS if bad else 0),
        "total": Rows(seen=ROWS * number, trained=ROWS * number),
        "gates": [msgspec.structs.replace(made.gates[0], passed=not bad)],
        "scoring": SCORING,
    }
    store.commit(msgspec.structs.replace(made, **fields))
