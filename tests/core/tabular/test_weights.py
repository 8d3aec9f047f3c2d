"""Rows that count more or less than one, in every part of `Tabular` that learns."""

import pytest
import torch
from torch import Generator, Tensor

from stream_trainer.contract import Task
from stream_trainer.learner import Batch
from stream_trainer.learners.tabular import LabelMemory, Linear, Mixer, Neighbours, Nets, Tabular
from stream_trainer.learners.tabular.heads import Classes
from stream_trainer.learners.tabular.nets import Training, fresh_moments
from tests.core.tabular.streams import blocks, prequential, rows_of, same, spec_of

HEAD = Classes(2, binary=True)
TASKS: list[tuple[Task, int]] = [("binary", 2), ("multiclass", 3), ("regression", 1)]


def rows(count: int, width: int = 3) -> tuple[Tensor, Tensor]:
    generator = Generator().manual_seed(5)
    labels = torch.randint(2, (count,), generator=generator)
    return torch.randn(count, width, generator=generator), torch.eye(2)[labels]


@pytest.mark.parametrize(("task", "classes"), TASKS)
def test_weights_of_one_are_as_none(task: Task, classes: int) -> None:
    spec = spec_of(task=task, classes=classes)
    state = Tabular().init(spec, 1)
    batch = rows_of(spec, 100)
    counted = Batch(features=batch.features, labels=batch.labels, weights=torch.ones(100, dtype=torch.float64))
    assert same(Tabular().learn(state, batch)[0], Tabular().learn(state, counted)[0])


@pytest.mark.parametrize(("task", "classes"), TASKS)
def test_rows_of_weight_0_change_nothing(task: Task, classes: int) -> None:
    spec = spec_of(task=task, classes=classes)
    state, _, _ = prequential(Tabular(), Tabular().init(spec, 1), blocks(rows_of(spec, 200), 50))
    batch = rows_of(spec, 60, seed=2)
    some = torch.tensor([1.0, 0.0, 2.0], dtype=torch.float64).repeat(20)
    which = some > 0
    left = Batch(features=batch.features[which], labels=batch.labels[which], weights=some[which])
    whole = Batch(features=batch.features, labels=batch.labels, weights=some)
    assert same(Tabular().learn(state, whole)[0], Tabular().learn(state, left)[0])
    nothing = Batch(features=batch.features, labels=batch.labels, weights=torch.zeros(60, dtype=torch.float64))
    after, report = Tabular().learn(state, nothing)
    assert after is state
    assert report.rows == 0


def test_a_net_takes_the_gradient_of_a_row_of_weight_2_twice() -> None:
    inputs, codes = rows(16)
    nets = Nets(rates=(0.01,), blind=())
    net = nets.fresh(3, 0, 2, Generator().manual_seed(1))

    def gradient(weights: Tensor) -> Tensor:
        training = Training(nets, net, fresh_moments(net), HEAD, 0)
        training.step(inputs, codes, weights)
        return training.moments()["moments"][0]

    once, last = torch.ones(16), torch.zeros(16)
    last[-1] = 1.0
    assert torch.allclose(gradient(once + last), gradient(once) + gradient(last), atol=1e-7)
    assert float(gradient(last).norm()) > 1e-4


def test_a_linear_expert_takes_the_gradient_of_a_row_of_weight_2_twice() -> None:
    inputs, codes = rows(16)
    linear = Linear()
    fresh = linear.fresh(3, 2)["weights"]
    once, twice = torch.ones(16), torch.ones(16)
    twice[3] = 2.0
    again = torch.cat([inputs, inputs[3:4]]), torch.cat([codes, codes[3:4]])
    found = linear.learned(fresh, inputs, codes, twice, HEAD, 16)
    assert torch.allclose(found, linear.learned(fresh, *again, torch.ones(17), HEAD, 17), atol=1e-6)
    assert not torch.allclose(found, linear.learned(fresh, inputs, codes, once, HEAD, 16))


def test_a_neighbour_of_weight_2_votes_twice() -> None:
    kept, codes = torch.zeros(6, 1), torch.eye(2)[[0, 0, 0, 1, 1, 1]]
    counts = torch.tensor([2.0, 2.0, 2.0, 1.0, 1.0, 1.0])
    found = Neighbours(prior=0.0).forecast(kept, codes, counts, torch.zeros(1, 1), classes=True).exp()
    assert found[0].tolist() == pytest.approx([2 / 3, 1 / 3])


def test_a_label_of_weight_2_is_remembered_as_two() -> None:
    memory = LabelMemory()
    one, other = torch.tensor([[0.5, -0.5]]), torch.tensor([[-0.5, 0.5]])
    counted = memory.after(memory.fresh(2), torch.cat([one, other]), torch.tensor([2.0, 1.0]))
    repeated = memory.after(memory.fresh(2), torch.cat([one, one, other]), torch.ones(3))
    assert torch.allclose(counted["means"], repeated["means"], atol=1e-7)


def test_hedge_takes_the_loss_of_a_row_of_weight_2_twice() -> None:
    mixer = Mixer(hedge_rows=8)
    fresh = mixer.fresh(2, 2) | mixer.fresh_moments(2)
    forecasts = torch.tensor([[0.7, 0.3], [0.4, 0.6]]).log()
    codes = torch.eye(2)[[0, 1, 1]]

    def shares(which: list[int], counts: list[float]) -> Tensor:
        seen = forecasts[:, None].expand(2, len(which), 2)
        losses = HEAD.losses(seen, codes[which])
        return mixer.learned(fresh, seen, codes[which], losses, torch.tensor(counts), classes=True)["hedge"]

    assert torch.allclose(shares([0, 1], [1.0, 2.0]), shares([0, 1, 1], [1.0, 1.0, 1.0]), atol=1e-6)
    assert not torch.allclose(shares([0, 1], [1.0, 2.0]), shares([0, 1], [1.0, 1.0]), atol=1e-3)


def test_what_is_sampled_away_and_weighed_up_teaches_the_true_probability() -> None:
    """Three quarters of the negatives are missing; those left count four times."""
    spec = spec_of()
    truth = rows_of(spec, 6_000, seed=3)
    labels = (torch.rand(6_000, generator=Generator().manual_seed(4)) < 0.25).double()
    kept = (labels > 0) | (torch.rand(6_000, generator=Generator().manual_seed(6)) < 0.25)
    weights = torch.where(labels > 0, 1.0, 4.0).double()[kept]
    features, labels = truth.features[kept], labels[kept]

    def forecast(weights: Tensor | None) -> float:
        state = Tabular().init(spec, 1)
        for start in range(0, len(labels), 250):
            piece = slice(start, start + 250)
            counts = None if weights is None else weights[piece]
            state, _ = Tabular().learn(state, Batch(features=features[piece], labels=labels[piece], weights=counts))
        return float(Tabular().answer(state, truth.features[:500]).mean())

    assert forecast(weights) == pytest.approx(0.25, abs=0.05)
    assert forecast(None) == pytest.approx(0.57, abs=0.07)
