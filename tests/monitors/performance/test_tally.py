"""Tallies: the figures of the evaluation, in any order and any grouping, whatever a record holds."""

import json
import math
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitors.performance.counting import COST_UNIT, FLOOR, figures, joined, tallies, tally
from monitors.performance.exact import as_float, exact, plus
from monitors.performance.tally import BINS, KEPT_VERSIONS, OLDER, Tally, add
from stream_trainer.contract import BinaryLabel, Categorical, ClassLabel, Contract, Numeric, NumericLabel, Task
from stream_trainer.decode import decode
from stream_trainer.evaluation.baselines import nothing_known
from stream_trainer.evaluation.scores import score_rows

from .worlds import binary, rows_of

AT = datetime(2026, 1, 1, tzinfo=UTC)
finite = st.floats(-1e30, 1e30, allow_nan=False, allow_infinity=False)


def contract(label: Any) -> Contract:
    kind = Categorical("kind", vocabulary=["a", "b"], optional=True)
    return Contract(features=[Numeric("x"), kind], label=label, key="id", event_time="at", segments=["place", "kind"])


def decoded(of: Contract, values: list[bytes | None]) -> pa.RecordBatch:
    count = len(values)
    return decode(
        of,
        pa.record_batch(
            {
                "topic": ["t"] * count,
                "partition": pa.array([0] * count, pa.int32()),
                "offset": list(range(count)),
                "timestamp": pa.array([AT] * count, pa.timestamp("us", tz="UTC")),
                "value": pa.array(values, pa.binary()),
            }
        ),
    )


def example(label: Any, output: Any, *, version: Any = 3, minute: int = 0, **fields: Any) -> bytes:
    at = (AT + timedelta(minutes=minute)).isoformat()
    record = {"x": 1.0, "id": "a", "at": at, "y": label, "place": "EWR", "_model_version": version, "_output": output}
    return json.dumps({**record, **fields}).encode()


@given(st.lists(finite, max_size=30), st.randoms(use_true_random=False))
def test_a_sum_is_exact_in_any_order_and_any_grouping(values: list[float], random: Any) -> None:
    whole = exact(np.array(values, dtype=np.float64))
    shuffled = random.sample(values, len(values))
    cut = random.randint(0, len(values))
    assert plus(exact(np.array(shuffled[:cut])), exact(np.array(shuffled[cut:]))) == whole
    truth = sum((Fraction(v) for v in values), Fraction(0))
    assert abs(Fraction(int(whole, 16), 2**160) - truth) <= len(values) * Fraction(1, 2**160)
    assert as_float(whole) == pytest.approx(float(truth), rel=1e-15, abs=1e-45)


def test_what_is_not_finite_does_not_add_up() -> None:
    with pytest.raises(ValueError, match="finite"):
        exact(np.array([1.0, np.inf]))


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 60), data=st.data())
def test_tallies_of_parts_add_up_to_the_tally_of_all(task: Task, seed: int, rows: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    outputs, labels = rows_of(task, rng, rows)
    versions = rng.integers(1, 200, rows)
    place = rng.choice(["a", "b", "*"], rows)
    part = np.array(data.draw(st.lists(st.integers(0, 3), min_size=rows, max_size=rows)))

    def of(chosen: Any) -> Tally:
        if not len(labels[chosen]):
            return Tally()
        return figures(task, outputs[chosen], labels[chosen], versions[chosen], {"place": place[chosen].tolist()})

    parts = [of(part == i) for i in data.draw(st.permutations(range(4)))]
    left = add(add(add(parts[0], parts[1]), parts[2]), parts[3])
    right = add(parts[3], add(parts[2], add(parts[1], parts[0])))
    whole = of(np.arange(rows))
    assert left == right == whole
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(whole), type=Tally) == whole
    assert msgspec.msgpack.encode(left) == msgspec.msgpack.encode(right)
    assert sum(losses.rows for losses in whole.versions.values()) == rows
    assert sum(losses.rows for losses in whole.segments.values()) == rows


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_the_figures_are_the_evaluations(task: Task) -> None:
    rng = np.random.default_rng(5)
    outputs, labels = rows_of(task, rng, 500)
    known = np.tile(nothing_known(task, 3 if task == "multiclass" else 1), (500, 1))
    columns = score_rows(task, outputs[:, 0] if outputs.shape[1] == 1 else outputs, labels, known)
    found = figures(task, outputs, labels, np.ones(500, dtype=np.int64), {})
    assert found.losses.mean == pytest.approx(columns[:, 0].mean(), rel=1e-9)
    assert as_float(found.losses.squares) == pytest.approx((columns[:, 0] ** 2).sum(), rel=1e-9)
    if task == "regression":
        assert as_float(found.absolute) == pytest.approx(columns[:, 1].sum(), rel=1e-9)
        assert as_float(found.label_sums[1]) == pytest.approx((labels**2).sum())
    else:
        assert found.losses.correct == columns[:, 1].sum()
        assert found.labels == np.bincount(labels.astype(int)).tolist()


def test_bins_hold_rows_hits_and_what_each_outcome_costs() -> None:
    outputs = np.array([[0.031], [0.039], [1.0], [0.0]])
    found = figures("binary", outputs, np.array([1.0, 0.0, 1.0, 1.0]), np.ones(4, dtype=np.int64), {})
    bins = found.bins
    assert (bins.rows[3], bins.hits[3], bins.rows[99], bins.hits[99], bins.hits[0]) == (2, 1, 1, 1, 1)
    assert bins.cost_hit[3] * COST_UNIT == pytest.approx(-math.log(0.031) - math.log(0.039), abs=1e-5)
    assert bins.cost_miss[3] * COST_UNIT == pytest.approx(-math.log(0.969) - math.log(0.961), abs=1e-5)
    assert bins.cost_hit[0] * COST_UNIT == pytest.approx(-math.log(FLOOR), abs=1e-5)


def test_each_class_has_rows_and_hits_of_its_own() -> None:
    outputs = np.array([[0.12, 0.5, 0.38], [0.12, 0.1, 0.78]])
    found = figures("multiclass", outputs, np.array([0.0, 2.0]), np.ones(2, dtype=np.int64), {})
    assert found.class_rows[0][2] == 2
    assert found.class_hits[0][2] == 1
    assert (found.bins.rows[50], found.bins.hits[50], found.bins.hits[78]) == (1, 0, 1)
    assert [sum(rows) for rows in found.class_rows] == [2, 2, 2]


def test_surprise_is_nothing_on_average_while_answers_are_right_and_something_when_they_are_not() -> None:
    rng = np.random.default_rng(3)
    means = []
    for shift in (0.0, 0.1):
        answers, labels = binary(rng, 20_000, shift=shift)
        found = figures("binary", answers[:, None], labels, np.ones(20_000, dtype=np.int64), {})
        means.append(as_float(found.surprise) / math.sqrt(as_float(found.surprise_variance)))
    assert abs(means[0]) < 4.0
    assert means[1] > 15.0


def test_the_highest_versions_are_told_apart() -> None:
    rng = np.random.default_rng(1)
    answers, labels = binary(rng, 200)
    found = figures("binary", answers[:, None], labels, np.arange(1, 201), {})
    assert sorted(found.versions) == [OLDER, *range(137, 201)]
    assert found.versions[OLDER].rows == 200 - KEPT_VERSIONS


def test_records_are_read_as_the_trainer_reads_them() -> None:
    of = contract(BinaryLabel("y"))
    values: list[bytes | None] = [
        example(label=True, output=0.75),
        example(label=False, output=0.75, version=4, place="JFK", minute=7),
        example(label=False, output=0.5, kind="b"),
        example(label=True, output=None),
        b'{"x": 1}',
    ]
    rows = joined(of, decoded(of, values))
    found = tally(of, rows, {"place": frozenset({"EWR"}), "kind": frozenset({"a", "b"})})
    assert found.losses.rows == 3
    assert {key: losses.rows for key, losses in found.segments.items()} == {
        "kind=(none)": 2,
        "kind=b": 1,
        "place=*": 1,
        "place=EWR": 2,
    }
    assert sorted(found.versions) == [3, 4]
    per_window = tallies(of, rows, {}, window=timedelta(minutes=5))
    assert {start: one.losses.rows for start, one in per_window.items()} == {AT: 2, AT + timedelta(minutes=5): 1}


@pytest.mark.parametrize("label", [BinaryLabel("y"), ClassLabel("y", classes=["a", "b"]), NumericLabel("y")])
@settings(max_examples=40)
@given(data=st.data())
def test_no_crafted_record_raises(label: Any, data: st.DataObject) -> None:
    of = contract(label)
    scalar = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.just("a"))
    value = st.one_of(scalar, st.lists(st.one_of(scalar, st.floats(0.0, 1.0)), max_size=3))
    records: list[bytes | None] = [None, b"\xff", b"[" * 500]
    records += [
        example(data.draw(value), data.draw(value), version=data.draw(st.one_of(st.just(1), scalar))) for _ in range(4)
    ]
    good = "a" if isinstance(label, ClassLabel) else 1
    records += [example(good, [0.0, 0.0] if isinstance(label, ClassLabel) else data.draw(st.floats(0, 1)))]
    found = tally(of, joined(of, decoded(of, records)), {"place": frozenset()})
    assert found.losses.rows >= 1
    assert math.isfinite(found.losses.mean)
    assert len(found.bins.rows) == BINS or label.task == "regression"


def test_numbers_far_out_stay_finite() -> None:
    of = contract(NumericLabel("y"))
    rows = joined(of, decoded(of, [example(1e300, 3e38), example(-1e308, -3e38), example(5e-324, 5e-324)]))
    found = tally(of, rows, {})
    assert math.isfinite(as_float(found.losses.squares))
    assert add(found, found).losses.rows == 2 * found.losses.rows


def test_tallies_of_different_labels_do_not_add_up() -> None:
    rng = np.random.default_rng(1)
    tasks: list[Task] = ["binary", "regression"]
    first, second = (figures(t, *rows_of(t, rng, 3), np.ones(3, dtype=np.int64), {}) for t in tasks)
    with pytest.raises(ValueError, match="different labels"):
        add(first, second)


def test_a_worker_imports_neither_torch_nor_spark() -> None:
    code = "import sys, monitors.performance.step; print({'torch', 'pyspark'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
