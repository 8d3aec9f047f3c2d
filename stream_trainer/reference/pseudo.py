"""What is counted beside the features: the label, the model's answer, and random directions through all numbers.

The directions are fixed by the contract's fingerprint: signs, as in Achlioptas (2003), "Database-friendly random
projections". Their sums are of whole numbers, so a value falls into the same bin on every machine and in any batch.
"""

import hashlib
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stream_trainer.contract import BinaryLabel, Categorical, ClassLabel, Contract, Vector
from stream_trainer.reference.bins import Bins, Column, numbers, vectors
from stream_trainer.reference.grid import whole_steps

LABEL, OUTPUT, OUTPUT_PROBABILITY, PROJECTION = "_label", "_output", "_output/probability", "_projection/"
PROJECTIONS = 8
_CLIP = 8.0
_STEPS_IN_ONE = 1024.0
Projector: TypeAlias = Callable[[slice], NDArray[np.float64]]


def outputs_type() -> pa.DataType:
    """The type of a column of answers: a list of the model's outputs, null where nothing was answered."""
    return pa.list_(pa.float64())


def answers(contract: Contract, column: pa.Array) -> dict[str, NDArray[np.float64]]:
    """The columns `_output` and, for classes, `_output/probability`; NaN where nothing was answered."""
    width = contract.label.outputs
    given = column.is_valid().to_numpy(zero_copy_only=False)
    flat = np.full((len(column), width), np.nan)
    flat[given] = column.drop_null().flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
    if not isinstance(contract.label, ClassLabel):
        return {OUTPUT: flat[:, 0]}
    best = np.where(given, np.argmax(np.nan_to_num(flat), axis=1), np.nan)
    top = np.full(len(column), np.nan)
    top[given] = flat[given].max(axis=1)
    return {OUTPUT: best, OUTPUT_PROBABILITY: top}


def label_bins(contract: Contract) -> Bins | None:
    """The bins of the label where the contract names its values; None for numbers."""
    match contract.label:
        case BinaryLabel():
            return Bins(feature=LABEL, kind="index", words=("false", "true"))
        case ClassLabel(classes=classes):
            return Bins(feature=LABEL, kind="index", words=tuple(classes))
        case _:
            return None


def output_bins(contract: Contract) -> list[Bins]:
    """The bins of the answer, without data: 100 equal ones of a probability. None of them for numbers."""
    hundred = tuple(i / 100 for i in range(1, 100))
    match contract.label:
        case BinaryLabel():
            return [Bins(feature=OUTPUT, kind="number", edges=hundred, low=0.0, high=1.0, centre=0.5, spread=0.25)]
        case ClassLabel(classes=classes):
            probability = Bins(
                feature=OUTPUT_PROBABILITY, kind="number", edges=hundred, low=0.0, high=1.0, centre=0.5, spread=0.25
            )
            return [Bins(feature=OUTPUT, kind="index", words=tuple(classes)), probability]
        case _:
            return []


def projections(contract: Contract, bins: Mapping[str, Bins], columns: Mapping[str, Column]) -> NDArray[np.float64]:
    """All rows' projections `[rows, 8]` of standardised numbers, clipped at 8 spreads; a missing one counts 0.

    `[rows, 0]` for a contract with fewer than two numbers: there is no direction but the feature itself.
    """
    project, rows = projector(contract, bins, columns), len(next(iter(columns.values()), ()))
    return np.zeros((rows, 0)) if project is None else project(slice(0, rows)).T


def projector(contract: Contract, bins: Mapping[str, Bins], columns: Mapping[str, Column]) -> Projector | None:
    """What gives `projections` of some of the rows, as `[8, rows]`; None where there is no direction."""
    pieces: list[NDArray[np.float64]] = []
    middle: list[tuple[float, float]] = []
    for feature in contract.features:
        if isinstance(feature, Categorical):
            continue
        column, known = columns[feature.name], bins[feature.name]
        if isinstance(feature, Vector):
            values = vectors(column) if not isinstance(column, np.ndarray) else column
            pieces += list(values.reshape(-1, feature.size).T)
        else:
            pieces.append(numbers(column))
        middle += zip(known.centres, known.spreads, strict=True)
    if len(pieces) < 2:
        return None
    turned = signs(contract.fingerprint, len(pieces)).T
    centres, spreads = np.array(middle).T[:, :, None]

    def project(part: slice) -> NDArray[np.float64]:
        steps = whole_steps(np.stack([piece[part] for piece in pieces]), centres, spreads, _CLIP)
        if np.isnan(steps.sum()):
            steps[np.isnan(steps)] = 0.0
        return np.asarray(turned @ steps / _STEPS_IN_ONE)

    return project


@lru_cache(8)
def signs(fingerprint: str, width: int) -> NDArray[np.float64]:
    """+1 or -1 for each number and direction, `[width, 8]`: bits of SHAKE-256 of the fingerprint."""
    bits = np.frombuffer(hashlib.shake_256(f"{fingerprint}/projections".encode()).digest(width), np.uint8)
    return 1.0 - 2.0 * np.unpackbits(bits).reshape(width, PROJECTIONS).astype(np.float64)
