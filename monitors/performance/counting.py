"""Joined examples to tallies. Runs in Spark's Python workers: no torch, no Spark.

What a record says of its answer is read by `stream_trainer.decode`, as the trainer reads it: an answer that makes no
sense counts as none, so what arrives here is finite and in bounds, and no crafted record raises.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from monitors.performance.exact import exact
from monitors.performance.tally import BINS, CALIBRATION_BINS, KEPT_CLASSES, OLDER, Bins, Losses, Tally, newest
from stream_trainer.contract import Contract, Task
from stream_trainer.evaluation.counts import fair

Floats = NDArray[np.float64]
Segments = Mapping[str, Sequence[str | None]]

FLOOR = 1e-7  # the evaluation's: log loss is at most -ln of it
LARGEST = 1e15  # the evaluation's bound of labels and errors
COST_UNIT = 2.0**-20
# Sizes of losses are told apart by quarters of an octave: log loss from 2^-12, absolute errors from 2^-40 to 2^50.
SIZES_OF_LOG_LOSS, SIZES_OF_ERRORS = (-48, 17), (-160, 200)
OTHERS, NONE = "*", "(none)"


def joined(contract: Contract, decoded: pa.RecordBatch) -> pa.RecordBatch:
    """The rows of `stream_trainer.decode.decode` that are good and say what was answered, by which version.

    Where rows do not count alike they are a fair sample (`counts.fair`): tests by rows then keep the rate that they state.
    """
    good = pc.and_(pc.is_null(decoded.column("_reason")), pc.is_valid(decoded.column("_output")))
    names = ["_model_version", "_output", contract.event_time, contract.label.name, *contract.segments]
    rows = fair(contract.label.task, contract.label.name, decoded.filter(good))
    return rows.select(list(dict.fromkeys(names)))


def tally(contract: Contract, rows: pa.RecordBatch, kept: Mapping[str, frozenset[str]]) -> Tally:
    """The figures of some rows of `joined`.

    Args:
        contract: says the label and the segments.
        rows: of `joined`.
        kept: per segment the values that are told apart, others count as `name=*`, a missing one as `(none)`; a
            segment that is not named here is not counted. Fixed while tallies are to add up.
    """
    if not rows.num_rows:
        return Tally()
    width = contract.label.outputs
    outputs = rows.column("_output").flatten().to_numpy(zero_copy_only=False).reshape(rows.num_rows, width)
    segments = {name: _told(rows.column(name).to_pylist(), values) for name, values in kept.items()}
    return figures(
        contract.label.task,
        outputs,
        rows.column(contract.label.name).to_numpy(zero_copy_only=False),
        rows.column("_model_version").to_numpy(zero_copy_only=False),
        segments,
    )


def tallies(
    contract: Contract, rows: pa.RecordBatch, kept: Mapping[str, frozenset[str]], *, window: timedelta
) -> dict[datetime, Tally]:
    """The same per tumbling window of the contract's event time, whose starts are multiples of `window` since 1970."""
    length = window // timedelta(microseconds=1)
    micros = rows.column(contract.event_time).cast(pa.int64()).to_numpy(zero_copy_only=False)
    starts = micros // length * length
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return {
        epoch + timedelta(microseconds=start): tally(contract, rows.filter(pa.array(starts == start)), kept)
        for start in np.unique(starts).tolist()
    }


def figures(task: Task, outputs: Floats, labels: Floats, versions: NDArray[np.int64], segments: Segments) -> Tally:
    """The figures of rows that are arrays already.

    Args:
        task: kind of label.
        outputs: `[rows, outputs]`: probabilities (of true; of each class), or numbers.
        labels: `[rows]`: 0 or 1, the class's number, or a number.
        versions: `[rows]`, at least 1.
        segments: per segment the value of each row, at most as many different ones as are told apart.
    """
    make = _numbers if task == "regression" else _classes
    found, loss, correct, sizes = make(task, outputs, labels)
    groups = {f"{name}={value}": place for name, column in segments.items() for value, place in _places(column)}
    return Tally(
        task=task,
        losses=_losses(loss, correct, sizes),
        segments={key: _losses(loss[i], correct[i], sizes[i]) for key, i in sorted(groups.items())},
        versions=newest(
            {max(int(v), OLDER): _losses(loss[i], correct[i], sizes[i]) for v, i in _places(versions.tolist())}
        ),
        **found,
    )


def _classes(task: Task, outputs: Floats, labels: Floats) -> tuple[dict[str, Any], Floats, NDArray[np.bool_], Any]:
    chances = np.column_stack([1.0 - outputs[:, 0], outputs[:, 0]]) if task == "binary" else outputs
    truth = labels.astype(np.int64)
    costs = -np.log(np.clip(chances, FLOOR, 1.0)) + 0.0
    each = np.arange(len(truth))
    loss, likeliest = costs[each, truth], chances.argmax(1)
    correct = likeliest == truth
    shown = np.ones(len(truth), dtype=np.int64) if task == "binary" else likeliest
    hit = truth == shown
    # What the answer itself expects; what does not add up to 1 is made to.
    shares = np.clip(chances, FLOOR, 1.0)
    shares /= shares.sum(1, keepdims=True)
    expected = (shares * costs).sum(1)
    variance = np.maximum((shares * costs**2).sum(1) - expected**2, 0.0)
    per_class = task == "multiclass" and chances.shape[1] <= KEPT_CLASSES
    found = {
        "surprise": exact(loss - expected),
        "surprise_squares": exact((loss - expected) ** 2),
        "surprise_variance": exact(variance),
        "labels": np.bincount(truth, minlength=chances.shape[1]).tolist(),
        "bins": _bins(chances[each, shown], hit, costs[each, shown], costs[:, 0] if task == "binary" else loss, task),
        "class_rows": [_coarse(chances[:, k]) for k in range(chances.shape[1])] if per_class else [],
        "class_hits": [_coarse(chances[truth == k, k]) for k in range(chances.shape[1])] if per_class else [],
    }
    return found, loss, correct, _sizes(loss, SIZES_OF_LOG_LOSS)


def _numbers(_task: Task, outputs: Floats, labels: Floats) -> tuple[dict[str, Any], Floats, NDArray[np.bool_], Any]:
    truth = np.clip(labels, -LARGEST, LARGEST)
    error = np.minimum(np.abs(outputs[:, 0] - truth), LARGEST)
    found = {"absolute": exact(error), "label_sums": (exact(truth), exact(truth**2))}
    return found, error**2, np.zeros(len(truth), dtype=np.bool_), _sizes(error, SIZES_OF_ERRORS)


def _bins(chance: Floats, hit: NDArray[np.bool_], cost_hit: Floats, cost_miss: Floats, task: Task) -> Bins:
    place = np.minimum((chance * BINS).astype(np.int64), BINS - 1)
    costs = [np.rint(cost / COST_UNIT).astype(np.int64) for cost in (cost_hit, cost_miss)]
    missed = np.ones(len(hit), dtype=np.bool_) if task == "binary" else ~hit
    return Bins(
        rows=np.bincount(place, minlength=BINS).tolist(),
        hits=np.bincount(place[hit], minlength=BINS).tolist(),
        cost_hit=_whole_sums(place, costs[0]),
        cost_miss=_whole_sums(place[missed], costs[1][missed]),
    )


def _whole_sums(place: NDArray[np.int64], whole: NDArray[np.int64]) -> list[int]:
    sums = np.zeros(BINS, dtype=np.int64)
    np.add.at(sums, place, whole)
    found: list[int] = sums.tolist()
    return found


def _coarse(chance: Floats) -> list[int]:
    place = np.minimum((chance * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    found: list[int] = np.bincount(place, minlength=CALIBRATION_BINS).tolist()
    return found


def _sizes(values: Floats, bounds: tuple[int, int]) -> NDArray[np.int64]:
    quarters = np.floor(4.0 * np.log2(np.maximum(values, 2.0**-300)))
    return np.clip(quarters, *bounds).astype(np.int64)


def _losses(loss: Floats, correct: NDArray[np.bool_], sizes: NDArray[np.int64]) -> Losses:
    values, rows = np.unique(sizes, return_counts=True)
    return Losses(
        rows=len(loss),
        correct=int(correct.sum()),
        total=exact(loss),
        squares=exact(loss**2),
        sizes=dict(zip(values.tolist(), rows.tolist(), strict=True)),
    )


def _places(column: Sequence[Any]) -> list[tuple[Any, NDArray[np.int64]]]:
    """Each value of a column and the rows that have it."""
    found: dict[Any, list[int]] = {}
    for i, value in enumerate(column):
        found.setdefault(value, []).append(i)
    return [(value, np.array(rows)) for value, rows in found.items()]


def _told(column: Sequence[str | None], kept: frozenset[str]) -> list[str]:
    return [NONE if value is None else value if value in kept else OTHERS for value in column]
