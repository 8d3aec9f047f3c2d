"""The scores of a version as one Arrow table: overall and per segment, of the model and of the baselines.

It lies beside the version as `evaluation.arrow`, so that a curve of any segment can be drawn from the store alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from stream_trainer.evaluation.scores import FORECASTERS, Scores
from stream_trainer.evaluation.segments import Segments
from stream_trainer.prequential import Prequential

EVALUATION = "evaluation.arrow"
LEAST_ROWS = 50
MOST_VALUES = 20
TRAINED, SERVED = "trained", "served"

TABLE = pa.schema(
    [
        pa.field("forecast", pa.string()),
        pa.field("segment", pa.string()),
        pa.field("value", pa.string()),
        pa.field("rows", pa.int64()),
        pa.field("forecaster", pa.string()),
        pa.field("metric", pa.string()),
        pa.field("score", pa.float64()),
    ]
)


def evaluation(prequential: Prequential, segments: Sequence[str]) -> pa.Table:
    """Scores over the window, one row each (`TABLE`).

    `forecast` is `trained` or `served`, see `prequential`. `segment` and `value` are empty for all rows together; of a
    segment the 20 most frequent values with at least 50 rows are told. `forecaster` is `model`, `no_change` or
    `majority`. A score that cannot be computed, as the area under a curve of one class, is null.
    """
    found = [
        (name, *row)
        for name, scores in ((TRAINED, prequential.trained), (SERVED, prequential.served))
        if len(scores.rows)
        for row in _scores(scores, prequential.segments, segments)
    ]
    columns = zip(*found, strict=True) if found else [()] * len(TABLE)
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, TABLE, strict=True)], schema=TABLE)


def _scores(scores: Scores, known: Segments, segments: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    yield from _of("", "", scores.over(np.ones(len(scores.rows), dtype=np.bool_)))
    for column, (segment, values) in enumerate(zip(segments, known.values, strict=True)):
        codes = scores.codes[:, column]
        counts = np.bincount(codes, minlength=len(values))
        frequent = np.argsort(-counts, kind="stable")[:MOST_VALUES]
        for code in sorted(int(c) for c in frequent if counts[c] >= LEAST_ROWS):
            yield from _of(segment, values[code], scores.over(codes == code))


def _of(segment: str, value: str, found: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    own = {name: score for name, score in found.items() if name not in (*FORECASTERS, "rows")}
    for forecaster, scores in (("model", own), *((name, found[name]) for name in FORECASTERS[1:])):
        for metric, score in scores.items():
            yield segment, value, found["rows"], forecaster, metric, score
