from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stream_trainer.features import FeatureSpec
from stream_trainer.gates import Evidence, Finite, History
from stream_trainer.joining.weights import importance
from stream_trainer.learner import Batch, LearnReport, State
from stream_trainer.learners import Sgd
from stream_trainer.learners.sgd import mlp
from stream_trainer.store.manifest import Verdict
from stream_trainer.store.tensors import from_bytes, to_bytes

WIDTH = 4
BINARY = FeatureSpec(columns=tuple("abcd"), scaled=(True,) * WIDTH, task="binary", outputs=1)
CLASSES = FeatureSpec(columns=tuple("abcd"), scaled=(True,) * WIDTH, task="multiclass", outputs=3)
NUMBERS = FeatureSpec(columns=tuple("abcd"), scaled=(True,) * WIDTH, task="regression", outputs=1)

Optimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
ADAMW: Optimizer = partial(torch.optim.AdamW, lr=1e-2)
MOMENTUM: Optimizer = partial(torch.optim.SGD, lr=1e-2, momentum=0.9)
PLAIN: Optimizer = partial(torch.optim.SGD, lr=1e-2)
ADAGRAD: Optimizer = partial(torch.optim.Adagrad, lr=1e-2)
NADAM: Optimizer = partial(torch.optim.NAdam, lr=1e-2)
AMSGRAD: Optimizer = partial(torch.optim.Adam, lr=1e-2, amsgrad=True)


def rows(n: int, seed: int, spec: FeatureSpec = BINARY) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn((n, WIDTH), generator=generator, dtype=torch.float64) * 3 + 1
    score = features[:, 0] - 2 * features[:, 1]
    match spec.task:
        case "binary":
            labels = (score > 0).to(torch.float64)
        case "multiclass":
            labels = (score > -3).to(torch.float64) + (score > 3)
        case "regression":
            labels = score
    return Batch(features=features, labels=labels)


def tensors(state: State) -> dict[str, Tensor]:
    return {f"s.{k}": v for k, v in state.serving.items()} | {f"t.{k}": v for k, v in state.training.items()}


def same_bits(first: State, second: State) -> bool:
    a, b = tensors(first), tensors(second)
    return a.keys() == b.keys() and all(a[k].numpy().tobytes() == b[k].numpy().tobytes() for k in a)


def stored(state: State) -> State:
    """The state as a new process would read it."""
    serving = from_bytes(to_bytes(state.serving), "test")
    return State(spec=state.spec, serving=serving, training=from_bytes(to_bytes(state.training), "test"))


def with_dropout(spec: FeatureSpec) -> nn.Module:
    return nn.Sequential(nn.Linear(spec.width, 16), nn.Dropout(0.5), nn.Linear(16, spec.outputs))


def with_batch_norm(spec: FeatureSpec) -> nn.Module:
    return nn.Sequential(nn.Linear(spec.width, 8), nn.BatchNorm1d(8), nn.Linear(8, spec.outputs))


class Tied(nn.Module):
    """Two layers that share one weight, and a buffer that is not stored."""

    def __init__(self, spec: FeatureSpec) -> None:
        super().__init__()
        self.first = nn.Linear(spec.width, spec.width)
        self.second = nn.Linear(spec.width, spec.width)
        self.second.weight = self.first.weight
        self.out = nn.Linear(spec.width, spec.outputs)
        self.register_buffer("scratch", torch.ones(1), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        found: Tensor = self.out(torch.relu(self.second(torch.relu(self.first(features)))))
        return found


@pytest.mark.parametrize("model", [mlp, with_dropout, with_batch_norm, Tied])
@pytest.mark.parametrize("optimizer", [ADAMW, MOMENTUM, PLAIN, ADAGRAD, NADAM, AMSGRAD])
def test_learning_on_from_a_stored_state_gives_the_bits_of_never_having_stopped(
    model: Any, optimizer: Optimizer
) -> None:
    undisturbed = Sgd(model, optimizer)
    state = undisturbed.init(BINARY, 3)
    for seed in range(3):
        state, _ = undisturbed.learn(state, rows(70, seed))
    restarted = Sgd(model, optimizer).init(BINARY, 3)
    for seed in range(3):
        restarted, _ = Sgd(model, optimizer).learn(stored(restarted), rows(70, seed))
    assert same_bits(state, restarted)


def test_the_same_call_twice_gives_the_same_bits_whatever_came_between() -> None:
    learner = Sgd(with_dropout)
    state = learner.init(BINARY, 0)
    first, report = learner.learn(state, rows(100, 0))
    learner.learn(first, rows(50, 9))
    learner.predict(first, rows(5, 1).features)
    torch.rand(3)
    second, again = learner.learn(state, rows(100, 0))
    assert same_bits(first, second)
    assert report == again


def test_learning_in_several_threads_gives_the_bits_of_one() -> None:
    def history(seed: int) -> State:
        learner = Sgd(with_dropout)
        state = learner.init(BINARY, seed)
        for part in range(8):
            state, _ = learner.learn(state, rows(64, part))
        return state

    alone = [history(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(history, range(4)))
    assert all(same_bits(one, other) for one, other in zip(alone, together, strict=True))


def test_another_seed_gives_another_net() -> None:
    learner = Sgd()
    assert not same_bits(learner.init(BINARY, 0), learner.init(BINARY, 1))
    assert same_bits(learner.init(BINARY, 0), Sgd().init(BINARY, 0))


def test_dropout_draws_on_where_the_last_micro_batch_stopped() -> None:
    learner = Sgd(with_dropout)
    state, _ = learner.learn(learner.init(BINARY, 0), rows(64, 0))
    following, _ = learner.learn(state, rows(64, 0))
    assert not torch.equal(state.training["rng"], following.training["rng"])


def test_the_global_random_numbers_are_left_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(4)
    torch.manual_seed(7)
    learner = Sgd(with_dropout)
    state, _ = learner.learn(learner.init(BINARY, 0), rows(64, 0))
    learner.predict(state, rows(3, 0).features)
    Sgd(with_dropout).predict(state, rows(3, 0).features)
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize("optimizer", [ADAMW, MOMENTUM, ADAGRAD])
def test_the_state_that_was_given_is_not_modified(optimizer: Optimizer) -> None:
    learner = Sgd(with_batch_norm, optimizer)
    state, _ = learner.learn(learner.init(BINARY, 0), rows(64, 0))
    before = stored(state)
    learner.predict(state, rows(3, 0).features)
    following, _ = learner.learn(state, rows(64, 1))
    assert same_bits(state, before)
    assert not same_bits(state, following)


def test_a_prediction_does_not_depend_on_dropout_or_on_the_other_rows() -> None:
    learner = Sgd(with_dropout)
    state, _ = learner.learn(learner.init(BINARY, 0), rows(64, 0))
    features = rows(20, 5).features
    whole = learner.predict(state, features)
    assert torch.equal(whole, learner.predict(state, features))
    assert torch.allclose(whole[3:4], learner.predict(state, features[3:4]), rtol=1e-6)


def test_tied_weights_are_stored_once_and_stay_tied() -> None:
    learner = Sgd(Tied)
    state, _ = learner.learn(learner.init(BINARY, 0), rows(64, 0))
    assert "net.first.weight" in state.serving
    assert "net.second.weight" not in state.serving
    assert "net.scratch" not in state.serving
    (net,) = learner.model.nets(stored(state))
    assert isinstance(net, Tied)
    assert net.first.weight is net.second.weight


def finite(before: State, after: State, report: LearnReport) -> Verdict:
    rows = report.rows
    history = History.fresh()
    return Finite().judge(
        Evidence(before=before, after=after, report=report, seen=rows, rejected=0, loss=0.0, history=history)
    )


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_label_that_is_not_finite_is_reported_and_fails_the_gate(bad: float) -> None:
    learner = Sgd()
    batch = rows(96, 0)
    batch.labels[40] = bad
    state = learner.init(BINARY, 0)
    after, report = learner.learn(state, batch)
    assert (report.finite, report.rows, report.steps) == (False, 32, 1)
    verdict = finite(state, after, report)
    assert not verdict.passed
    assert "row 32" in verdict.detail


def test_the_gate_names_the_tensor_that_is_not_finite() -> None:
    state, report = Sgd().learn(Sgd().init(BINARY, 0), rows(8, 0))
    assert finite(state, state, report).passed
    broken = State(spec=BINARY, serving={**state.serving, "net.x": torch.tensor([float("nan")])}, training={})
    assert "net.x" in finite(state, broken, report).detail
    assert finite(state, State(spec=BINARY, serving={"n": torch.tensor([1])}, training={}), report).passed


def loss(learner: Sgd, state: State, batch: Batch) -> float:
    p = learner.predict(state, batch.features).to(torch.float64)
    match state.spec.task:
        case "binary":
            return float(nn.functional.binary_cross_entropy(p, batch.labels))
        case "multiclass":
            return float(nn.functional.nll_loss(p.log(), batch.labels.long()))
        case "regression":
            return float(nn.functional.mse_loss(p, batch.labels))


@pytest.mark.parametrize(("spec", "below"), [(BINARY, 0.35), (CLASSES, 0.6), (NUMBERS, 20.0)])
def test_it_learns_far_better_than_a_constant(spec: FeatureSpec, below: float) -> None:
    learner = Sgd(optimizer=ADAMW)
    state = learner.init(spec, 0)
    test = rows(500, 99, spec)
    untrained = loss(learner, state, test)
    for seed in range(5):
        state, report = learner.learn(state, rows(400, seed, spec))
        assert report.finite
    learned = loss(learner, state, test)
    assert learned < below < untrained


def test_probabilities_are_probabilities() -> None:
    for spec in (BINARY, CLASSES):
        learner = Sgd()
        state, _ = learner.learn(learner.init(spec, 0), rows(64, 0, spec))
        p = learner.predict(state, rows(10, 1).features * 1e30)
        assert p.dtype == torch.float32
        assert p.shape == ((10,) if spec is BINARY else (10, 3))
        assert ((p >= 0) & (p <= 1)).all()
    assert torch.allclose(p.sum(1), torch.ones(10))


def test_no_rows_change_no_weight() -> None:
    learner = Sgd()
    state, _ = learner.learn(learner.init(BINARY, 0), rows(64, 0))
    after, report = learner.learn(state, rows(0, 0))
    assert report == LearnReport(rows=0, steps=0, loss=0.0, gradient_norm=0.0, update_norm=0.0, finite=True)
    assert same_bits(state, after)
    assert learner.predict(state, rows(0, 0).features).shape == (0,)


def test_the_report_counts_rows_and_steps() -> None:
    learner = Sgd(rows_per_step=10)
    _, report = learner.learn(learner.init(BINARY, 0), rows(25, 0))
    assert (report.rows, report.steps, report.finite) == (25, 3, True)
    assert report.gradient_norm > 0


def test_tensors_of_another_model_are_refused_with_the_reason() -> None:
    state = Sgd(mlp).init(BINARY, 0)
    with pytest.raises(ValueError, match=r"do not fit .*was the model changed"):
        Sgd(with_dropout).predict(state, rows(1, 0).features)
    with pytest.raises(ValueError, match="shapes differ"):
        Sgd(partial(mlp, hidden=(8, 4))).learn(state, rows(1, 0))


def by_layer(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Two groups: weights with decay, biases without."""
    given = list(parameters)
    groups: list[dict[str, Any]] = [
        {"params": [p for p in given if p.ndim > 1]},
        {"params": [p for p in given if p.ndim < 2], "lr": 0.5},
    ]
    return torch.optim.SGD(groups, lr=0.0)


def test_every_group_of_an_optimizer_is_clipped() -> None:
    learner = Sgd(lambda spec: nn.Linear(spec.width, spec.outputs), by_layer, rows_per_step=1, clip_norm=1e-3)
    state = learner.init(NUMBERS, 0)
    huge = Batch(features=torch.zeros((1, WIDTH), dtype=torch.float64), labels=torch.tensor([1e6], dtype=torch.float64))
    after, _ = learner.learn(state, huge)
    moved = (after.serving["net.bias"] - state.serving["net.bias"]).abs().item()
    assert 0 < moved <= 0.5 * 1e-3 * 1.001


def test_a_loss_of_ones_own_is_used() -> None:
    learner = Sgd(loss=lambda logits, labels: (logits[:, 0] * 0).sum() + 42.0)
    _, report = learner.learn(learner.init(BINARY, 0), rows(10, 0))
    assert report.loss == 42.0


def test_hyperparameters_are_plain_values_that_tell_learners_apart() -> None:
    import json

    found = [Sgd(optimizer=o).hyperparameters() for o in (ADAMW, MOMENTUM, ADAGRAD)]
    found += [Sgd(rows_per_step=8).hyperparameters(), Sgd(clip_norm=1.0).hyperparameters()]
    assert len({json.dumps(f, sort_keys=True, allow_nan=False) for f in found}) == 5
    assert found[0]["optimizer"] == "AdamW"
    assert found[0]["param_groups"][0]["lr"] == 1e-2


def test_weights_scale_what_a_row_teaches() -> None:
    learner = Sgd(optimizer=PLAIN, clip_norm=1e9)
    start = learner.init(BINARY, 0)
    plain = rows(64, 1)

    def moved(batch: Batch) -> float:
        return learner.learn(start, batch)[1].update_norm

    def weighted(weight: float) -> Batch:
        weights = torch.full((64,), weight, dtype=torch.float64)
        return Batch(features=plain.features, labels=plain.labels, weights=weights)

    assert moved(weighted(1.0)) == pytest.approx(moved(plain), rel=1e-4)
    assert moved(weighted(0.0)) == 0.0


def test_a_stream_with_assumed_negatives_teaches_the_true_probability() -> None:
    """One event in five is true; false is taught first for all of them, true again for those."""
    truth, generator = 0.2, torch.Generator().manual_seed(3)
    true = (torch.rand(4_000, generator=generator) < truth).double()
    labels = torch.cat([torch.zeros(4_000, dtype=torch.float64), torch.ones(int(true.sum()), dtype=torch.float64)])
    order = torch.randperm(len(labels), generator=generator)
    labels = labels[order]
    features = torch.zeros((len(labels), WIDTH), dtype=torch.float64)
    weights = torch.tensor([importance(bool(y), truth, 1.0) for y in labels], dtype=torch.float64)
    learner = Sgd(model=lambda spec: nn.Linear(spec.width, 1), optimizer=partial(torch.optim.SGD, lr=0.1))

    def learned(batch: Batch) -> float:
        state = learner.learn(learner.init(BINARY, 0), batch)[0]
        return float(learner.predict(state, features[:1]))

    assert learned(Batch(features=features, labels=labels, weights=weights)) == pytest.approx(truth, abs=0.04)
    assert learned(Batch(features=features, labels=labels)) == pytest.approx(truth / (1 + truth), abs=0.04)
