"""Our monitor among the others: counts in frozen bins, all columns decided together, blocks of windows at four scales."""

import sys
from datetime import timedelta

import numpy as np
from numpy.typing import NDArray

from monitors import deciding, scales
from monitors.deciding import Question, Round
from monitors.scales import Blocks
from stream_trainer.monitoring import Monitoring
from tests.bench.drift import worker
from tests.bench.drift.contestants import OURS_MONTH
from tests.bench.drift.detectors import Rows, categorical

_QUANTILES = 128
_MONTH = Monitoring(window=timedelta(minutes=5), false_alarm_every=timedelta(days=30))
Counts = NDArray[np.int64]
Counted = dict[str, Counts]


class Ours:
    """Blocks are kept between windows, so it remembers."""

    remembers = True

    def __init__(self, per_window: float) -> None:
        self._budgets = scales.budgets(per_window)
        self._bins: dict[str, NDArray[np.float64] | list[str]] = {}
        self._reference: Counted = {}
        self._blocks: Blocks[Counted] = Blocks()
        self._index = 0

    def fit(self, reference: Rows) -> None:
        for name, values in reference.items():
            cuts = np.arange(1, _QUANTILES) / _QUANTILES
            self._bins[name] = (
                sorted(set(values.tolist())) if categorical(values) else np.unique(np.quantile(values, cuts))
            )
        self._reference = self._counted(reference)

    def alarm(self, window: Rows) -> set[str]:
        self._blocks, due = scales.advance(self._blocks, self._index, self._counted(window), key="bench", add=_add)
        self._index += 1
        found: set[str] = set()
        for block in due:
            round_ = Round(budget=self._budgets[block.scale], windows=block.windows)
            findings = deciding.decide([self._question(name, counts) for name, counts in block.content.items()], round_)
            found |= {finding.feature for finding in findings if finding.state == "drift"}
        return found

    def _counted(self, rows: Rows) -> Counted:
        found = {}
        for name, values in rows.items():
            bins = self._bins[name]
            if isinstance(bins, list):
                places = {word: i for i, word in enumerate(bins)}
                codes = np.array([places.get(word, len(bins)) for word in values.tolist()])
            else:
                codes = np.searchsorted(bins, values, side="right")
            found[name] = np.bincount(codes, minlength=len(bins) + 1).astype(np.int64)
        return found

    def _question(self, name: str, counts: Counts) -> Question:
        return Question(
            kind="drift",
            feature=name,
            against="baseline",
            window=counts,
            reference=self._reference[name],
            names=[str(i) for i in range(len(counts))],
            ordered=not isinstance(self._bins[name], list),
        )


def _add(older: Counted, newer: Counted) -> Counted:
    return {name: older[name] + newer[name] for name in older}


def build(name: str, rows: int) -> Ours:
    return Ours(_MONTH.false_alarms_per_window if name == OURS_MONTH else float(name))


if __name__ == "__main__":
    worker.main(sys.argv[1], build)
