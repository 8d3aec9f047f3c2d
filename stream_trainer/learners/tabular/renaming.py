"""Whether a block of wrong forecasts shows another concept, or the old one under other labels.

Labels that were exchanged, drawn by lot or set to one class look like an abrupt drift by their loss, and can be learned.
But the forecasts from before then fit them, once the classes are named anew and the forecasts are as sure as they should
be; after a change of concept they do not. `LossJump` takes the learner's word for a change only if this is shown.
"""

import torch
from torch import Tensor

from stream_trainer.learners.tabular.trial import Losses, lenient

_LEAST = 1e-3
# Nats a row: a gain that is sure but smaller shows nothing.
_WORTH = 0.05
# Standard errors of the rows' differences.
_SURE = 2.0


def is_new(before: Tensor, codes: Tensor, counts: Tensor, after: Tensor, *, losses: Losses) -> bool:
    """Whether learning some of the rows explains others better than the forecasts from before under any names, or a constant.

    Args:
        before: forecasts of classes `[rows, size]` by the state from before all rows.
        codes: the labels, coded `[rows, size]`.
        counts: what each row counts `[rows]`.
        after: the losses `[judging]` of the newest rows when forecast by what has learned others of them.
        losses: of forecasts and codes.
    """
    after = after[-len(codes) :]
    judging = len(after)
    names = _names(before, codes)
    newest = codes[-judging:]
    constant = newest.mean(0).clamp(min=_LEAST).log().expand_as(before)
    either = torch.stack([before, before[:, names], constant])[:, -judging:]
    found = losses(lenient(either, newest), newest) * counts[-judging:]
    gain = found[int(found.mean(1).argmin())] - after
    return bool(gain.mean() > _WORTH + _SURE * gain.std() / judging**0.5)


def _names(forecasts: Tensor, codes: Tensor) -> list[int]:
    """For each class the forecast class that is most often so labelled; one to one, the most frequent pair first."""
    size = codes.shape[1]
    pairs = torch.zeros(size, size).index_add_(0, forecasts.argmax(1), codes)
    names = [0] * size
    for _ in range(size):
        forecast, label = divmod(int(pairs.argmax()), size)
        names[label] = forecast
        pairs[forecast] = -1.0
        pairs[:, label] = -1.0
    return names
