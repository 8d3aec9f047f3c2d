"""What `Sgd` is made of unless it is told otherwise: a net, an optimiser, a loss."""

import itertools
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from stream_trainer.contract import Task
from stream_trainer.features import FeatureSpec

NetBuilder = Callable[[FeatureSpec], nn.Module]
OptimizerBuilder = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
Loss = Callable[[Tensor, Tensor], Tensor]


def mlp(spec: FeatureSpec, hidden: tuple[int, ...] = (64, 32)) -> nn.Module:
    """A plain ReLU net with a linear skip: `[rows, spec.width]` to logits `[rows, spec.outputs]`."""
    return _SkipMlp(spec.width, hidden, spec.outputs)


class _SkipMlp(nn.Module):
    def __init__(self, width: int, hidden: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        sizes = (width, *hidden)
        layers: list[nn.Module] = []
        for size, following in itertools.pairwise(sizes):
            layers += [nn.Linear(size, following), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.Linear(sizes[-1], outputs))
        self.skip = nn.Linear(width, outputs, bias=False)
        nn.init.zeros_(self.skip.weight)

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.body(features) + self.skip(features)
        return logits


def adamw(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The default optimiser."""
    return torch.optim.AdamW(parameters, lr=2e-3, weight_decay=1e-3, fused=True)


def default_loss(task: Task) -> Loss:
    """Mean loss of logits `[rows, outputs]` against labels `[rows]`: log loss, or squared error for numbers."""
    match task:
        case "binary":
            return lambda logits, labels: functional.binary_cross_entropy_with_logits(logits[:, 0], labels)
        case "multiclass":
            return lambda logits, labels: functional.cross_entropy(logits, labels.long())
        case "regression":
            return lambda logits, labels: functional.mse_loss(logits[:, 0], labels)
