"""What a micro-batch must pass before its weights are committed. Pure; a gate never learns and never stores."""

from dataclasses import dataclass
from typing import Protocol

import torch

from stream_trainer.learner import LearnReport, State
from stream_trainer.store.manifest import Verdict


class Gate(Protocol):
    """Judges the state that a micro-batch led to."""

    def judge(self, before: State, after: State, report: LearnReport) -> Verdict:
        """Whether `after` may replace `before`, and why not."""
        ...


@dataclass(frozen=True, slots=True)
class Finite:
    """Every loss, gradient and tensor is a finite number."""

    def judge(self, before: State, after: State, report: LearnReport) -> Verdict:  # noqa: ARG002
        """Name the first tensor that holds NaN or infinity."""
        if not report.finite:
            detail = f"loss {report.loss} or gradient norm {report.gradient_norm} at row {report.rows} is not finite"
            return Verdict(gate="finite", passed=False, detail=detail)
        for name, tensor in {**after.serving, **after.training}.items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                return Verdict(gate="finite", passed=False, detail=f"tensor {name} is not finite")
        return Verdict(gate="finite", passed=True, detail="")
