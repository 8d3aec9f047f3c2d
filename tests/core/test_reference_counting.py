"""Counting many values at once tells what counting one feature after the other, by searching its edges, tells."""

import pickle
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_trainer import reference
from stream_trainer.contract import BinaryLabel, Categorical, ClassLabel, Contract, Numeric, NumericLabel, Vector
from stream_trainer.reference import LABEL, OUTPUT, Bins, Reference, pseudo
from stream_trainer.reference.bins import in_steps, numbers, vectors
from stream_trainer.reference.counting import Cells
from stream_trainer.reference.grid import grid

INF, NAN = float("inf"), float("nan")
FEATURES: list[Numeric | Categorical | Vector] = [
    Numeric("n", low=-4, high=9, optional=True),
    Numeric("m"),
    Categorical("c", buckets=4, optional=True),
    Vector("v", 3),
]
CONTRACTS = [
    Contract(features=FEATURES, label=label, key="k", event_time="t", segments=["s", "c"])
    for label in (BinaryLabel("y"), NumericLabel("y"), ClassLabel("y", ["a", "b"]))
]
VALUES = st.sampled_from([-INF, -1e30, -5.0, -4.0, -0.0, 0.0, 5e-324, 0.5, 1.0, 9.0, 9.5, 1e30, INF, NAN])
USUAL = st.floats(-5, 10)


def columns_of(contract: Contract, rows: int, data: Any) -> dict[str, pa.Array]:
    def drawn(values: Any, size: int = rows) -> list[Any]:
        found: list[Any] = data.draw(st.lists(values, min_size=size, max_size=size))
        return found

    answer = st.lists(
        st.sampled_from([0.0, 0.42, 1.0]), min_size=contract.label.outputs, max_size=contract.label.outputs
    )
    return {
        "n": pa.array(drawn(st.none() | VALUES | USUAL), pa.float64()),
        "m": pa.array(drawn(USUAL), pa.float64()),
        "c": pa.array(drawn(st.none() | st.sampled_from("abz")), pa.string()),
        "v": pa.array(drawn(st.lists(USUAL, min_size=3, max_size=3)), pa.list_(pa.float64())),
        "s": pa.array(drawn(st.none() | st.sampled_from("xy")), pa.string()),
        LABEL: pa.array(drawn(st.sampled_from([0.0, 1.0])), pa.float64()),
        OUTPUT: pa.array(drawn(st.none() | answer), pa.list_(pa.float64())),
    }


def projected(contract: Contract, frozen: Reference, columns: dict[str, pa.Array]) -> Any:
    """A number after the other, in whole numbers."""
    parts = [(numbers(columns[name]), frozen.of(name)) for name in ("n", "m")]
    steps = [in_steps(values, bins.centres[0], bins.spreads[0], 8.0) for values, bins in parts]
    known = frozen.of("v")
    steps += [
        in_steps(*one, 8.0)
        for one in zip(vectors(columns["v"]).reshape(-1, 3).T, known.centres, known.spreads, strict=True)
    ]
    return np.stack(steps, axis=1) @ pseudo.signs(contract.fingerprint, 5) / 1024


def one_by_one(contract: Contract, frozen: Reference, columns: dict[str, pa.Array], groups: Cells, many: int) -> Cells:
    """The cells, by `Bins.assign` and `Bins.steps` of each feature, and a count for each row."""
    found = projected(contract, frozen, columns)
    given = dict(columns) | pseudo.answers(contract, columns[OUTPUT])
    given |= {f"_projection/{i}": found[:, i] for i in range(8)}
    out = np.zeros((many, frozen.cells), np.int64)
    for bins in frozen.bins:
        codes = bins.assign(given[bins.feature])
        np.add.at(out, (groups, frozen.places[bins.feature, ""].start + codes), 1)
        for segments in frozen.segments if bins in frozen.in_segments else ():
            for row, value in enumerate(columns[segments.name].to_pylist()):
                name = f"{segments.name}={value if value in segments.values else '*'}"
                place = frozen.places[bins.feature, name].start + bins.coarse[codes[row]]
                out[groups[row], place] += 1
        if not bins.categorical:
            at, steps = frozen.moments_of(bins.feature), bins.steps(given[bins.feature])
            np.add.at(out[:, at], groups, steps)
            np.add.at(out[:, at + 1], groups, steps * steps)
    return out


@pytest.mark.parametrize("contract", CONTRACTS, ids=["binary", "number", "classes"])
@given(st.data(), st.integers(1, 60), st.integers(0, 60))
@settings(deadline=None, max_examples=25)
def test_counts_are_those_of_one_feature_after_the_other(contract: Contract, data: Any, first: int, rows: int) -> None:
    frozen = reference.freeze(contract, columns_of(contract, first, data))
    columns = columns_of(contract, rows, data)
    counted = reference.coded(contract, frozen, columns)
    groups = np.arange(rows) % 3
    expected = one_by_one(contract, frozen, columns, groups, 3)
    assert np.array_equal(counted.count(groups, 3), expected)
    assert np.array_equal(counted.count()[0], expected.sum(0))


def test_many_rows_are_counted_in_parts_as_they_are_together() -> None:
    contract, rng, rows = CONTRACTS[0], np.random.default_rng(0), 30_000
    columns = {
        "n": pa.array(rng.normal(size=rows), mask=rng.uniform(size=rows) < 0.01),
        "m": pa.array(rng.lognormal(0, 4, rows)),
        "c": pa.array(rng.choice(list("abc"), rows)),
        "v": pa.array(rng.normal(size=(rows, 3)).tolist(), pa.list_(pa.float64())),
        "s": pa.array(rng.choice(list("xyz"), rows)),
        LABEL: pa.array(rng.integers(0, 2, rows).astype(float)),
        OUTPUT: pa.array(rng.uniform(size=(rows, 1)).tolist(), pa.list_(pa.float64())),
    }
    frozen = reference.freeze(contract, {name: column.slice(0, 2_000) for name, column in columns.items()})
    counted, groups = reference.coded(contract, frozen, columns), rng.integers(0, 2, rows)
    expected = one_by_one(contract, frozen, columns, groups, 2)
    assert np.array_equal(counted.count(groups, 2), expected)
    assert np.array_equal(counted.count()[0], expected.sum(0))
    coarse = counted.count_coarse(groups - 1, 1)[0]
    assert coarse.sum() == groups.sum() * len(frozen.in_segments)


EDGES = st.lists(st.floats(-1e30, 1e30) | st.floats(-1, 1) | st.integers(-3, 3).map(float), min_size=1, max_size=127)


@given(st.lists(EDGES, min_size=1, max_size=4), st.lists(st.floats(-1e30, 1e30), max_size=20))
@settings(deadline=None, max_examples=150)
def test_the_place_in_the_grid_is_that_of_searching_whatever_the_edges(
    drawn: list[list[float]], more: list[float]
) -> None:
    cuts = [np.unique(np.array(edges) + 0.0) for edges in drawn]
    features = [Bins(feature=str(i), kind="number", edges=tuple(edges.tolist())) for i, edges in enumerate(cuts)]
    made = grid([(bins, 1_000 * i) for i, bins in enumerate(features)])
    near = np.concatenate([*cuts, *(np.nextafter(c, INF) for c in cuts), *(np.nextafter(c, -INF) for c in cuts), more])
    found = made.places(np.stack([near] * len(cuts)), [None] * len(cuts))
    for bins, places in zip(made.bins, found, strict=True):
        assert np.array_equal(places - 1_000 * int(bins.feature), bins.assign(near))


def test_what_travels_is_the_bins_alone() -> None:
    contract = CONTRACTS[0]
    columns = {
        "n": pa.array([0.0, 1.0]),
        "m": pa.array([0.0, 1.0]),
        "c": pa.array(["a", "b"]),
        "v": pa.array([[0.0, 1.0, 2.0]] * 2, pa.list_(pa.float64())),
        "s": pa.array(["x", "y"]),
    }
    frozen = reference.freeze(contract, columns)
    fresh = pickle.dumps(Reference(frozen.bins, frozen.segments))
    before = reference.coded(contract, frozen, columns).count()
    assert len(pickle.dumps(frozen)) <= 2 * len(fresh)
    again = pickle.loads(pickle.dumps(frozen))  # noqa: S301 - our own
    assert again == frozen
    assert np.array_equal(reference.coded(contract, again, columns).count(), before)
