"""A response to drift is tried before it is made: what it would do with most rows since the drift, judged by the others.

An alarm may be false: labels become noisier for a while, or rows harder, and nothing has to be forgotten. So two sets
of experts learn a part of what came since the alleged drift, one by responding and one as usual. The response
is made if its best expert forecasts the rest better, by more than chance explains.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from stream_trainer.learners.tabular.replay import Rows

# Forecasts `[experts, rows, size]` for inputs, after experts have learned rows in one of both ways.
Forecasts = Callable[[Rows, Tensor], Tensor]
Losses = Callable[[Tensor, Tensor], Tensor]
_SURENESS = (1.0, 0.7, 0.5, 0.35, 0.25, 0.1)
_RARE = 0.02
_SHIFTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """Options.

    Attributes:
        judges: the part of the rows since the drift that judges what was learned from the others.
        turns: so many parts judge by turns, the newest ones (cross-validation, Stone 1974).
        fewest: rows on either side; with fewer there is no trial and no response.
        sure: so many standard errors of the rows' differences a response has to be better.
    """

    judges: float = 0.33
    turns: int = 2
    fewest: int = 16
    sure: float = 1.5

    def won(self, since: Rows, rows: Rows, *, responding: Forecasts, usual: Forecasts, losses: Losses) -> bool:
        """Whether a response does better on rows of `since` than learning the others as usual; see `losses`."""
        return self.losses(since, rows, responding=responding, usual=usual, losses=losses) is not None

    def losses(
        self, since: Rows, rows: Rows, *, responding: Forecasts, usual: Forecasts, losses: Losses
    ) -> Tensor | None:
        """The losses of the judging rows, part by part, after a response that does better than the usual; else None.

        Either way learns all of `since`, or of `rows`, but those that judge, from where it stands before the block.
        """
        total = len(since.codes)
        judging = int(total * self.judges)
        if judging < self.fewest or total - judging < self.fewest:
            return None
        turns = [slice(judging * turn, min(judging * (turn + 1), total)) for turn in reversed(range(self.turns))]
        best = []
        for way, part in ((responding, since), (usual, rows)):
            found = [_lost(way, since, part, turn, losses) for turn in turns]
            best.append(_best(torch.cat(found, 1)))
        gain = best[1] - best[0]
        return best[0] if bool(gain.mean() > self.sure * gain.std() / len(gain) ** 0.5) else None


def _lost(way: Forecasts, since: Rows, part: Rows, turn: slice, losses: Losses) -> Tensor:
    """Losses `[forecasts, judging]` of a way that learns all of `part` but the rows `turn`, counted from the newest."""
    total = len(since.codes)
    inputs, codes, counts = (
        whole[total - turn.stop : total - turn.start] for whole in (since.inputs, since.codes, since.weights)
    )
    return losses(lenient(way(part.without(turn.start, turn.stop), inputs), codes), codes) * counts


def _best(losses: Tensor) -> Tensor:
    """Each row's loss `[rows]` of the expert whose mean loss is least, of `[experts, rows]`."""
    return losses[int(losses.mean(1).argmin())]


def lenient(forecasts: Tensor, codes: Tensor) -> Tensor:
    """The forecasts, and the same less sure and shifted: the mixture learns that without anything being forgotten.

    The shift is to the judging rows' own frequencies (as in Saerens, Latinne and Decaestecker 2002), or to their mean.
    """
    if forecasts.shape[2] == 1:
        return torch.cat([forecasts, forecasts + (codes - forecasts).mean(1, keepdim=True)])
    shifted = forecasts
    for _ in range(_SHIFTS):
        usual = shifted.exp().mean(1, keepdim=True)
        shifted = (shifted + ((codes.mean(0) + _RARE) / (usual + _RARE)).log()).log_softmax(-1)
    return torch.cat([(either * sure).log_softmax(-1) for either in (forecasts, shifted) for sure in _SURENESS])
