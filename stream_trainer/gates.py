"""What a micro-batch must pass before its weights are committed. Pure; a gate never learns and never stores.

A micro-batch that fails is quarantined: its offsets are committed with the weights from before it. What gates compare
with is the `History` of the lineage, which is part of every version: a replay judges as the trainer did.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from stream_trainer.learner import LearnReport, State
from stream_trainer.store.manifest import Verdict

_KEPT = 100
_LOSS, _GRADIENT, _UPDATE = range(3)
_GIVE_WAY = {"norm_jump", "loss_jump"}


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What the newest micro-batches that passed were like.

    Attributes:
        passed: float64 `[n ≤ 100, 3]`, oldest first: prequential loss, largest gradient norm, update norm a step.
        failed_in_a_row: how many have been quarantined by gates that give way since the last that passed.
    """

    passed: Tensor
    failed_in_a_row: int = 0

    @classmethod
    def fresh(cls) -> "History":
        """Before any micro-batch."""
        return cls(passed=torch.zeros(0, 3, dtype=torch.float64))

    def add(self, report: LearnReport, loss: float) -> "History":
        """After a micro-batch that passed; after failures, or with a new concept, the past says nothing about now.

        One in which a learner has answered a change that it could not show stands for all before it: so much is usual now.
        """
        row = torch.tensor([[loss, report.gradient_norm, _update_a_step(report)]], dtype=torch.float64)
        before = self.passed
        if self.failed_in_a_row or report.new_concept:
            before = before[:0]
        elif report.answered:
            before = row.expand_as(before)
        return History(passed=torch.cat([before, row])[-_KEPT:])

    def fail(self, verdicts: Iterable[Verdict]) -> "History":
        """After a micro-batch that was quarantined: a flood of unusable records is no sign of a changed world."""
        jumped = any(verdict.gate in _GIVE_WAY and not verdict.passed for verdict in verdicts)
        return replace(self, failed_in_a_row=self.failed_in_a_row + 1) if jumped else self

    def usual(self, column: int, at_least: int) -> float | None:
        """The median of a column; None while there are fewer than `at_least` values."""
        return float(self.passed[:, column].median()) if len(self.passed) >= at_least else None

    def tensors(self) -> dict[str, Tensor]:
        """The value as named tensors."""
        return {"passed": self.passed, "failed_in_a_row": torch.tensor(self.failed_in_a_row)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "History":
        """The inverse of `tensors`."""
        return cls(passed=tensors["passed"], failed_in_a_row=int(tensors["failed_in_a_row"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One micro-batch, learned but not yet taken over.

    Attributes:
        before: the state from before it.
        after: the state it led to; `before` when it had no usable row.
        report: what the learner says.
        seen: its rows, rejected ones included.
        rejected: how many of them were.
        loss: mean prequential loss of its rows (log loss; squared error for numbers), forecast with `before`.
        history: the micro-batches before it.
    """

    before: State
    after: State
    report: LearnReport
    seen: int
    rejected: int
    loss: float
    history: History

    @property
    def squared(self) -> bool:
        """Whether the loss is a squared error."""
        return self.before.spec.task == "regression"


class Gate(Protocol):
    """Judges the state that a micro-batch led to."""

    def judge(self, evidence: Evidence) -> Verdict:
        """Whether its weights may be taken over, and why not."""
        ...


@dataclass(frozen=True, slots=True)
class Finite:
    """Every loss, gradient and tensor is a finite number."""

    def judge(self, evidence: Evidence) -> Verdict:
        """Name the first tensor that holds NaN or infinity."""
        report, after = evidence.report, evidence.after
        if not report.finite:
            return _failed(
                "finite",
                f"loss {report.loss} or gradient norm {report.gradient_norm} at row {report.rows} is not finite",
            )
        for name, tensor in {**after.serving, **after.training}.items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                return _failed("finite", f"tensor {name} is not finite")
        return _passed("finite")


@dataclass(frozen=True, slots=True)
class NormJump:
    """Neither the gradient nor the step of the weights is many times what has been usual.

    A learner that has shown and answered a new concept is believed, as by `LossJump`.
    After `patience` quarantined micro-batches in a row the world has changed, and the next is let through.
    """

    ratio: float = 20.0
    history: int = 20
    patience: int = 3
    believing: bool = True

    def judge(self, evidence: Evidence) -> Verdict:
        """Compare with the median of the micro-batches that passed."""
        if self.believing and evidence.report.new_concept:
            return _passed("norm_jump")
        report, history = evidence.report, evidence.history
        if not report.rows or history.failed_in_a_row >= self.patience:
            return _passed("norm_jump")
        found = {
            "gradient norm": (report.gradient_norm, history.usual(_GRADIENT, self.history)),
            "weight change a step": (_update_a_step(report), history.usual(_UPDATE, self.history)),
        }
        for what, (value, usual) in found.items():
            if usual and value > self.ratio * usual:
                return _failed("norm_jump", f"{what} {value:.4g} is over {self.ratio:g} times the usual {usual:.4g}")
        return _passed("norm_jump")


@dataclass(frozen=True, slots=True)
class LossJump:
    """The loss of the forecasts is not many times what has been usual: squared errors may jump further than log losses.

    A learner that has shown and answered a new concept (`LearnReport.new_concept`) is believed, unless `believing` is False.
    After `patience` quarantined micro-batches in a row the world has changed, and the next is let through.
    """

    ratio: float = 3.0
    squared_ratio: float = 10.0
    rows: int = 100
    history: int = 20
    patience: int = 3
    believing: bool = True

    def judge(self, evidence: Evidence) -> Verdict:
        """Compare with the median of the micro-batches that passed; too few rows say nothing."""
        if self.believing and evidence.report.new_concept:
            return _passed("loss_jump")
        usual = evidence.history.usual(_LOSS, self.history)
        if evidence.report.rows < self.rows or evidence.history.failed_in_a_row >= self.patience or not usual:
            return _passed("loss_jump")
        ratio = self.squared_ratio if evidence.squared else self.ratio
        if evidence.loss > ratio * usual:
            return _failed("loss_jump", f"loss {evidence.loss:.4g} is over {ratio:g} times the usual {usual:.4g}")
        return _passed("loss_jump")


@dataclass(frozen=True, slots=True)
class RejectedRate:
    """Most records of the micro-batch were usable: otherwise a producer has changed, and the rest is suspect too."""

    limit: float = 0.5
    rows: int = 100

    def judge(self, evidence: Evidence) -> Verdict:
        """Compare the share of rejected rows with the limit; too few rows say nothing."""
        if evidence.seen < self.rows or evidence.rejected <= self.limit * evidence.seen:
            return _passed("rejected_rate")
        detail = f"{evidence.rejected} of {evidence.seen} rows were rejected, the limit is {self.limit:.0%}"
        return _failed("rejected_rate", f"{detail}: see `stream-trainer rejected list`")


DEFAULT_GATES: tuple[Gate, ...] = (Finite(), NormJump(), LossJump(), RejectedRate())


def worst(first: tuple[Verdict, ...], second: tuple[Verdict, ...]) -> tuple[Verdict, ...]:
    """One verdict a gate over several micro-batches: a failure outlasts what passed before and after it."""
    merged = {verdict.gate: verdict for verdict in first}
    for verdict in second:
        if verdict.gate not in merged or merged[verdict.gate].passed:
            merged[verdict.gate] = verdict
    return tuple(merged.values())


def _update_a_step(report: LearnReport) -> float:
    return report.update_norm / report.steps if report.steps else 0.0


def _passed(gate: str) -> Verdict:
    return Verdict(gate=gate, passed=True, detail="")


def _failed(gate: str, detail: str) -> Verdict:
    return Verdict(gate=gate, passed=False, detail=detail)
