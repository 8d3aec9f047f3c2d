"""Whether a net from a mould is what `copy.deepcopy` and `load_state_dict` make, and shares nothing that can change."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stream_trainer.features import FeatureSpec
from stream_trainer.learners.mould import Mould, unique_tensors
from stream_trainer.learners.sgd import mlp

SPEC = FeatureSpec(columns=tuple("abcd"), scaled=(True,) * 4, task="binary", outputs=1)
ROWS = torch.arange(12, dtype=torch.float32).reshape(3, 4) / 7
ATOMS = (type(None), bool, int, float, str, torch.Size, torch.dtype)


class Tied(nn.Module):
    """One matrix under two names, one layer under two names, a buffer of each kind, a parameter that is frozen."""

    offset: Tensor
    fixed: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        self.second.weight = self.first.weight
        self.again = self.layer = nn.Linear(4, 4)
        self.layer.bias.requires_grad = False
        self.act = torch.tanh
        self.missing = None
        self.register_buffer("offset", torch.ones(4))
        self.register_buffer("fixed", torch.full((4,), 3.0), persistent=False)
        self.register_parameter("absent", None)

    def forward(self, rows: Tensor) -> Tensor:
        found: Tensor = self.act(self.again(self.layer(self.second(self.first(rows))))) + self.offset * self.fixed
        return found


class Listing(nn.Module):
    """Reaches its layers past torch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)
        self.layers = [self.layer]
        self.cache: dict[str, Tensor] = {}

    def forward(self, rows: Tensor) -> Tensor:
        if "weight" not in self.cache:
            self.cache["weight"] = self.layers[0].weight * 2
        return rows @ self.cache["weight"].T


class Loading(nn.Linear):
    """Loads in a way of its own."""

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        super()._load_from_state_dict({name: t * 2 for name, t in state_dict.items()}, prefix, *args)


class Copying(nn.Linear):
    """Is copied in a way of its own."""

    def __deepcopy__(self, memo: Any) -> "Copying":
        copied = Copying(4, 1)
        copied.forward = lambda rows: torch.zeros(len(rows))  # type: ignore[assignment,method-assign]
        return copied


def hooked() -> nn.Module:
    net = nn.Linear(4, 1)
    net.register_forward_hook(lambda _module, _rows, found: found + 1)
    return net


def overlapping() -> nn.Module:
    net = nn.Linear(4, 1)
    both = torch.zeros(8)
    net.register_buffer("low", both[:4])
    net.register_buffer("high", both[2:6])
    return net


SIMPLE: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: mlp(SPEC),
    "sequence": lambda: nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 1)),
    "tied": Tied,
}
OTHER: dict[str, Callable[[], nn.Module]] = {
    "list": Listing,
    "loading": lambda: Loading(4, 1),
    "copying": lambda: Copying(4, 1),
    "hook": hooked,
    "norm": lambda: nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1)),
    "parametrized": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 1)),
    "overlapping": overlapping,
}
ALL = SIMPLE | OTHER


def usual(net: nn.Module, tensors: dict[str, Tensor]) -> nn.Module:
    """What a mould stands for."""
    copied = copy.deepcopy(net)
    copied.load_state_dict(tensors, strict=False)
    return copied


def others(net: nn.Module) -> dict[str, Tensor]:
    return {name: torch.rand(t.shape).to(t.dtype) for name, t in unique_tensors(net)}


def held(thing: Any, seen: dict[int, Any]) -> Iterator[Any]:
    """Everything that can change and hangs on a net."""
    if isinstance(thing, ATOMS) or (callable(thing) and not isinstance(thing, nn.Module)) or id(thing) in seen:
        return
    seen[id(thing)] = thing
    if not isinstance(thing, tuple):
        yield thing
    if isinstance(thing, nn.Module):
        yield from held(vars(thing), seen)
    elif isinstance(thing, dict):
        for value in thing.values():
            yield from held(value, seen)
    elif isinstance(thing, list | tuple | set):
        for value in thing:
            yield from held(value, seen)


def memory(net: nn.Module) -> set[int]:
    found = [*held(net, {})]
    return {id(thing) for thing in found} | {t.untyped_storage().data_ptr() for t in found if isinstance(t, Tensor)}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("training", [True, False])
def test_it_makes_what_deepcopy_makes(name: str, *, training: bool) -> None:
    torch.manual_seed(1)
    net = ALL[name]().train(training)
    before = copy.deepcopy(net.state_dict())
    mould, tensors = Mould(net), others(net)
    assert list(mould.tensors) == [key for key, _ in unique_tensors(net)]
    made, expected = mould.net(tensors), usual(net, tensors)
    assert type(made) is type(net)
    assert [(n, type(m), m.training) for n, m in made.named_modules()] == [
        (n, type(m), m.training) for n, m in expected.named_modules()
    ]
    for kind in ("named_parameters", "named_buffers"):
        for (n, found), (m, wanted) in zip(getattr(made, kind)(), getattr(expected, kind)(), strict=True):
            assert (n, type(found), found.requires_grad) == (m, type(wanted), wanted.requires_grad)
            assert torch.equal(found, wanted)
    assert made.state_dict().keys() == expected.state_dict().keys()
    assert torch.equal(made.eval()(ROWS), expected.eval()(ROWS))
    assert all(torch.equal(net.state_dict()[key], value) for key, value in before.items())


@pytest.mark.parametrize("name", ALL)
def test_no_two_nets_share_anything_that_can_change(name: str) -> None:
    net = ALL[name]()
    mould, tensors = Mould(net), others(net)
    first, second = mould.net(tensors), mould.net(tensors)
    held_by = [memory(one) for one in (net, first, second)]
    held_by.append({t.untyped_storage().data_ptr() for t in tensors.values()})
    assert not any(a & b for i, a in enumerate(held_by) for b in held_by[i + 1 :])


def test_ties_are_kept() -> None:
    net = Tied()
    made = Mould(net).net(others(net))
    assert isinstance(made, Tied)
    assert made.first.weight is made.second.weight
    assert made.again is made.layer
    loss = made(ROWS).sum()
    loss.backward()
    assert made.first.weight.grad is not None
    assert made.layer.bias.grad is None


@pytest.mark.parametrize("name", ALL)
def test_what_is_not_simple_is_left_to_deepcopy(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net = ALL[name]()
    copies: list[Any] = []

    def noted(thing: Any, memo: Any = None) -> Any:
        if memo is None:
            copies.append(thing)
        return real(thing, memo)

    real = copy.deepcopy
    mould, tensors = Mould(net), others(net)
    monkeypatch.setattr("stream_trainer.learners.mould.copy.deepcopy", noted)
    mould.net(tensors)
    assert copies == ([] if name in SIMPLE else [net])
