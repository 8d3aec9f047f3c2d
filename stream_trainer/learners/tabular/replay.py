"""The newest rows: neighbours are found among them, and they are learned again beside new ones (Lin 1992).

What is kept is what was seen: the inputs of then (label memory, scaled columns, 1) and the coded label.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Generator, Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """Options. Tensors: `rows [n, width]`, `codes [n, size]` and `weights [n]` for serving, `memory [n, memory]` for training.

    Attributes:
        kept: how many of the newest rows are kept.
        drawn: how many of them are learned again in each step.
    """

    kept: int = 1_000
    drawn: int = 32

    def fresh(self, width: int, memory: int, size: int) -> dict[str, Tensor]:
        """Before the first row."""
        return {
            "rows": torch.zeros(0, width),
            "codes": torch.zeros(0, size),
            "weights": torch.zeros(0),
            "memory": torch.zeros(0, memory),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Rows in log order: `old` kept ones, then a new block.

    Attributes:
        inputs: float32 `[old + new, memory + width + 1]`.
        codes: float32 `[old + new, size]`.
        weights: how much each row counts, float32 `[old + new]`.
        old: how many of them are not new.
    """

    inputs: Tensor
    codes: Tensor
    weights: Tensor
    old: int

    @classmethod
    def of(cls, recent: Mapping[str, Tensor], inputs: Tensor, codes: Tensor, weights: Tensor) -> "Rows":
        """Kept rows and a new block after them."""
        old = len(recent["codes"])
        kept = torch.cat([recent["memory"], recent["rows"], torch.ones(old, 1)], 1)
        return cls(
            inputs=torch.cat([kept, inputs]),
            codes=torch.cat([recent["codes"], codes]),
            weights=torch.cat([recent["weights"], weights]),
            old=old,
        )

    def since(self, start: int, keep: int) -> "Rows":
        """Without the new rows before `start`; of the old ones the newest `keep` are left."""
        first = self.old + start if start else max(0, self.old - keep)
        return self._cut(slice(first, None), max(0, self.old - first))

    def without(self, start: int, stop: int) -> "Rows":
        """Without the rows from `start` to before `stop`, counted from the newest: the newest of all is row 0."""
        total = len(self.codes)
        first, last = total - stop, total - start
        old = self.old - max(0, min(self.old, last) - min(self.old, first))
        kept = [torch.cat([whole[:first], whole[last:]]) for whole in (self.inputs, self.codes, self.weights)]
        return Rows(inputs=kept[0], codes=kept[1], weights=kept[2], old=old)

    def all_new(self) -> "Rows":
        """The same rows, none of them old."""
        return self._cut(slice(None), 0)

    def _cut(self, piece: slice, old: int) -> "Rows":
        return Rows(inputs=self.inputs[piece], codes=self.codes[piece], weights=self.weights[piece], old=old)

    def kept(self, replay: Replay, memory: int) -> dict[str, Tensor]:
        """The newest rows as tensors that share no memory."""
        newest = self.inputs[-replay.kept :]
        return {
            "rows": newest[:, memory:-1].clone(),
            "codes": self.codes[-replay.kept :].clone(),
            "weights": self.weights[-replay.kept :].clone(),
            "memory": newest[:, :memory].clone(),
        }

    def steps(
        self, replay: Replay, size: int, generator: Generator, *, again: bool
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """One pass over the new rows: inputs, codes and weights of each step, `size` new rows and `replay.drawn` older ones.

        Those are drawn uniformly from the `kept` before the step; from the newest of all in a pass that comes `again`.
        Without old rows there is none.
        """
        total = len(self.codes)
        starts = torch.arange(self.old, total, size)
        which = starts[:, None] + torch.arange(size)
        if self.old and replay.drawn:
            ends = torch.full_like(starts, total) if again else starts
            begins = (ends - replay.kept).clamp(min=0)
            chance = torch.rand(len(starts), replay.drawn, generator=generator, dtype=torch.float64)
            drawn = (begins[:, None] + chance * (ends - begins)[:, None]).long()
            which = torch.cat([which, drawn], 1)
        full = (total - self.old) // size
        yield from zip(self.inputs[which[:full]], self.codes[which[:full]], self.weights[which[:full]], strict=True)
        if full < len(starts):
            left = torch.cat([which[full, : total - self.old - full * size], which[full, size:]])
            yield self.inputs[left], self.codes[left], self.weights[left]
