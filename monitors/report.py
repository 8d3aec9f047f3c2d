"""An Evidently drift report as one HTML file: `python -m monitors.report --current … --reference … --out …`.

The only file that imports Evidently. It runs as a short process of its own (seconds of CPU, hundreds of megabytes),
niced, on a bounded sample, and kills itself when it takes too long. Columns that Evidently cannot digest are left out.
"""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from stream_trainer.reference import table_from_bytes

MISSING = "(missing)"


def usable_columns(current: pd.DataFrame, reference: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Numeric and text columns that both sides have and that hold at least one known value on each."""
    numeric: list[str] = []
    texts: list[str] = []
    for name in (n for n in reference.columns if n in current.columns):
        if current[name].isna().all() or reference[name].isna().all():
            continue
        both_numbers = all(pd.api.types.is_numeric_dtype(frame[name]) for frame in (current, reference))
        (numeric if both_numbers else texts).append(str(name))
    return numeric, texts


def write_report(current: pa.Table, reference: pa.Table, out: Path) -> list[str]:
    """Write the report and return the columns it covers.

    Raises:
        ValueError: no column can be compared.
    """
    frames = current.to_pandas(), reference.to_pandas()
    numeric, texts = usable_columns(*frames)
    now, before = (_clean(frame, numeric, texts) for frame in frames)
    if not numeric and not texts:
        raise ValueError("no column has known values on both sides")
    try:
        snapshot = _run(now, before, numeric, texts)
    except Exception:  # noqa: BLE001 - whatever one column does to Evidently must not cost the others
        numeric = [n for n in numeric if _works(now, before, [n], [])]
        texts = [n for n in texts if _works(now, before, [], [n])]
        snapshot = _run(now, before, numeric, texts)
    partial = out.with_suffix(".partial")
    snapshot.save_html(str(partial))
    partial.replace(out)
    return [*numeric, *texts]


def _clean(frame: pd.DataFrame, numeric: Sequence[str], texts: Sequence[str]) -> pd.DataFrame:
    numbers = {n: frame[n].astype("float64").replace([np.inf, -np.inf], np.nan) for n in numeric}
    words = {n: frame[n].astype("object").where(frame[n].notna(), MISSING).astype(str) for n in texts}
    return pd.DataFrame({**numbers, **words})


def _run(current: pd.DataFrame, reference: pd.DataFrame, numeric: list[str], texts: list[str]) -> Any:
    # Imported late: it takes seconds, and the checks above are useful (and tested) without it.
    from evidently import DataDefinition, Dataset, Report  # noqa: PLC0415
    from evidently.presets import DataDriftPreset  # noqa: PLC0415

    definition = DataDefinition(numerical_columns=numeric, categorical_columns=texts)
    columns = [*numeric, *texts]
    now, before = (Dataset.from_pandas(frame[columns], data_definition=definition) for frame in (current, reference))
    return Report([DataDriftPreset(columns=columns)], include_tests=True).run(now, before)


def _works(current: pd.DataFrame, reference: pd.DataFrame, numeric: list[str], texts: list[str]) -> bool:
    try:
        _run(current, reference, numeric, texts)
    except Exception as error:  # noqa: BLE001 - see above
        sys.stderr.write(f"left out {[*numeric, *texts]}: {type(error).__name__}: {error}\n")
        return False
    return True


def main(arguments: Sequence[str] | None = None) -> int:
    """Write one report; 0 when it is there."""
    parser = argparse.ArgumentParser(prog="python -m monitors.report", description=__doc__)
    parser.add_argument("--current", type=Path, required=True)
    parser.add_argument("--reference", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--timeout", type=int, default=120, help="seconds")
    given = parser.parse_args(arguments)
    os.nice(10)
    signal.alarm(given.timeout)
    current, reference = (table_from_bytes(path.read_bytes()) for path in (given.current, given.reference))
    try:
        write_report(current, reference, given.out)
    except ValueError as error:
        sys.stderr.write(f"no report: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
