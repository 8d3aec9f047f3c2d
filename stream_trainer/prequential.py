"""Test-then-train: each row is scored on a forecast made before it was learned.

Two forecasts are scored. *Trained*: by the weights from before the row's micro-batch. *Served*: what serving answered
when the row's request came, by the version it names; labels come late, so that version may be much older. Beside each
stand the same two baselines, which know the labels that the forecast's weights had seen, and no more. Reference:
Dawid 1984; Gama, Sebastião and Rodrigues 2013; for late labels Grzenda, Gomes and Bifet 2020.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stream_trainer.contract import Task
from stream_trainer.evaluation.baselines import Floats, Memory, known_after, nothing_known
from stream_trainer.evaluation.counts import Counted
from stream_trainer.evaluation.scores import Scores, bounded_labels, score_rows
from stream_trainer.evaluation.segments import Codes, Segments
from stream_trainer.joining.weights import corrected


@dataclass(frozen=True, slots=True)
class Answers:
    """What serving said of some rows when they were requests.

    Attributes:
        versions: int64 `[rows]`, which version answered; 0 where none did.
        outputs: float64 `[rows]`, for classes `[rows, classes]`; anything where no version answered.
    """

    versions: NDArray[np.int64]
    outputs: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Prequential:
    """A pure value; stored with the version.

    Attributes:
        trained: scores of the forecasts by the weights from before the row's micro-batch.
        served: scores of what was answered.
        known: what the baselines know now, see `baselines`.
        memory: what they knew at versions.
        segments: the values that `Scores.codes` stand for.
    """

    trained: Scores
    served: Scores
    known: Floats
    memory: Memory
    segments: Segments

    @classmethod
    def fresh(cls, task: Task, outputs: int, segments: int = 0) -> "Prequential":
        """Before any row."""
        known = nothing_known(task, outputs)
        scores = Scores.fresh(task, segments)
        return cls(
            trained=scores,
            served=scores,
            known=known,
            memory=Memory.empty(len(known)),
            segments=Segments.fresh(segments),
        )

    @property
    def task(self) -> Task:
        """What kind of label."""
        return self.trained.task

    def at_version(self, version: int) -> "Prequential":
        """Remember that a version knows exactly the labels scored so far."""
        return replace(self, memory=self.memory.remember(version, self.known))

    def score(
        self,
        outputs: Tensor,
        labels: Tensor,
        *,
        answers: Answers | None = None,
        segments: Sequence[Sequence[str | None]] = (),
        counted: Counted | None = None,
    ) -> "tuple[Prequential, float]":
        """With a block added, and what learning starts from: the mean loss over the block; itself and 0 for an empty one.

        That loss is of `outputs` as they are and of each row once: the world that the learner sees. Scores are of the world
        that users see: rows count what they stand for, and where false labels are sampled away `outputs` are corrected as
        serving corrects them.

        Args:
            outputs: as a learner predicts them, with the weights from before the block.
            labels: float64 `[rows]`, in log order.
            answers: what serving had said of the rows, where it did.
            segments: a column of text for each segment.
            counted: how much the rows count; None when all count once.
        """
        if not len(labels):
            return self, 0.0
        y = bounded_labels(self.task, labels)
        counts = np.ones(len(y)) if counted is None else counted.each(y)
        named, codes = self.segments.encode(segments) if segments else (self.segments, _no_codes(self, len(y)))
        known = np.broadcast_to(self.known, (len(y), len(self.known)))
        raw = columns = score_rows(self.task, outputs.numpy(), y, known, counts)
        if counted is not None and (counted.rates < 1).any():
            columns = score_rows(self.task, _corrected(outputs, counted.rates), y, known, counts)
        after = replace(
            self,
            trained=self.trained.add(columns, codes),
            served=self.served if answers is None else self._answered(answers, y, codes, counts),
            known=known_after(self.task, self.known, y, counts),
            segments=named,
        )
        return after, float(raw[:, 0].mean())

    def _answered(self, answers: Answers, y: Floats, codes: Codes, counts: Floats) -> Scores:
        some = np.flatnonzero(answers.versions > 0)
        if not len(some):
            return self.served
        known = self.memory.at(answers.versions[some], self.known)
        columns = score_rows(self.task, answers.outputs[some], y[some], known, counts[some])
        return self.served.add(columns, codes[some])

    def metrics(self) -> dict[str, Any]:
        """Plain values for the manifest: `Scores.metrics` of the trained forecasts, and under `served` of the answers."""
        found = self.trained.metrics()
        if self.served.seen:
            found["served"] = self.served.metrics()
        return found

    def tensors(self) -> dict[str, Tensor]:
        """The value as named tensors."""
        named = {f"trained.{name}": tensor for name, tensor in self.trained.tensors().items()}
        named |= {f"served.{name}": tensor for name, tensor in self.served.tensors().items()}
        words = np.frombuffer(self.segments.to_bytes(), dtype=np.uint8).copy()
        arrays = {"known": self.known, "memory": self.memory.rows, "segments": words}
        return named | {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}

    @classmethod
    def from_tensors(cls, task: Task, tensors: Mapping[str, Tensor]) -> "Prequential":
        """The inverse of `tensors`."""

        def scores(prefix: str) -> Scores:
            return Scores.from_tensors(
                task, {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
            )

        return cls(
            trained=scores("trained."),
            served=scores("served."),
            known=tensors["known"].numpy(),
            memory=Memory(tensors["memory"].numpy()),
            segments=Segments.from_bytes(tensors["segments"].numpy().tobytes()),
        )


def _corrected(outputs: Tensor, rates: Floats) -> NDArray[Any]:
    found: NDArray[Any] = corrected(outputs.to(torch.float64), torch.from_numpy(rates)).numpy()
    return found


def _no_codes(of: Prequential, rows: int) -> Codes:
    return np.zeros((rows, len(of.segments.values)), dtype=np.int16)


def uniform(task: Task, outputs: int, rows: int) -> Tensor:
    """The forecast before anything was learned."""
    match task:
        case "binary":
            return torch.full((rows,), 0.5)
        case "multiclass":
            return torch.full((rows, outputs), 1.0 / outputs)
        case "regression":
            return torch.zeros(rows)
