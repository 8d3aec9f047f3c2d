"""What `Sgd` can do beside learning each row once: each option pure, resumable, and fair to weights."""

import json
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from stream_trainer.features import FeatureSpec
from stream_trainer.learner import Batch, LearnReport, State
from stream_trainer.learners.sgd import DriftResponse, Replay, Sgd, adamw
from tests.core.test_sgd import (
    BINARY,
    CLASSES,
    NUMBERS,
    by_layer,
    finite,
    loss,
    rows,
    same_bits,
    stored,
    with_batch_norm,
    with_dropout,
)

JUMPY = DriftResponse(trial=None, warm_up=60, fast_rows=16, threshold=1.0, fewest=5)
OPTIONS: dict[str, dict[str, Any]] = {
    "passes": {"passes": 2},
    "replay": {"replay": Replay(rows=90)},
    "rates": {"rates": (1e-3, 1e-2)},
    "drift": {"drift": JUMPY},
    "all": {"passes": 2, "replay": Replay(rows=90), "rates": (1e-3, 1e-2), "drift": JUMPY},
    "all, tried": {"replay": Replay(rows=300), "rates": (1e-3, 1e-2), "drift": DriftResponse(warm_up=60, fewest=5)},
}
LEAVES_OUT = [name for name in OPTIONS if name != "passes"]
SPECS = (BINARY, CLASSES, NUMBERS)


def turned(batch: Batch) -> Batch:
    """Labels in reverse, so that there is a drift."""
    return Batch(features=batch.features, labels=batch.labels.max() - batch.labels + batch.labels.min())


def blocks(spec: FeatureSpec, *, weighted: bool = False) -> list[Batch]:
    """A drift between the third and the fourth."""
    found = [rows(40, seed, spec) for seed in range(3)] + [turned(rows(40, seed, spec)) for seed in range(3, 6)]
    if not weighted:
        return found
    counts = torch.tensor([1.0, 0.0, 2.0, 0.5], dtype=torch.float64).repeat(10)
    return [Batch(features=one.features, labels=one.labels, weights=counts) for one in found]


def learned(learner: Sgd, state: State, batches: list[Batch]) -> tuple[State, list[LearnReport]]:
    reports = []
    for batch in batches:
        state, report = learner.learn(state, batch)
        reports.append(report)
    return state, reports


@pytest.mark.parametrize("name", OPTIONS)
@given(cuts=st.sets(st.integers(1, 5)), spec=st.sampled_from(SPECS), weighted=st.booleans())
@settings(max_examples=6, deadline=None, derandomize=True)
def test_it_goes_on_from_a_stored_state_as_if_it_had_never_stopped(
    name: str, cuts: set[int], spec: FeatureSpec, *, weighted: bool
) -> None:
    make = partial(Sgd, with_dropout, **OPTIONS[name])
    undisturbed, resumed = make(), make()
    straight = again = undisturbed.init(spec, 3)
    for at, batch in enumerate(blocks(spec, weighted=weighted)):
        if at in cuts:
            resumed, again = make(), stored(again)
        straight, first = undisturbed.learn(straight, batch)
        again, second = resumed.learn(again, batch)
        assert first == second
        assert first.finite
    assert same_bits(straight, again)
    features = rows(9, 8, spec).features
    assert torch.equal(undisturbed.predict(straight, features), make().predict(stored(again), features))


@pytest.mark.parametrize("name", OPTIONS)
def test_the_state_is_left_alone_and_the_same_call_gives_the_same_bits(name: str) -> None:
    learner = Sgd(with_batch_norm, **OPTIONS[name])
    state, _ = learned(learner, learner.init(BINARY, 0), blocks(BINARY)[:4])
    before = stored(state)
    first, _ = learner.learn(state, blocks(BINARY)[4])
    torch.rand(3)
    second, _ = learner.learn(state, blocks(BINARY)[4])
    assert same_bits(first, second)
    assert same_bits(state, before)
    assert not same_bits(first, state)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("spec", SPECS)
def test_serving_needs_only_what_is_served(name: str, spec: FeatureSpec) -> None:
    learner = Sgd(**OPTIONS[name])
    state, _ = learned(learner, learner.init(spec, 0), blocks(spec))
    served = State(spec=spec, serving=stored(state).serving, training={})
    features = rows(20, 5, spec).features
    found = Sgd(**OPTIONS[name]).predict(served, features)
    assert torch.equal(found, learner.predict(state, features))
    assert found.dtype == torch.float32
    assert torch.allclose(found[3:4], learner.predict(state, features[3:4]), atol=1e-5)
    plain = Sgd().init(spec, 0).serving.keys()
    if "rates" not in OPTIONS[name]:
        assert state.serving.keys() == plain
    assert state.serving.keys() == learner.init(spec, 0).serving.keys()


@pytest.mark.parametrize("name", LEAVES_OUT)
@pytest.mark.parametrize("spec", SPECS)
def test_rows_of_weight_0_change_nothing(name: str, spec: FeatureSpec) -> None:
    learner = Sgd(**OPTIONS[name])
    state, _ = learned(learner, learner.init(spec, 0), blocks(spec)[:4])
    (batch,) = blocks(spec, weighted=True)[4:5]
    assert batch.weights is not None
    which = batch.weights > 0
    left = Batch(features=batch.features[which], labels=batch.labels[which], weights=batch.weights[which])
    assert same_bits(learner.learn(state, batch)[0], learner.learn(state, left)[0])
    nothing = Batch(features=batch.features, labels=batch.labels, weights=torch.zeros(40, dtype=torch.float64))
    assert learner.learn(state, nothing)[0] is state
    assert learner.learn(state, rows(0, 0, spec))[0] is state


@pytest.mark.parametrize("name", OPTIONS)
def test_weights_of_one_are_as_none_but_for_rounding_and_others_are_not(name: str) -> None:
    learner = Sgd(optimizer=partial(torch.optim.SGD, lr=1e-2), **OPTIONS[name])
    state, _ = learned(learner, learner.init(BINARY, 0), blocks(BINARY)[:2])

    def after(weight: float | None) -> State:
        batch = blocks(BINARY)[2]
        weights = None if weight is None else torch.full((40,), weight, dtype=torch.float64)
        return learner.learn(state, Batch(features=batch.features, labels=batch.labels, weights=weights))[0]

    none, one, three = after(None), after(1.0), after(3.0)
    assert all(torch.allclose(tensor, one.serving[key], atol=1e-5) for key, tensor in none.serving.items())
    assert not all(torch.allclose(tensor, three.serving[key], atol=1e-4) for key, tensor in none.serving.items())


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("spec", SPECS)
def test_it_learns_far_better_than_a_constant(name: str, spec: FeatureSpec) -> None:
    learner = Sgd(**OPTIONS[name])
    state = learner.init(spec, 0)
    test = rows(500, 99, spec)
    untrained = loss(learner, state, test)
    state, reports = learned(learner, state, [rows(400, seed, spec) for seed in range(5)])
    assert all(report.finite and report.rows == 400 and report.gradient_norm > 0 for report in reports)
    assert loss(learner, state, test) < 0.6 * untrained


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("spec", SPECS)
def test_a_label_that_is_not_finite_fails_the_gate(name: str, spec: FeatureSpec) -> None:
    learner = Sgd(**OPTIONS[name])
    state, _ = learned(learner, learner.init(spec, 0), blocks(spec)[:2])
    batch = rows(40, 7, spec)
    batch.labels[33] = float("nan")
    if spec is CLASSES and name == "passes":
        return  # as ever: the loss of torch refuses what is no class
    after, report = learner.learn(state, batch)
    assert not finite(state, after, report).passed


def test_the_report_counts_the_steps_of_all_passes_and_each_row_once() -> None:
    _, (report,) = learned(Sgd(rows_per_step=10, passes=3), Sgd().init(BINARY, 0), [rows(25, 0)])
    assert (report.rows, report.steps) == (25, 9)
    learner = Sgd(rates=(1e-3, 1e-2), rows_per_step=10)
    _, (report,) = learned(learner, learner.init(BINARY, 0), [rows(25, 0)])
    assert (report.rows, report.steps) == (25, 3)


def test_options_can_be_added_to_a_lineage_and_taken_away() -> None:
    state, _ = learned(Sgd(), Sgd().init(NUMBERS, 0), blocks(NUMBERS)[:2])
    more = Sgd(passes=2, replay=Replay(), drift=JUMPY)
    state, _ = learned(more, state, blocks(NUMBERS)[2:4])
    assert len(state.training["replay.rows"]) > 0
    state, (report, *_) = learned(Sgd(), state, blocks(NUMBERS)[4:])
    assert report.finite
    assert not [name for name in state.training if name.startswith(("replay", "drift", "stream", "label"))]
    with pytest.raises(ValueError, match="was the model changed"):
        Sgd(rates=(1e-3,)).learn(state, rows(4, 0, NUMBERS))


def test_hyperparameters_name_the_options_that_are_on() -> None:
    found = [Sgd(**options).hyperparameters() for options in ({}, *OPTIONS.values())]
    assert len({json.dumps(one, sort_keys=True, allow_nan=False) for one in found}) == len(found)
    assert not found[0].keys() & {"passes", "replay", "rates", "mixer", "drift"}


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Sgd(passes=0),
        lambda: Sgd(rates=(0.0,)),
        lambda: Replay(rows=0),
        lambda: Replay(share=1.0),
        lambda: Sgd(optimizer=by_layer, rates=(1e-3,)).learn(Sgd(rates=(1e-3,)).init(BINARY, 0), rows(4, 0)),
    ],
)
def test_options_that_make_no_sense_are_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"must be|needs an optimiser|keep one row"):
        wrong()


def test_each_member_goes_at_its_rate() -> None:
    learner = Sgd(lambda spec: nn.Linear(spec.width, 1), adamw, rates=(1e-4, 1e-2), rows_per_step=100)
    start = learner.init(BINARY, 0)
    after, _ = learner.learn(start, rows(100, 0))
    ways = [(after.serving[f"net{at}.weight"] - start.serving[f"net{at}.weight"]).abs().max().item() for at in (0, 1)]
    assert ways == pytest.approx([1e-4, 1e-2], rel=0.1)


def test_the_mixture_follows_the_member_that_does_better() -> None:
    learner = Sgd(rates=(1e-7, 1e-2))
    state, _ = learned(learner, learner.init(BINARY, 0), [rows(100, seed) for seed in range(8)])
    idle, able = state.serving["mixer.hedge"].exp().tolist()
    assert able > 0.9
    assert idle < 0.1
    assert state.serving["mixer.weights"][1] > state.serving["mixer.weights"][0]
