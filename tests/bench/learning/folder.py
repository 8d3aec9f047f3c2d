"""Real streams out of a folder: every `.csv` and `.csv.gz` in it, in its own order of rows; nothing is keyed to a name."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from stream_trainer.errors import UsageError
from tests.bench.learning.stream import Column, Floats, Stream, Task, of_labels

LABELS = ("target", "class", "label")
_MOST_CLASSES, _MOST_WORDS, _BUCKETS = 20, 64, 256


def names(folder: Path) -> dict[str, Path]:
    """From a stream's name to its file, in alphabetical order.

    Raises:
        UsageError: there is no such folder.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder: --data wants one with csv files")
    files = sorted(path for path in folder.iterdir() if path.name.endswith((".csv", ".csv.gz")))
    return {path.name.removesuffix(".gz").removesuffix(".csv").lower(): path for path in files}


def load(name: str, path: Path, rows: int) -> Stream:
    """The first so many labelled rows.

    The label is the column called target, class or label, else the last one. A label of texts, or of at most 20
    different whole numbers, is a class; texts among the features are categories.

    Raises:
        UsageError: the file cannot be used.
    """
    try:
        table = csv.read_csv(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise UsageError(f"{path} cannot be read as CSV with a header: {error}") from None
    label = next((n for n in table.column_names if n.lower() in LABELS), table.column_names[-1])
    table = table.filter(pc.is_valid(table.column(label))).slice(0, rows)
    features = [n for n in table.column_names if n != label]
    if not table.num_rows or not features:
        raise UsageError(f"{path} has no labelled row or no feature beside its label {label!r}")
    task, classes, y = _labels(table.column(label).to_pylist())
    if task != "regression" and len(classes) < 2:
        raise UsageError(f"{path}: the label {label!r} has one class only in the first {rows} rows")
    parts = [_feature(feature, table.column(feature)) for feature in features]
    return Stream(
        name=name,
        origin="real",
        task=task,
        columns=tuple(column for column, _ in parts),
        classes=classes,
        x=np.column_stack([values for _, values in parts]),
        y=y,
    )


def _labels(values: list[Any]) -> tuple[Task, tuple[str, ...], Floats]:
    if isinstance(values[0], str | bool):
        return of_labels(values)
    numbers = np.array(values, dtype=np.float64)
    if len(np.unique(numbers)) <= _MOST_CLASSES and bool((numbers == numbers.round()).all()):
        return of_labels([int(v) for v in values])
    return "regression", (), numbers


def _feature(name: str, column: pa.ChunkedArray) -> tuple[Column, Floats]:
    known = f"x_{name}"  # a contract reserves names
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return Column(name=known), column.cast(pa.float64()).to_numpy().copy()
    texts = column.to_pylist()
    words = tuple(sorted({text for text in texts if text is not None}))
    codes = {word: float(code) for code, word in enumerate(words)}
    values = np.array([np.nan if text is None else codes[text] for text in texts])
    return Column(name=known, words=words, buckets=_BUCKETS if len(words) > _MOST_WORDS else None), values
