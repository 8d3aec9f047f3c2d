"""Which features carry the change of the model's output: one column after the other is given back its old distribution.

A row keeps its place: the k-th smallest value of the window becomes the k-th smallest of the reference, and of the words
only as many rows change as the counts ask for. So what did not move stays as it is, and features stay together as they were.
What of the change goes away with a column is that feature's share. Deterministic and bounded by rows times features; a model
or a sample that it cannot use costs the explanation and nothing else. It never decides what is an alert.
"""

import logging
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from monitors.alerts import MOST_RANKED, Ranking
from monitors.content import Content
from monitors.findings import Finding
from monitors.questions import Compared
from monitors.sampled import sample_of
from stream_trainer.contract import Categorical, Contract, Feature, Numeric, Vector
from stream_trainer.pipeline import Pipeline
from stream_trainer.reference import Reference, table_from_bytes
from stream_trainer.schema import arrow_fields
from stream_trainer.store import ModelStore

Outputs = NDArray[np.float64]
Columns = Mapping[str, pa.Array]
Predict = Callable[[Columns], Outputs]

MOST_ROWS = 2_000
LEAST_ROWS = 100
MOST_PASSES = 400_000  # rows through the model for one explanation
SECONDS = 30.0
_BINS = 20
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Rows of the window and of the reference, each column of the contract's type, without rows that no model takes."""

    window: dict[str, pa.Array]
    reference: dict[str, pa.Array]


def samples_of(contract: Contract, window: pa.Table, reference: pa.Table) -> Samples | None:
    """Both samples as the model takes them; None when there are too few rows.

    Vectors are in no sample: they are zero on both sides and get no share. With many features fewer rows are taken.

    Args:
        contract: names the features.
        window: plain features of the window, a row a prediction.
        reference: the same of the reference.

    Raises:
        KeyError: a feature is in neither.
        pa.ArrowInvalid: a column is of another type.
    """
    most = max(LEAST_ROWS, min(MOST_ROWS, MOST_PASSES // (len(contract.features) + 2)))
    sides = [_side(contract, table, most) for table in (window, reference)]
    rows = [len(next(iter(side.values()))) for side in sides]
    return None if min(rows) < LEAST_ROWS else Samples(window=sides[0], reference=sides[1])


def _side(contract: Contract, table: pa.Table, most: int) -> dict[str, pa.Array]:
    plain = [f for f in contract.features if not isinstance(f, Vector)]
    kinds = {field.name: field.type for field in arrow_fields(contract, "request")}
    columns = {f.name: _one(table.column(f.name)).cast(kinds[f.name]) for f in plain}
    whole = np.ones(table.num_rows, dtype=np.bool_)
    for feature in plain:
        if not feature.optional:
            whole &= columns[feature.name].is_valid().to_numpy(zero_copy_only=False)
    kept = pa.array(np.flatnonzero(whole)[:most])
    found = {name: column.take(kept) for name, column in columns.items()}
    for vector in contract.features:
        if isinstance(vector, Vector):
            zeros = [[0.0] * vector.size] * len(kept)
            found[vector.name] = pa.array(zeros, kinds[vector.name])
    return found


def _one(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.num_chunks != 1 else column.chunk(0)


def shares(contract: Contract, samples: Samples, predict: Predict, *, seed: int = 0) -> dict[str, float]:
    """The share of each feature in the change of the output, largest first, 0 to 1 and together at most 1.

    The change is that of the mean, in standard deviations of the reference's output, plus the Jensen-Shannon divergence
    over bins of the output, in bits. What goes away only with several features together is in no share.

    Args:
        contract: names the features.
        samples: see `samples_of`.
        predict: columns to outputs `[rows]` or `[rows, classes]`.
        seed: chooses the rows whose word changes.

    Returns:
        Nothing when the output has not changed more than chance would.
    """
    before = _matrix(predict(samples.reference))
    now = _matrix(predict(samples.window))
    measure = _Change.of(now, before)
    change = measure(now)
    if change <= measure.noise(len(now)):
        return {}
    gone = {}
    for place, feature in enumerate(contract.features):
        if isinstance(feature, Vector):
            continue
        rng = np.random.default_rng([seed, place])
        replaced = given_back(feature, samples.window[feature.name], samples.reference[feature.name], rng)
        left = measure(_matrix(predict({**samples.window, feature.name: replaced})))
        gone[feature.name] = max(0.0, change - left)
    whole = max(change, sum(gone.values()))
    return {name: part / whole for name, part in sorted(gone.items(), key=lambda item: (-item[1], item[0]))}


def given_back(feature: Feature, window: pa.Array, reference: pa.Array, rng: np.random.Generator) -> pa.Array:
    """The window's column with the distribution of the reference's, and each row as near to its value as that allows."""
    match feature:
        case Numeric():
            return pa.array(_by_rank(_floats(window), _floats(reference)), window.type, from_pandas=True)
        case Categorical():
            return pa.array(_by_count(window.to_pylist(), reference.to_pylist(), rng), window.type)
    raise TypeError(f"{feature.name} has no sample")


def _floats(column: pa.Array) -> Outputs:
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.float64)


def _by_rank(window: Outputs, reference: Outputs) -> Outputs:
    """Missing values rank last, so their share becomes that of the reference too."""
    places = np.empty(len(window), dtype=np.int64)
    places[np.argsort(window, kind="stable")] = np.arange(len(window))
    found: Outputs = np.sort(reference)[(2 * places + 1) * len(reference) // (2 * len(window))]
    return found


def _by_count(window: list[Any], reference: list[Any], rng: np.random.Generator) -> list[Any]:
    words = list(dict.fromkeys([*reference, *window]))
    code = {word: i for i, word in enumerate(words)}
    now = np.array([code[word] for word in window])
    wanted = _whole(np.bincount([code[word] for word in reference], minlength=len(words)), len(window))
    counts = np.bincount(now, minlength=len(words))
    lacking = np.repeat(np.arange(len(words)), np.maximum(wanted - counts, 0))
    spare = [
        rng.choice(np.flatnonzero(now == word), counts[word] - wanted[word], replace=False)
        for word in np.flatnonzero(counts > wanted)
    ]
    if spare:
        now[np.concatenate(spare)] = rng.permutation(lacking)
    return [words[i] for i in now]


def _whole(counts: NDArray[np.int64], rows: int) -> NDArray[np.int64]:
    """Counts in the same proportions that add up to `rows`: what is left over goes to the largest remainders."""
    exact = counts * rows
    found: NDArray[np.int64] = exact // counts.sum()
    rest = exact - found * counts.sum()
    found[np.argsort(-rest, kind="stable")[: rows - found.sum()]] += 1
    return found


def _matrix(outputs: Outputs) -> Outputs:
    found = np.asarray(outputs, dtype=np.float64).reshape(len(outputs), -1)
    if not np.isfinite(found).all():
        raise ValueError("the model answers a sample with NaN or infinity")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Change:
    """How far outputs are from those of the reference, averaged over the classes."""

    means: Outputs
    spreads: Outputs
    edges: tuple[Outputs, ...]
    shares: tuple[Outputs, ...]
    rows: int

    @classmethod
    def of(cls, now: Outputs, before: Outputs) -> "_Change":
        both = np.concatenate([now, before])
        cuts = np.arange(1, _BINS) / _BINS
        edges = tuple(np.unique(np.quantile(column, cuts)) for column in both.T)
        return cls(
            means=before.mean(axis=0),
            spreads=np.maximum(before.std(axis=0), 1e-9 + 1e-3 * both.std(axis=0)),
            edges=edges,
            shares=tuple(_shares(column, cut) for column, cut in zip(before.T, edges, strict=True)),
            rows=len(before),
        )

    def __call__(self, outputs: Outputs) -> float:
        moved = np.abs(outputs.mean(axis=0) - self.means) / self.spreads
        columns = zip(outputs.T, self.edges, self.shares, strict=True)
        differs = [_jensen_shannon(_shares(column, cut), share) for column, cut, share in columns]
        return float(np.mean(moved) + np.mean(differs))

    def noise(self, rows: int) -> float:
        """What chance alone seldom exceeds: twice the standard error of the mean, and twice the divergence's mean."""
        each = 1 / rows + 1 / self.rows
        return 2 * math.sqrt(each) + 2 * (_BINS - 1) * each / (8 * math.log(2))


def _shares(values: Outputs, edges: Outputs) -> Outputs:
    counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
    found: Outputs = counts / len(values)
    return found


def _jensen_shannon(first: Outputs, second: Outputs) -> float:
    middle = (first + second) / 2
    parts = [p[p > 0] * np.log2(p[p > 0] / middle[p > 0]) for p in (first, second)]
    return float(sum(part.sum() for part in parts) / 2)


def ranked(weights: Mapping[str, float]) -> Ranking:
    """The features with the largest weights, the heaviest first."""
    return tuple(sorted(weights.items(), key=lambda item: (-item[1], item[0]))[:MOST_RANKED])


def weighed(findings: Sequence[Finding], weights: Mapping[str, float]) -> list[Finding]:
    """Findings with the weight of their feature, where one is known."""
    return [
        msgspec.structs.replace(finding, weight=weights[finding.feature]) if finding.feature in weights else finding
        for finding in findings
    ]


class Explainer:
    """Weights of the features in a pipeline's windows; remembers the newest window's, since it has several rounds.

    Args:
        pipeline: whose learner and feature code are asked.
        store: where the versions are.
        count: told `explained`, `unchanged` or `failed`.
        seconds: how long somebody waits for it; what takes longer is left behind in its thread, and counts as failed.
    """

    def __init__(
        self, pipeline: Pipeline, store: ModelStore, count: Callable[[str], None], *, seconds: float = SECONDS
    ) -> None:
        self._pipeline = pipeline
        self._store = store
        self._count = count
        self._seconds = seconds
        self._busy: threading.Thread | None = None
        self._newest: tuple[object, dict[str, float]] = (None, {})

    def __call__(self, findings: Sequence[Finding], window: Content, compared: Compared) -> Mapping[str, float]:
        """The weight of each feature, see `shares`, when a finding of the round is drift; never raises.

        Args:
            findings: of one round.
            window: its newest window, whose sample is explained.
            compared: holds the reference's sample, and which version served.
        """
        frozen, served, sample = compared.frozen, compared.served, window.sample
        drifted = any(finding.state == "drift" for finding in findings)
        if not drifted or frozen is None or served is None or sample is None:
            return {}
        key = (window.first, window.last, window.rows, served.version)
        if self._newest[0] != key:
            reference, version = frozen.reference, served.version
            work = partial(self._weights, sample, reference, version)
            self._newest = (key, self._bounded(work))
        return self._newest[1]

    def _bounded(self, work: Callable[[], dict[str, float]]) -> dict[str, float]:
        if self._busy is not None and self._busy.is_alive():
            self._count("failed")
            return {}
        found: list[dict[str, float]] = []

        def run() -> None:
            try:
                found.append(work())
            except (Exception, SystemExit) as error:  # noqa: BLE001 - the model is the pipeline's own code
                _log.warning("no explanation: %s: %s", type(error).__name__, error)

        self._busy = threading.Thread(target=run, name="explaining", daemon=True)
        self._busy.start()
        self._busy.join(self._seconds)
        weights = found[0] if found else None
        self._count("failed" if weights is None else "explained" if weights else "unchanged")
        return weights or {}

    def _weights(self, sample: bytes, reference: Reference, version: int) -> dict[str, float]:
        contract = self._pipeline.contract
        samples = samples_of(contract, table_from_bytes(sample), sample_of(reference, MOST_ROWS))
        return {} if samples is None else shares(contract, samples, self._predict(version))

    def _predict(self, version: int) -> Predict:
        # Imported here: the monitor needs torch for this alone.
        from stream_trainer.features import encode  # noqa: PLC0415
        from stream_trainer.learner import answer  # noqa: PLC0415

        state = self._store.load(self._store.read(version), self._pipeline.spec, training=False)

        def predict(columns: Columns) -> Outputs:
            outputs = answer(self._pipeline.learner, state, encode(self._pipeline.contract, dict(columns)))
            found: Outputs = outputs.detach().double().numpy()
            return found

        return predict
