"""What Evidently's `DataDriftPreset` decides, without the report around it.

The preset picks a test for each column (`get_stattest`) and applies its default threshold; that is called here. A test
compares this with the preset itself.
"""

import sys

import pandas as pd
from evidently.legacy.calculations.stattests import get_stattest
from evidently.legacy.core import ColumnType

from tests.bench.drift import worker
from tests.bench.drift.detectors import Rows, categorical


class Preset:
    """The columns that it calls drifted."""

    remembers = False

    def __init__(self) -> None:
        self._reference: dict[str, tuple[pd.Series, ColumnType]] = {}

    def fit(self, reference: Rows) -> None:
        self._reference = {
            name: (pd.Series(values), ColumnType.Categorical if categorical(values) else ColumnType.Numerical)
            for name, values in reference.items()
        }

    def alarm(self, window: Rows) -> set[str]:
        return {name for name, values in window.items() if self._changed(name, pd.Series(values))}

    def _changed(self, name: str, window: pd.Series) -> bool:
        reference, kind = self._reference[name]
        return bool(get_stattest(reference, window, kind, None)(reference, window, kind, None).drifted)


def build(name: str, rows: int) -> Preset:
    return Preset()


if __name__ == "__main__":
    worker.main(sys.argv[1], build)
