"""What an expert's outputs mean for a kind of label: how labels are coded, how outputs become forecasts, what they cost.

An expert's *forecast* is a log probability for each class, or a standardised number. Labels are *coded* as one-hot rows,
or as one standardised number. Nothing here knows an expert or keeps a state.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from stream_trainer.features import FeatureSpec, Standardiser

_FLOOR = -8.0
_WIDEST = 8.0
_HUBER = 1.0


class Head(Protocol):
    """A kind of label."""

    @property
    def size(self) -> int:
        """How many outputs an expert has, and how many values a coded label."""
        ...

    def fresh(self) -> dict[str, Tensor]:
        """What is known of the labels before the first."""
        ...

    def update(self, known: Mapping[str, Tensor], labels: Tensor) -> dict[str, Tensor]:
        """What is known of the labels after some more, float64 `[rows]`."""
        ...

    def code(self, known: Mapping[str, Tensor], labels: Tensor) -> Tensor:
        """Labels float64 `[rows]` as float32 `[rows, size]`."""
        ...

    def centre(self, codes: Tensor) -> Tensor:
        """Codes with a mean of about 0, for use as features."""
        ...

    def forecast(self, outputs: Tensor) -> Tensor:
        """Raw outputs `[…, size]` of an expert as forecasts."""
        ...

    def gradient(self, outputs: Tensor, codes: Tensor) -> Tensor:
        """The gradient of each row's loss by its raw outputs."""
        ...

    def losses(self, forecasts: Tensor, codes: Tensor) -> Tensor:
        """The loss of each row: `[…, rows, size]` to `[…, rows]`."""
        ...

    def misses(self, forecast: Tensor, codes: Tensor, usual: float) -> Tensor:
        """Per row 1.0 where the forecast was wrong; for numbers, wrong by over twice `usual`."""
        ...

    def outputs(self, known: Mapping[str, Tensor], forecast: Tensor) -> Tensor:
        """A forecast `[rows, size]` as the outputs that a learner returns."""
        ...


@dataclass(frozen=True, slots=True)
class Classes:
    """Classes, two or more: softmax and log loss. Forecasts are floored at e⁻⁸."""

    size: int
    binary: bool

    def fresh(self) -> dict[str, Tensor]:
        """See `Head.fresh`."""
        return {}

    def update(self, known: Mapping[str, Tensor], labels: Tensor) -> dict[str, Tensor]:  # noqa: ARG002 - of the protocol
        """See `Head.update`."""
        return {}

    def code(self, known: Mapping[str, Tensor], labels: Tensor) -> Tensor:  # noqa: ARG002 - of the protocol
        """See `Head.code`."""
        return functional.one_hot(labels.long(), self.size).to(torch.float32)

    def centre(self, codes: Tensor) -> Tensor:
        """See `Head.centre`."""
        return codes - 1.0 / self.size

    def forecast(self, outputs: Tensor) -> Tensor:
        """See `Head.forecast`."""
        return outputs.log_softmax(-1).clamp_(min=_FLOOR)

    def gradient(self, outputs: Tensor, codes: Tensor) -> Tensor:
        """See `Head.gradient`."""
        return outputs.softmax(-1).sub_(codes)

    def losses(self, forecasts: Tensor, codes: Tensor) -> Tensor:
        """See `Head.losses`."""
        return -(forecasts * codes).sum(-1)

    def misses(self, forecast: Tensor, codes: Tensor, usual: float) -> Tensor:  # noqa: ARG002 - of the protocol
        """See `Head.misses`."""
        return (forecast.argmax(1) != codes.argmax(1)).to(torch.float32)

    def outputs(self, known: Mapping[str, Tensor], forecast: Tensor) -> Tensor:  # noqa: ARG002 - of the protocol
        """See `Head.outputs`."""
        chances = forecast.softmax(1)
        return chances[:, 1].contiguous() if self.binary else chances


@dataclass(frozen=True, slots=True)
class Number:
    """A number: experts forecast it standardised and learn by the Huber loss (Huber 1964), so that no label is too far off.

    Mean and spread follow the labels robustly: see `Standardiser.update`.
    """

    window: int
    size: int = 1

    def fresh(self) -> dict[str, Tensor]:
        """See `Head.fresh`."""
        return Standardiser.fresh(1).tensors()

    def update(self, known: Mapping[str, Tensor], labels: Tensor) -> dict[str, Tensor]:
        """See `Head.update`."""
        return self._scale(known).update(labels[:, None], robust=True).tensors()

    def code(self, known: Mapping[str, Tensor], labels: Tensor) -> Tensor:
        """See `Head.code`."""
        return self._scale(known).scale(labels[:, None], (True,), clip=_WIDEST)

    def centre(self, codes: Tensor) -> Tensor:
        """See `Head.centre`."""
        return codes

    def forecast(self, outputs: Tensor) -> Tensor:
        """See `Head.forecast`."""
        return outputs.clamp(-_WIDEST, _WIDEST)

    def gradient(self, outputs: Tensor, codes: Tensor) -> Tensor:
        """See `Head.gradient`."""
        return (outputs - codes).clamp_(-_HUBER, _HUBER)

    def losses(self, forecasts: Tensor, codes: Tensor) -> Tensor:
        """See `Head.losses`: half the squared error."""
        return (forecasts - codes).square().sum(-1) / 2.0

    def misses(self, forecast: Tensor, codes: Tensor, usual: float) -> Tensor:
        """See `Head.misses`."""
        return ((forecast - codes).abs()[:, 0] > 2.0 * usual).to(torch.float32)

    def outputs(self, known: Mapping[str, Tensor], forecast: Tensor) -> Tensor:
        """See `Head.outputs`."""
        scale = self._scale(known)
        return (forecast[:, 0].double() * scale.deviation() + scale.mean).to(torch.float32)

    def _scale(self, known: Mapping[str, Tensor]) -> Standardiser:
        return Standardiser.from_tensors(known, window=self.window)


def head_of(spec: FeatureSpec, window: int) -> Head:
    """The head of a spec's task; `window` rows of labels count for a numeric label's mean and spread."""
    match spec.task:
        case "binary":
            return Classes(2, binary=True)
        case "multiclass":
            return Classes(spec.outputs, binary=False)
        case "regression":
            return Number(window)
