import math

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from stream_trainer.learners.tabular.mixer import Mixer


def fresh(experts: int, size: int) -> dict[str, Tensor]:
    return Mixer().fresh(experts, size) | Mixer().fresh_moments(experts)


def two_experts(rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """One that is right and one that is wrong about two classes."""
    codes = torch.eye(2)[torch.arange(rows) % 2]
    right = (codes * 0.8 + 0.1).log()
    forecasts = torch.stack([right, right.flip(1)])
    return forecasts, codes, -(forecasts * codes).sum(-1)


def test_before_learning_all_experts_count_alike() -> None:
    forecasts, _, _ = two_experts(4)
    mixed = Mixer().mixed(fresh(2, 2), forecasts, classes=True)
    assert torch.allclose(mixed.exp(), torch.full((4, 2), 0.5))


def test_the_expert_that_is_right_wins() -> None:
    forecasts, codes, losses = two_experts(400)
    after = Mixer().learned(fresh(2, 2), forecasts, codes, losses, torch.ones(losses.shape[1]), classes=True)
    assert float(after["weights"][0]) > float(after["weights"][1]) + 0.5
    assert float(after["hedge"][0]) > math.log(0.9)
    mixed = Mixer().mixed(after, forecasts, classes=True)
    assert bool((mixed.argmax(1) == codes.argmax(1)).all())


def test_the_share_lets_a_loser_come_back() -> None:
    forecasts, codes, losses = two_experts(3_200)
    after = Mixer().learned(fresh(2, 2), forecasts, codes, losses, torch.ones(losses.shape[1]), classes=True)
    floor = float(after["hedge"].exp().min())
    assert floor >= Mixer().share / 2 * 0.99
    turned = Mixer().learned(
        after, forecasts[:, :320].flip(0), codes[:320], losses[:, :320].flip(0), torch.ones(320), classes=True
    )
    assert float(turned["hedge"].exp()[1]) > 0.9


def test_one_step_of_hedge_is_the_formula() -> None:
    losses = torch.tensor([[1.0, 0.5], [0.0, 0.25]])
    mixer = Mixer(hedge_rows=2, eta=0.5, share=0.1)
    after = mixer.learned(
        fresh(2, 2), torch.zeros(2, 2, 2), torch.eye(2), losses, torch.ones(losses.shape[1]), classes=True
    )
    weights = [0.5 * math.exp(-0.5 * 1.5), 0.5 * math.exp(-0.5 * 0.25)]
    expected = [0.9 * weight / sum(weights) + 0.05 for weight in weights]
    assert torch.allclose(after["hedge"].exp(), torch.tensor(expected))


def test_nothing_given_is_changed() -> None:
    mixer = fresh(2, 2)
    copy = {name: tensor.clone() for name, tensor in mixer.items()}
    Mixer().learned(mixer, *two_experts(50), torch.ones(50), classes=True)
    assert all(torch.equal(mixer[name], copy[name]) for name in copy)


def test_numbers_are_mixed_by_their_squared_error() -> None:
    truth = torch.linspace(-2, 2, 400)[:, None]
    forecasts = torch.stack([truth + 0.1, -truth])
    losses = (forecasts - truth).square().sum(-1) / 2
    after = Mixer().learned(fresh(2, 1), forecasts, truth, losses, torch.ones(losses.shape[1]), classes=False)
    mixed = Mixer().mixed(after, forecasts, classes=False)
    assert float((mixed - truth).square().mean()) < 0.3


@given(st.lists(st.floats(-8, 0), min_size=12, max_size=12), st.integers(0, 2))
def test_a_mixture_is_a_distribution(logs: list[float], truth: int) -> None:
    forecasts = torch.tensor(logs).view(4, 1, 3).log_softmax(-1)
    codes = torch.eye(3)[[truth]]
    losses = -(forecasts * codes).sum(-1)
    after = Mixer().learned(fresh(4, 3), forecasts, codes, losses, torch.ones(losses.shape[1]), classes=True)
    mixed = Mixer().mixed(after, forecasts, classes=True)
    assert torch.allclose(mixed.exp().sum(1), torch.ones(1), atol=1e-5)
    assert torch.allclose(after["hedge"].exp().sum(), torch.ones(()), atol=1e-5)
