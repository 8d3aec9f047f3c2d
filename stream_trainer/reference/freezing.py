"""Chooses the bins over the first learned rows: quantiles of numbers, the most frequent words, the largest segments.

Some of the rows choose and the others are counted: a word that is chosen because it is frequent is so partly by chance, and
one that was never seen is missing by choice, so counts of the same rows would look like no later ones. A number that
many rows share has a bin of its own: of a constant, whatever is above or below it is another bin.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stream_trainer.contract import Categorical, Contract, Feature, Numeric, Vector
from stream_trainer.reference import pseudo
from stream_trainer.reference.bins import Bins, numbers, vectors
from stream_trainer.reference.counting import coded
from stream_trainer.reference.frozen import OTHER, Reference, Segments

QUANTILES = 128
MAX_WORDS = 32
MAX_SEGMENTS = 64
_NORMAL_QUARTILES = 1.349


def freeze(contract: Contract, columns: Mapping[str, pa.Array], chooses: NDArray[np.bool_] | None = None) -> Reference:
    """Freeze bins and named segments over some rows.

    Args:
        contract: whose features and segments.
        columns: features and segments, `_label` (numbers) and `_output` (lists, see `pseudo.outputs_type`). Without the last
            two, the bins of a number that is to be predicted know nothing.
        chooses: the rows that choose the bins; the baseline counts the others. Without it all rows do both, which
            is right only where nothing is to be chosen: few words, and all of them seen.
    """
    if chooses is None:
        return _with_counts(contract, _chosen(contract, columns), columns, columns)
    chosen = _chosen(contract, {name: column.filter(pa.array(chooses)) for name, column in columns.items()})
    others = {name: column.filter(pa.array(~chooses)) for name, column in columns.items()}
    return _with_counts(contract, chosen, others, columns)


def _chosen(contract: Contract, columns: Mapping[str, pa.Array]) -> Reference:
    """The bins, without counts and sample."""
    features = [_bins(feature, columns[feature.name]) for feature in contract.features]
    by_name = {bins.feature: bins for bins in features}
    projected = pseudo.projections(contract, by_name, columns)
    directions = [_quantiles(f"{pseudo.PROJECTION}{i}", projected[:, i]) for i in range(projected.shape[1])]
    label = pseudo.label_bins(contract) or _quantiles(pseudo.LABEL, numbers(columns.get(pseudo.LABEL, pa.array([0.0]))))
    outputs = pseudo.output_bins(contract) or [replace(label, feature=pseudo.OUTPUT)]
    named = tuple(Segments(name, _values(columns[name])) for name in contract.segments)
    return Reference((*features, label, *outputs, *directions), named)


def _with_counts(
    contract: Contract, chosen: Reference, counted: Mapping[str, pa.Array], sampled: Mapping[str, pa.Array]
) -> Reference:
    cells = coded(contract, chosen, counted).count()[0]
    samples = {feature.name: _sample(feature, sampled[feature.name]) for feature in contract.features}
    bins = (
        replace(one, counts=tuple(cells[chosen.places[one.feature, ""]].tolist()), **samples.get(one.feature, {}))
        for one in chosen.bins
    )
    return Reference(tuple(bins), chosen.segments)


def _sample(feature: Feature, column: pa.Array) -> dict[str, Any]:
    match feature:
        case Categorical():
            return {"sample_words": tuple(column.to_pylist())}
        case Numeric():
            return {"sample": tuple(float(v) if np.isfinite(v) else None for v in numbers(column))}
        case Vector():
            return {}


def _bins(feature: Feature, column: pa.Array) -> Bins:
    match feature:
        case Categorical(name=name, vocabulary=vocabulary):
            seen = _by_frequency(column)
            words = seen[:MAX_WORDS]
            known = tuple(sorted({*seen, *(vocabulary or ())} - set(words)))
            return Bins(feature=name, kind="words", words=words, known=known)
        case Numeric(name=name, low=low, high=high):
            found = replace(_quantiles(name, numbers(column)), low=low, high=high)
            return replace(found, centres=(found.centre,), spreads=(found.spread,))
        case Vector(name=name, size=size):
            parts = vectors(column).reshape(-1, size)
            centres, spreads = zip(*(_middle(parts[:, i]) for i in range(size)), strict=True)
            return replace(_quantiles(name, numbers(column)), centres=centres, spreads=spreads)


def _quantiles(name: str, values: NDArray[np.float64]) -> Bins:
    known = values[np.isfinite(values)]
    cuts = np.quantile(known, np.arange(1, QUANTILES) / QUANTILES) if len(known) else np.zeros(1)
    centre, spread = _middle(values)
    return Bins(feature=name, kind="number", edges=_edges(cuts), centre=centre, spread=spread)


def _edges(cuts: NDArray[np.float64]) -> tuple[float, ...]:
    """The cuts; a value that has several of them gets a bin of its own, so that what moves above it is seen."""
    different, times = np.unique(cuts + 0.0, return_counts=True)  # + 0.0: there is no -0.0
    with np.errstate(over="ignore"):
        above = np.nextafter(different[times > 1], np.inf)
    return tuple(float(e) for e in np.union1d(different, above[np.isfinite(above)]))


def _middle(values: NDArray[np.float64]) -> tuple[float, float]:
    """Median and deviation by the quartiles, which a few absurd values do not move; by all values where those are equal."""
    known = values[np.isfinite(values)]
    if not len(known):
        return 0.0, 1.0
    low, centre, high = (float(q) for q in np.quantile(known, (0.25, 0.5, 0.75)))
    with np.errstate(over="ignore"):
        spread = (high - low) / _NORMAL_QUARTILES or float(known.std())
    return centre, spread if 0.0 < spread < np.inf else 1.0


def _by_frequency(column: pa.Array) -> tuple[str, ...]:
    counted = pc.drop_null(column).value_counts().to_pylist()
    return tuple(c["values"] for c in sorted(counted, key=lambda c: (-c["counts"], c["values"])))


def _values(column: pa.Array) -> tuple[str, ...]:
    """The most frequent values; one that is called as the others are is one of them."""
    return tuple(sorted([value for value in _by_frequency(column) if value != OTHER][: MAX_SEGMENTS - 1]))
