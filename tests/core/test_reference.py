from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_trainer import reference
from stream_trainer.contract import BinaryLabel, Categorical, Contract, Numeric, Vector
from stream_trainer.reference import HISTOGRAM, MAX_SEGMENTS, MAX_WORDS, Bins, Reference
from stream_trainer.schema import TIMESTAMP

CONTRACT = Contract(
    features=[Numeric("n", optional=True), Categorical("c", buckets=4, optional=True), Vector("v", 2)],
    label=BinaryLabel("y"),
    key="k",
    event_time="t",
    segments=["s", "c"],
)
START = datetime(2026, 1, 1, tzinfo=UTC)
BINS = Reference(
    (
        Bins(feature="n", edges=(0.0, 1.0), counts=(1, 1, 1, 0)),
        Bins(feature="c", words=("a", "b"), counts=(1, 1, 1, 0)),
        Bins(feature="v", edges=(2.0,), counts=(1, 1, 0)),
    )
)

ROW = st.fixed_dictionaries(
    {
        "n": st.none() | st.sampled_from([-5.0, 0.0, 0.5, 1.0, 7.0]),
        "c": st.none() | st.sampled_from(["a", "b", "z"]),
        "v": st.sampled_from([[0.0, 0.0], [3.0, 4.0]]),
        "s": st.none() | st.sampled_from(["x", "y"]),
        "t": st.integers(0, 300).map(lambda m: START + timedelta(minutes=m)),
    }
)
ROWS = st.lists(ROW, max_size=15)
TYPES = {"n": pa.float64(), "c": pa.string(), "v": pa.list_(pa.float64()), "s": pa.string(), "t": TIMESTAMP}


def columns(rows: list[dict[str, Any]]) -> dict[str, pa.Array]:
    return {name: pa.array([row[name] for row in rows], kind) for name, kind in TYPES.items()}


def counted(rows: list[dict[str, Any]]) -> pa.Table:
    given = columns(rows)
    return reference.histogram(CONTRACT, BINS, given, given["t"])


def cells(table: pa.Table) -> dict[tuple[Any, ...], tuple[int, float, float]]:
    found = {
        (r["hour"], r["feature"], r["segment"], r["bin"]): (r["count"], r["sum"], r["sum_of_squares"])
        for r in table.to_pylist()
    }
    assert len(found) == table.num_rows
    return found


def brute_force(rows: list[dict[str, Any]]) -> dict[tuple[Any, ...], tuple[int, float, float]]:
    counts: Counter[tuple[Any, ...]] = Counter()
    sums: defaultdict[tuple[Any, ...], list[float]] = defaultdict(list)
    for row in rows:
        hour = row["t"].replace(minute=0)
        n = row["n"]
        norm = 5.0 if row["v"][0] else 0.0
        n_bin = 3 if n is None else (n >= 0) + (n >= 1)
        c_bin = {"a": 0, "b": 1, None: 3}.get(row["c"], 2)
        found = [("n", n_bin, n or 0.0), ("c", c_bin, 0.0), ("v", int(norm >= 2), norm)]
        for segment in ("", f"s={row['s'] or '*'}", f"c={row['c'] or '*'}"):
            for feature, place, value in found:
                key = (hour, feature, segment, place)
                counts[key] += 1
                sums[key].append(value)
    return {k: (n, sum(sums[k]), sum(v * v for v in sums[k])) for k, n in counts.items()}


def close(first: dict[Any, Any], second: dict[Any, Any]) -> bool:
    return first.keys() == second.keys() and all(second[k] == pytest.approx(v, abs=1e-9) for k, v in first.items())


@given(ROWS)
@settings(deadline=None, max_examples=50)
def test_counts_and_sums_are_those_of_counting_by_hand(rows: list[dict[str, Any]]) -> None:
    table = counted(rows)
    assert table.schema == HISTOGRAM
    assert close(cells(table), brute_force(rows))


@given(ROWS, ROWS, ROWS)
@settings(deadline=None, max_examples=30)
def test_merging_is_adding_in_any_order(a: list[Any], b: list[Any], c: list[Any]) -> None:
    x, y, z = counted(a), counted(b), counted(c)
    left = cells(reference.merge(reference.merge(x, y), z))
    assert close(left, cells(reference.merge(x, reference.merge(z, y))))
    assert close(left, brute_force([*a, *b, *c]))
    assert close(cells(reference.merge(x, y)), cells(reference.merge(y, x)))


def test_merged_rows_are_sorted_and_the_same_bytes_each_time() -> None:
    rows = [{"n": float(i), "c": "a", "v": [0.0, 1.0], "s": str(i % 3), "t": START} for i in range(9)]
    first = reference.merge(counted(rows), counted(rows[::-1]))
    assert first.equals(reference.merge(counted(rows), counted(rows[::-1])))
    keys = list(cells(first))
    assert keys == sorted(keys)


def test_only_the_newest_hours_are_kept() -> None:
    rows = [{"n": 0.0, "c": "a", "v": [0.0, 0.0], "s": "x", "t": START + timedelta(hours=h)} for h in range(5)]
    kept = reference.merge(HISTOGRAM.empty_table(), counted(rows), hours=2)
    assert set(kept.column("hour").to_pylist()) == {START + timedelta(hours=3), START + timedelta(hours=4)}


@pytest.mark.parametrize("moment", [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, tzinfo=UTC)])
def test_events_at_the_edge_of_the_calendar_are_counted(moment: datetime) -> None:
    rows = [{"n": 0.0, "c": "a", "v": [0.0, 0.0], "s": "x", "t": moment}]
    kept = reference.merge(HISTOGRAM.empty_table(), counted(rows), hours=48)
    assert set(kept.column("hour").to_pylist()) == {moment}


def test_all_hours_add_up_to_one() -> None:
    rows = [{"n": 0.0, "c": "a", "v": [0.0, 0.0], "s": "x", "t": START + timedelta(hours=h)} for h in range(5)]
    table = reference.over_hours(counted(rows))
    assert set(table.column("hour").to_pylist()) == {START + timedelta(hours=4)}
    assert pc.sum(table.column("count")).as_py() == 5 * 3 * 3
    assert reference.over_hours(HISTOGRAM.empty_table()).num_rows == 0


def test_a_segment_of_many_values_keeps_the_largest_and_counts_the_rest_together() -> None:
    values = [f"v{i:03}" for i in range(200) for _ in range(2 if i < 10 else 1)]
    rows = [{"n": 0.0, "c": "a", "v": [0.0, 0.0], "s": v, "t": START} for v in values]
    table = reference.merge(counted(rows), HISTOGRAM.empty_table())
    names = {s for s in table.column("segment").to_pylist() if s.startswith("s=")}
    assert len(names) == MAX_SEGMENTS
    assert names >= {f"s=v{i:03}" for i in range(10)} | {"s=*"}
    of_n = table.filter(pc.equal(table.column("feature"), "n"))
    of_s = of_n.filter(pc.starts_with(of_n.column("segment"), "s="))
    assert pc.sum(of_s.column("count")).as_py() == len(values)


def test_no_rows_give_an_empty_histogram() -> None:
    assert counted([]).num_rows == 0


def test_deciles_hold_a_tenth_each_and_missing_values_have_their_own_bin() -> None:
    values = [float(v) for v in np.random.default_rng(0).normal(size=1000)]
    rows = [{"n": v, "c": "a", "v": [v, 0.0], "s": "x", "t": START} for v in values]
    rows += [{**rows[0], "n": None, "c": None}] * 7
    numeric, category, vector = reference.freeze(CONTRACT, columns(rows)).bins
    assert len(numeric.edges) == len(vector.edges) == 9
    assert numeric.counts == (*[100] * 10, 7)
    assert numeric.size == len(numeric.names) == 11
    assert (category.words, category.counts) == (("a",), (1000, 0, 7))
    assert len(numeric.sample) == len(category.sample_words) == 1007
    assert vector.sample == ()


def test_a_constant_and_an_all_missing_column_can_be_frozen() -> None:
    rows = [{"n": None, "c": None, "v": [1.0, 0.0], "s": "x", "t": START}] * 3
    numeric, category, vector = reference.freeze(CONTRACT, columns(rows)).bins
    assert numeric.counts[-1] == category.counts[-1] == 3
    assert vector.edges == (1.0,)
    assert vector.counts == (0, 3, 0)


def test_only_the_most_frequent_words_get_a_bin() -> None:
    words = [f"w{i:02}" for i in range(40)] + ["w39"] * 5
    rows = [{"n": 0.0, "c": w, "v": [0.0, 0.0], "s": "x", "t": START} for w in words]
    category = reference.freeze(CONTRACT, columns(rows)).bins[1]
    assert len(category.words) == MAX_WORDS
    assert category.words[0] == "w39"
    assert category.counts[MAX_WORDS] == 40 - MAX_WORDS
    assert category.names[-2:] == ("*", "missing")


def test_bins_are_closed_on_the_left() -> None:
    assert BINS.bins[0].assign(pa.array([-0.1, 0.0, 0.9, 1.0, None])).tolist() == [0, 1, 1, 2, 3]
    assert BINS.bins[0].names == ("[-inf, 0)", "[0, 1)", "[1, inf)", "missing")


@given(ROWS.filter(bool))
@settings(deadline=None)
def test_a_reference_survives_being_stored(rows: list[dict[str, Any]]) -> None:
    frozen = reference.freeze(CONTRACT, columns(rows))
    again = Reference.from_bytes(frozen.to_bytes())
    assert again == frozen
    assert again.to_bytes() == frozen.to_bytes()


def test_a_table_survives_being_stored() -> None:
    table = counted([{"n": 0.0, "c": "a", "v": [0.0, 0.0], "s": "x", "t": START}])
    assert reference.table_from_bytes(reference.table_to_bytes(table)).equals(table)
    assert reference.table_from_bytes(reference.table_to_bytes(HISTOGRAM.empty_table())).schema == HISTOGRAM
