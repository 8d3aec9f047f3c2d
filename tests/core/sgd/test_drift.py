"""A response of `Sgd` to drift is made when it helps, and changes nothing else when it would not."""

from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from stream_trainer.learner import Batch, LearnReport, State
from stream_trainer.learners.sgd import DriftResponse, Replay, Sgd
from tests.core.tabular.streams import blocks, spec_of

SPEC = spec_of()
RATES = (1e-3, 1e-2)
OTHERS: list[dict[str, Any]] = [{}, {"replay": Replay()}, {"rates": RATES}, {"replay": Replay(), "rates": RATES}]


def stream(flips: Tensor) -> list[Batch]:
    """The label is the sign of the first column, turned where `flips` says so."""
    features = torch.randn(len(flips), 4, generator=Generator().manual_seed(1), dtype=torch.float64)
    return blocks(Batch(features=features, labels=((features[:, 0] > 0) ^ flips).double()), 200)


def prequential(learner: Sgd, batches: list[Batch]) -> tuple[State, list[float], list[LearnReport]]:
    """The last state, the share of misses in each block, all reports."""
    state = learner.init(SPEC, 1)
    misses, reports = [], []
    for batch in batches:
        found = learner.predict(state, batch.features) > 0.5
        misses.append(float((found != batch.labels.bool()).double().mean()))
        state, report = learner.learn(state, batch)
        assert report.finite
        reports.append(report)
    return state, misses, reports


@pytest.mark.parametrize("others", OTHERS)
def test_a_real_drift_is_answered(others: dict[str, Any]) -> None:
    batches = stream(torch.arange(2_800) >= 2_000)
    state, responding, reports = prequential(Sgd(drift=DriftResponse(), **others), batches)
    _, usual, _ = prequential(Sgd(**others), batches)
    assert responding[:11] == usual[:11]
    assert sum(responding[11:]) < sum(usual[11:]) - 0.1
    answered = [at for at, report in enumerate(reports) if report.steps > 7]
    assert answered
    assert min(answered) >= 10
    if "replay" in others:
        assert len(state.training["replay.rows"]) <= 800 + 20


def test_members_that_were_left_behind_copy_the_best() -> None:
    batches = stream(torch.arange(2_800) >= 2_000)
    learner = Sgd(rates=(1e-7, 1e-2), drift=DriftResponse())
    state = learner.init(SPEC, 1)
    for batch in batches:
        state, report = learner.learn(state, batch)
        if report.steps > 7:
            break
    names = [name.removeprefix("net0.") for name in state.serving if name.startswith("net0.")]
    assert all(torch.equal(state.serving[f"net0.{name}"], state.serving[f"net1.{name}"]) for name in names)
    slots = [name.removeprefix("optimizer0.") for name in state.training if name.startswith("optimizer0.")]
    assert slots
    assert all(torch.equal(state.training[f"optimizer0.{s}"], state.training[f"optimizer1.{s}"]) for s in slots)
    assert state.serving["mixer.weights"].tolist() == [0.5, 0.5]


@pytest.mark.parametrize("others", OTHERS)
def test_a_burst_of_noise_is_learned_as_if_no_drift_was_looked_for(others: dict[str, Any]) -> None:
    noise = torch.rand(2_800, generator=Generator().manual_seed(2)) < 0.35
    batches = stream(noise & (torch.arange(2_800) >= 2_000))
    watched, _, _ = prequential(Sgd(drift=DriftResponse(), **others), batches)
    careless, _, _ = prequential(Sgd(**others), batches)
    jumpy, _, reports = prequential(Sgd(drift=DriftResponse(trial=None), **others), batches)
    assert max(report.steps for report in reports) > 7
    assert all(torch.equal(tensor, watched.serving[name]) for name, tensor in careless.serving.items())
    assert all(torch.equal(tensor, watched.training[name]) for name, tensor in careless.training.items())
    assert not all(torch.equal(tensor, jumpy.serving[name]) for name, tensor in careless.serving.items())
