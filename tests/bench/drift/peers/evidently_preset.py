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
        self._reference: dict[str, pd.Series] = {}

    def fit(self, reference: Rows) -> None:
        self._reference = {name: pd.Series(values) for name, values in reference.items()}

    def alarm(self, window: Rows) -> set[str]:
        return {name for name, values in window.items() if self._changed(name, pd.Series(values))}

    def _changed(self, name: str, window: pd.Series) -> bool:
        reference = self._reference[name]
        kind = ColumnType.Categorical if categorical(reference.to_numpy().astype(window.dtype)) else ColumnType.Numerical
        return bool(get_stattest(reference, window, kind, None)(reference, window, kind, None).drifted)


def build(name: str, rows: int) -> Preset:
    return Preset()


if __name__ == "__main__":
    worker.main(sys.argv[1], build)
