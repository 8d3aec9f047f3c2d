import torch

from stream_trainer.features import FeatureSpec
from stream_trainer.gates import Finite
from stream_trainer.learner import LearnReport, State

SPEC = FeatureSpec(columns=("a",), scaled=(True,), task="binary", outputs=1)
FINE = LearnReport(rows=1, steps=1, loss=0.5, gradient_norm=1.0, finite=True)


def state(**tensors: torch.Tensor) -> State:
    return State(spec=SPEC, serving=tensors, training={})


def test_finite_tensors_pass() -> None:
    assert Finite().judge(state(), state(w=torch.ones(3), n=torch.tensor([2**40])), FINE).passed


def test_infinity_in_a_training_tensor_fails_by_name() -> None:
    after = State(spec=SPEC, serving={}, training={"optimizer.0.m": torch.tensor([1.0, float("inf")])})
    verdict = Finite().judge(state(), after, FINE)
    assert (verdict.gate, verdict.passed) == ("finite", False)
    assert "optimizer.0.m" in verdict.detail


def test_what_was_there_before_is_not_judged() -> None:
    before = state(w=torch.tensor([float("nan")]))
    assert Finite().judge(before, state(w=torch.ones(1)), FINE).passed
