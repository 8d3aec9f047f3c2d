"""River's detectors, one a number, fed row by row; they know no categories. It runs in an environment of its own."""

import sys
from typing import Any

from river import drift

from tests.bench.drift import worker
from tests.bench.drift.detectors import Rows, categorical

_SEED = 1
_WARM_UP = 200  # rows of the reference that KSWIN sees: twice its window; a row costs it 0.2 ms


class River:
    """A detector of each column goes on from window to window, as it is meant to."""

    remembers = True

    def __init__(self, name: str) -> None:
        self._name = name
        self._detectors: dict[str, Any] = {}

    def fit(self, reference: Rows) -> None:
        for name, values in reference.items():
            if not categorical(values):
                self._detectors[name] = drift.KSWIN(seed=_SEED) if self._name == "kswin" else drift.ADWIN()
        warm = -_WARM_UP if self._name == "kswin" else 0
        self.alarm({name: reference[name][warm:] for name in self._detectors})

    def alarm(self, window: Rows) -> set[str]:
        return {n for n, values in window.items() if n in self._detectors and self._fed(self._detectors[n], values)}

    @staticmethod
    def _fed(detector: Any, values: Any) -> bool:
        found = False
        for value in values.tolist():
            detector.update(value)
            found |= bool(detector.drift_detected)
        return found


def build(name: str, rows: int) -> River:
    return River(name)


if __name__ == "__main__":
    worker.main(sys.argv[1], build)
