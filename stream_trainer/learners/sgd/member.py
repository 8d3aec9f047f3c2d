"""A net and its optimiser while they learn, and the optimiser's state as named tensors.

Finiteness is checked before the step, because NaN passes `clip_grad_norm_`.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from stream_trainer.learners.mould import unique_tensors
from stream_trainer.learners.sgd.nets import Loss, OptimizerBuilder

_NUMBER = ":number"


class Member:
    """A net that is its own, with an optimiser that goes on from `moments`.

    Args:
        net: is changed.
        build: makes the optimiser.
        rate: the learning rate of all its parameters; None for that of the optimiser.
        moments: as `moments()` gave them.
        loss: mean loss of logits and labels.
        clip_norm: the gradient's global norm is clipped here.

    Raises:
        ValueError: `rate` is given to an optimiser with several learning rates, or none.
    """

    def __init__(
        self,
        net: nn.Module,
        build: OptimizerBuilder,
        rate: float | None,
        moments: Mapping[str, Tensor],
        *,
        loss: Loss,
        clip_norm: float,
    ) -> None:
        self._net = net.train()
        self._optimizer = build([p for p in net.parameters() if p.requires_grad])
        if rate is not None:
            _set_rate(self._optimizer, rate)
        _load(self._optimizer, moments)
        self._loss = loss
        self._clip_norm = clip_norm
        self._parameters = [one for group in self._optimizer.param_groups for one in group["params"]]
        self._before = [parameter.detach().clone() for parameter in self._parameters]

    def step(self, rows: Tensor, labels: Tensor, weights: Tensor | None, pace: float = 1.0) -> tuple[float, float]:
        """Loss and gradient norm before clipping; if either is not finite, no step was made. It is `pace` times as long."""
        self._optimizer.zero_grad(set_to_none=True)
        logits = self._net(rows)
        loss = self._loss(logits, labels) if weights is None else _weighted(self._loss, logits, labels, weights)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = float(nn.utils.clip_grad_norm_(self._parameters, self._clip_norm))
        value = float(loss.detach())
        if math.isfinite(value) and math.isfinite(norm):
            self._step(pace)
        return value, norm

    def _step(self, pace: float) -> None:
        if pace == 1.0:
            self._optimizer.step()
            return
        groups = self._optimizer.param_groups
        usual = [group["lr"] for group in groups]
        for group, rate in zip(groups, usual, strict=True):
            group["lr"] = rate * pace
        self._optimizer.step()
        for group, rate in zip(groups, usual, strict=True):
            group["lr"] = rate

    def logits(self, rows: Tensor) -> Tensor:
        """What the net says now, as it would serve."""
        self._net.eval()
        with torch.no_grad():
            found: Tensor = self._net(rows)
        self._net.train()
        return found

    def way(self) -> list[float]:
        """The squared lengths of the ways that the parameters went."""
        pairs = zip(self._before, self._parameters, strict=True)
        return [float((new.detach() - old).double().square().sum()) for old, new in pairs]

    def tensors(self) -> dict[str, Tensor]:
        """The net's tensors as they are now."""
        return {name: tensor.detach().clone().contiguous() for name, tensor in unique_tensors(self._net)}

    def moments(self) -> dict[str, Tensor]:
        """The optimiser's state as it is now."""
        tensors: dict[str, Tensor] = {}
        for index, slots in self._optimizer.state_dict()["state"].items():
            for name, value in slots.items():
                if isinstance(value, Tensor):
                    tensors[f"{index}.{name}"] = value.detach().clone().contiguous()
                elif value is not None:
                    tensors[f"{index}.{name}{_NUMBER}"] = torch.tensor(value, dtype=torch.float64)
        return tensors


def has_rates(optimizer: torch.optim.Optimizer) -> bool:
    """Whether every parameter is learned at a rate."""
    return all("lr" in group for group in optimizer.param_groups)


def _weighted(loss_of: Loss, logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """The sum of weighted losses over the number of rows; each row's loss is what `loss_of` says of it alone."""
    losses = [loss_of(logits[i : i + 1], labels[i : i + 1]) for i in range(len(labels))]
    return (torch.stack(losses) * weights).mean()


def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    found = {group.get("lr") for group in optimizer.param_groups}
    if len(found) != 1 or None in found:
        raise ValueError(f"`rates` needs an optimiser with one learning rate, this one has {sorted(map(str, found))}")
    for group in optimizer.param_groups:
        group["lr"] = rate


def _load(optimizer: torch.optim.Optimizer, moments: Mapping[str, Tensor]) -> None:
    slots: dict[int, dict[str, Any]] = {}
    for key, tensor in moments.items():
        index, name = key.split(".", 1)
        plain = name.removesuffix(_NUMBER)
        slots.setdefault(int(index), {})[plain] = tensor.item() if plain != name else tensor.clone()
    if slots:
        optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})
