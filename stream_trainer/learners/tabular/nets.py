"""An ensemble of small nets that differ in their learning rate, computed as one: no rate suits every stream and every moment.

Each is one layer of ReLU units beside a linear skip, trained with Adam (Kingma and Ba 2015). All first layers and skips
are one matrix product; the backward pass is written out, which is several times faster than autograd at this size.
A running mean of each net's weights forecasts too (Polyak and Juditsky 1992): steadier where little changes.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Generator, Tensor

from stream_trainer.learners.tabular.heads import Head

_FIRST, _SECOND, _EPSILON = 0.9, 0.99, 1e-6
# Moments below this are 0: they would decay into denormal numbers, which are slow, and mean nothing.
_NOTHING = 1e-18
_CLEAN_EVERY = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Nets:
    """Options. Tensors: `first [width, nets, hidden + size]` (the last `size` are the skip) and `second [nets, hidden, size]`.

    With averages, `average_first` and `average_second` of the same shapes beside them.

    Attributes:
        rates: Adam's learning rate of each net.
        blind: whether each net goes without the label memory; given by turns.
        hidden: ReLU units of each net.
        average: how much of each step's weights their running mean takes in; 0 for no mean.
    """

    rates: tuple[float, ...] = (1e-3, 3e-3, 1e-2, 3e-2)
    blind: tuple[bool, ...] = (False, True)
    hidden: int = 64
    average: float = 0.03

    @property
    def experts(self) -> int:
        """How many forecasts there are."""
        return len(self.rates) * (2 if self.average else 1)

    def fresh(self, width: int, memory: int, size: int, generator: Generator) -> dict[str, Tensor]:
        """New weights for inputs of `width` columns, of which the first `memory` are the label memory's and the last is 1."""
        nets, hidden = len(self.rates), self.hidden
        first = torch.zeros(width, nets, hidden + size)
        first[:, :, :hidden] = torch.randn(width, nets, hidden, generator=generator) / math.sqrt(width - memory)
        first[-1, :, :hidden] = torch.rand(nets, hidden, generator=generator) * 2.0 - 1.0
        first *= self.sees(width, memory)[:, :, None]
        second = torch.randn(nets, hidden, size, generator=generator) * (0.3 / math.sqrt(hidden))
        net = {"first": first, "second": second}
        return net | _averages(first, second) if self.average else net

    def outputs(self, net: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        """Raw outputs `[experts, rows, size]` for inputs `[rows, width]`: the nets', then those of their averages."""
        first, second = net["first"], net["second"]
        if self.average:
            first = torch.cat([first, net["average_first"]], 1)
            second = torch.cat([second, net["average_second"]])
        layer = (rows @ first.flatten(1)).view(len(rows), *first.shape[1:]).transpose(0, 1)
        hidden = layer[:, :, : self.hidden].clamp(min=0.0)
        return torch.baddbmm(layer[:, :, self.hidden :], hidden, second)

    def sees(self, width: int, memory: int) -> Tensor:
        """1 where a net sees an input, else 0: `[width, nets]`."""
        sees = torch.ones(width, len(self.rates))
        for index in range(len(self.rates)):
            if self.blind and self.blind[index % len(self.blind)]:
                sees[:memory, index] = 0.0
        return sees


@lru_cache(maxsize=64)
def _slowness(nets: Nets, width: int, memory: int, size: int) -> Tensor:
    """One over the learning rate of each weight, in the order of `Training`; infinite where a net is blind."""
    rates = torch.tensor(nets.rates)[None, :, None]
    first = (rates * nets.sees(width, memory)[:, :, None]).expand(width, len(nets.rates), nets.hidden + size)
    second = rates[0, :, :, None].expand(len(nets.rates), nets.hidden, size)
    return torch.cat([first.flatten(), second.flatten()]).reciprocal_()


def _averages(first: Tensor, second: Tensor) -> dict[str, Tensor]:
    return {"average_first": first.clone(), "average_second": second.clone()}


def fresh_moments(net: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Adam's state before the first step: `moments [2, weights]` and `steps []`."""
    weights = net["first"].numel() + net["second"].numel()
    return {"moments": torch.zeros(2, weights), "steps": torch.zeros((), dtype=torch.int64)}


class Training:
    """The nets while they learn: copies of the given tensors, in one block, and room for what a step needs.

    Steps are `pace` times as long as the nets' rates say.
    """

    def __init__(
        self,
        nets: Nets,
        net: Mapping[str, Tensor],
        moments: Mapping[str, Tensor],
        head: Head,
        memory: int,
        *,
        pace: float = 1.0,
    ) -> None:
        self._nets = nets
        self._head = head
        self._hidden = nets.hidden
        self._pace = pace
        first, second = net["first"], net["second"]
        self._at = first.numel()
        self.before = torch.cat([first.flatten(), second.flatten()])
        self.weights = self.before.clone()
        self._average: Tensor | None = None
        if nets.average:
            self._average = torch.cat([net["average_first"].flatten(), net["average_second"].flatten()])
        self._moments = moments["moments"].clone()
        self._taken = int(moments["steps"])
        self._gradient = torch.empty_like(self.weights)
        self._room = torch.empty_like(self.weights)
        self._slowness = _slowness(nets, len(first), memory, head.size)
        self._first, self._second = self._views(self.weights, first, second)
        self._first_gradient, self._second_gradient = self._views(self._gradient, first, second)
        self._first_flat = self._first.view(len(first), -1)
        self._first_gradient_flat = self._first_gradient.view(len(first), -1)
        self.norms: list[Tensor] = []

    def step(self, rows: Tensor, codes: Tensor, weights: Tensor) -> None:
        """One step of all nets on inputs `[rows, width]`, coded labels `[rows, size]` and what each row counts `[rows]`."""
        hidden = self._hidden
        layer = (rows @ self._first_flat).view(len(rows), *self._first.shape[1:])
        by_net = layer.transpose(0, 1)
        units = by_net[:, :, :hidden].clamp(min=0.0)
        outputs = torch.baddbmm(by_net[:, :, hidden:], units, self._second)
        gradient = self._head.gradient(outputs, codes).mul_((weights / len(rows))[:, None])
        torch.bmm(units.transpose(1, 2), gradient, out=self._second_gradient)
        back = torch.bmm(gradient, self._second.transpose(1, 2))
        torch.mul(back, units.sign_(), out=by_net[:, :, :hidden])
        by_net[:, :, hidden:] = gradient
        torch.mm(rows.T, layer.view(len(rows), -1), out=self._first_gradient_flat)
        self.norms.append(torch.linalg.vector_norm(self._gradient))
        self._adam()
        if self._average is not None:
            self._average.lerp_(self.weights, max(self._nets.average, 1.0 / self._taken))

    def _adam(self) -> None:
        self._taken += 1
        mean, square = self._moments
        mean.lerp_(self._gradient, 1.0 - _FIRST)
        square.mul_(_SECOND).addcmul_(self._gradient, self._gradient, value=1.0 - _SECOND)
        unbias = math.sqrt(1.0 - _SECOND**self._taken)
        room = torch.sqrt(square, out=self._room).add_(_EPSILON * unbias).mul_(self._slowness)
        self.weights.addcdiv_(mean, room, value=-unbias / (1.0 - _FIRST**self._taken) * self._pace)
        if self._taken % _CLEAN_EVERY == 0:
            self._clean()

    def _clean(self) -> None:
        self._moments.masked_fill_(self._moments.abs() < _NOTHING, 0.0)

    def copy_best(self, rows: Tensor, codes: Tensor, weights: Tensor, margin: float) -> None:
        """Nets whose mean loss on these rows is `margin` above the best's take over its weights and moments.

        The running means begin anew.
        """
        forecasts = self._head.forecast(self._nets.outputs(self.tensors(), rows))[: len(self._nets.rates)]
        losses = self._head.losses(forecasts, codes).mul(weights).mean(1)
        best = int(losses.argmin())
        behind = (losses > losses[best] + margin).nonzero().flatten()
        for block in (self.weights, *self._moments):
            first, second = self._views(block, self._first, self._second)
            first[:, behind] = first[:, best : best + 1].clone()
            second[behind] = second[best].clone()
        if self._average is not None:
            self._average.copy_(self.weights)

    def tensors(self) -> dict[str, Tensor]:
        """The weights as they are now; they share no memory with what goes on being trained."""
        net = {"first": self._first.clone(), "second": self._second.clone()}
        if self._average is None:
            return net
        first, second = self._views(self._average, self._first, self._second)
        return net | _averages(first, second)

    def moments(self) -> dict[str, Tensor]:
        """Adam's state as it is now."""
        return {"moments": self._moments, "steps": torch.tensor(self._taken)}

    def _views(self, block: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        return block[: self._at].view(first.shape), block[self._at :].view(second.shape)
