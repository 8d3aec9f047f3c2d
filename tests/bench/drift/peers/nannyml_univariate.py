"""NannyML's univariate drift with its defaults: a chunk is a window. It runs in an environment of its own."""

import os

os.environ["NML_DISABLE_USAGE_LOGGING"] = "1"  # read on import

import sys
import warnings
from typing import Any

import nannyml
import pandas as pd

from tests.bench.drift import worker
from tests.bench.drift.detectors import Rows, categorical


class NannyML:
    """Jensen-Shannon distance of each column; thresholds of its own making, from chunks of the reference."""

    remembers = False

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._calculators: dict[str, Any] = {}

    def fit(self, reference: Rows) -> None:
        for name, values in reference.items():  # one each, so that a window may have some of the columns
            calculator = nannyml.UnivariateDriftCalculator(
                column_names=[name], treat_as_categorical=[name] if categorical(values) else [], chunk_size=self._rows
            )
            self._calculators[name] = calculator.fit(pd.DataFrame({name: values}))

    def alarm(self, window: Rows) -> set[str]:
        return {name for name, values in window.items() if self._changed(name, values)}

    def _changed(self, name: str, values: Any) -> bool:
        found = self._calculators[name].calculate(pd.DataFrame({name: values})).filter(period="analysis").to_df()
        return bool(found[name, "jensen_shannon", "alert"].any())


def build(name: str, rows: int) -> NannyML:
    warnings.simplefilter("ignore")
    return NannyML(rows)


if __name__ == "__main__":
    worker.main(sys.argv[1], build)
