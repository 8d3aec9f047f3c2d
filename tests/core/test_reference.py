"""Bins, counts and what is kept of them: by hand, in any order, and as bytes."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_trainer import reference
from stream_trainer.contract import BinaryLabel, Categorical, ClassLabel, Contract, Numeric, NumericLabel, Vector
from stream_trainer.errors import Corrupt
from stream_trainer.reference import LABEL, OUTPUT, OUTPUT_PROBABILITY, Bins, Learned, Reference, Segments
from stream_trainer.reference.freezing import MAX_SEGMENTS, MAX_WORDS
from stream_trainer.reference.learned import SLOTS, SUPPORT, slot_hours
from stream_trainer.reference.pseudo import signs
from stream_trainer.schema import TIMESTAMP

CONTRACT = Contract(
    features=[Numeric("n", low=-4, high=9, optional=True), Categorical("c", buckets=4, optional=True), Vector("v", 2)],
    label=BinaryLabel("y"),
    key="k",
    event_time="t",
    segments=["s", "c"],
)
ALONE = Contract(features=[Numeric("n")], label=BinaryLabel("y"), key="k", event_time="t")
START = datetime(2026, 1, 1, tzinfo=UTC)
TYPES = {
    "n": pa.float64(),
    "c": pa.string(),
    "v": pa.list_(pa.float64()),
    "s": pa.string(),
    "t": TIMESTAMP,
    LABEL: pa.float64(),
    OUTPUT: pa.list_(pa.float64()),
}
ROW = st.fixed_dictionaries(
    {
        "n": st.none() | st.sampled_from([-5.0, 0.0, 0.5, 1.0, 7.0, 12.0]),
        "c": st.none() | st.sampled_from(["a", "b", "known", "z"]),
        "v": st.sampled_from([[0.0, 0.0], [3.0, 4.0]]),
        "s": st.none() | st.sampled_from(["x", "y"]),
        "t": st.integers(0, 300).map(lambda m: START + timedelta(minutes=m)),
        LABEL: st.sampled_from([0.0, 1.0]),
        OUTPUT: st.none() | st.sampled_from([[0.0], [0.42], [1.0]]),
    }
)
ROWS = st.lists(ROW, max_size=15)


def row(**changes: Any) -> dict[str, Any]:
    usual = {"n": 0.0, "c": "a", "v": [0.0, 0.0], "s": "x", "t": START, LABEL: 1.0, OUTPUT: [0.5]}
    return {**usual, **changes}


def columns(rows: list[dict[str, Any]]) -> dict[str, pa.Array]:
    return {name: pa.array([one[name] for one in rows], kind) for name, kind in TYPES.items()}


def frozen_of(*edges: float) -> Reference:
    """Few bins, chosen by hand."""
    made = reference.freeze(CONTRACT, columns([row(n=float(i), v=[float(i), 0.0]) for i in range(3)]))
    chosen: dict[str, dict[str, Any]] = {
        "n": {"edges": edges, "counts": ()},
        "c": {"words": ("a", "b"), "known": ("known",), "counts": ()},
        "v": {"edges": (2.0,), "counts": ()},
    }
    bins = tuple(
        Bins(**{**{f: getattr(b, f) for f in Bins.__dataclass_fields__}, **chosen.get(b.feature, {})})
        for b in made.bins
    )
    return Reference(bins, (Segments("s", ("x",)), Segments("c", ("a", "b"))))


BINS = frozen_of(0.0, 1.0)


def counted(rows: list[dict[str, Any]]) -> reference.Coded:
    return reference.coded(CONTRACT, BINS, columns(rows))


def cells(rows: list[dict[str, Any]]) -> dict[tuple[str, str, int], int]:
    found = counted(rows).count()[0]
    return {
        (feature, segment, i): int(count)
        for (feature, segment), place in BINS.places.items()
        for i, count in enumerate(found[place])
        if count and not feature.startswith("_projection/")
    }


def by_hand(rows: list[dict[str, Any]]) -> dict[tuple[str, str, int], int]:
    """Numbers: three bins (coarse: one), then below, above, NaN, infinite, missing. Words: two, other, unseen, missing."""
    found: Counter[tuple[str, str, int]] = Counter()
    for one in rows:
        n, output = one["n"], one[OUTPUT]
        fine = 7 if n is None else 3 if n < -4 else 4 if n > 9 else int(n >= 0) + int(n >= 1)
        word = {"a": 0, "b": 1, "known": 2, "z": 3, None: 4}[one["c"]]
        answered = 104 if output is None else min(99, int(output[0] * 100 + 1e-9))
        norm = int(one["v"][0] > 0)
        label = int(one[LABEL])
        found.update([("n", "", fine), ("c", "", word), ("v", "", norm), (LABEL, "", label), (OUTPUT, "", answered)])
        segments = f"s={'x' if one['s'] == 'x' else '*'}", f"c={one['c'] if one['c'] in ('a', 'b') else '*'}"
        for segment in segments:
            found[("n", segment, max(0, fine - 2))] += 1
            found[("c", segment, word)] += 1
            found[("v", segment, 0)] += 1
            found[(LABEL, segment, label)] += 1
            found[(OUTPUT, segment, answered // 16 if answered < 100 else answered - 100 + 7)] += 1
    return dict(found)


@given(ROWS)
@settings(deadline=None, max_examples=50)
def test_counts_are_those_of_counting_by_hand(rows: list[dict[str, Any]]) -> None:
    assert cells(rows) == by_hand(rows)


@given(ROWS, ROWS, ROWS)
@settings(deadline=None, max_examples=30)
def test_what_is_learned_adds_up_in_any_order_and_grouping_to_the_same_bytes(a: Any, b: Any, c: Any) -> None:
    def learned(*batches: list[dict[str, Any]]) -> bytes:
        found = Learned()
        for rows in batches:
            found = found.add(counted(rows), columns(rows)["t"], 48)
        return found.to_bytes()

    assert learned(a, b, c) == learned(c, a, b) == learned([*c, *b], a) == learned([*a, *b, *c][::-1])


@given(ROWS)
@settings(deadline=None, max_examples=30)
def test_groups_of_rows_add_up_to_all_rows(rows: list[dict[str, Any]]) -> None:
    groups = np.arange(len(rows)) % 3
    apart = counted(rows).count(groups, 3)
    assert np.array_equal(apart.sum(0), counted(rows).count()[0])
    coarse = counted(rows).count_coarse(groups - 1, 2)
    kept = [one for one, group in zip(rows, groups.tolist(), strict=True) if group == 2]
    assert np.array_equal(coarse[1], counted(kept).count_coarse(np.zeros(len(kept), np.int64), 1)[0])


@given(ROWS)
@settings(deadline=None, max_examples=30)
def test_counts_survive_being_packed(rows: list[dict[str, Any]]) -> None:
    found = counted(rows).count()[0]
    assert np.array_equal(reference.unpack(reference.pack(found), BINS.cells), found)


@pytest.mark.parametrize("data", [b"x", reference.pack(np.ones(9, np.int64)), b"\xff" * 12])
def test_bytes_that_are_no_counts_are_refused(data: bytes) -> None:
    with pytest.raises(Corrupt):
        reference.unpack(data, 8)


def test_moments_are_those_of_the_known_values_and_one_absurd_value_moves_them_little() -> None:
    rows = [row(n=float(v)) for v in (1, 2, 3)] + [row(n=None)]
    found = reference.moments(BINS, counted(rows).count()[0], "n")
    assert found.known == 3
    assert found.mean == pytest.approx(2.0, abs=1e-3)
    assert found.deviation == pytest.approx(np.std([1, 2, 3]), abs=2e-3)
    absurd = reference.moments(BINS, counted([*rows, row(n=1e30)]).count()[0], "n")
    assert absurd.known == 4
    assert absurd.mean < 64 * BINS.of("n").spread
    assert reference.moments(BINS, counted([row(n=None)]).count()[0], "n").known == 0


def test_slots_are_few_and_only_the_newest_hours_are_kept() -> None:
    rows = [row(t=START + timedelta(hours=h)) for h in range(400) for _ in range(SUPPORT)]
    for hours in (1, 2, 24, 48, 168, 1000):
        kept = Learned().add(counted(rows), columns(rows)["t"], hours)
        assert len(kept.slots) <= SLOTS + 1
        told = kept.total(BINS)[BINS.places["n", ""]].sum() / SUPPORT
        assert min(400, hours) - slot_hours(hours) < told <= hours
    assert Learned().add(counted(rows), columns(rows)["t"], 2).total(BINS)[BINS.places["n", ""]].sum() == 2 * SUPPORT


def test_a_few_clocks_that_are_ahead_make_nothing_forgotten() -> None:
    honest = [row(t=START + timedelta(hours=h)) for h in range(12) for _ in range(SUPPORT)]
    ahead = [row(t=START + timedelta(hours=35))] * (SUPPORT - 1)
    kept = Learned().add(counted(honest), columns(honest)["t"], 12).add(counted(ahead), columns(ahead)["t"], 12)
    assert kept.total(BINS)[BINS.places["n", ""]].sum() == len(honest) + len(ahead)
    later = [row(t=START + timedelta(hours=13))] * SUPPORT
    kept = kept.add(counted(later), columns(later)["t"], 12)
    assert kept.total(BINS)[BINS.places["n", ""]].sum() == len(honest) + len(ahead) + len(later) - 2 * SUPPORT


@pytest.mark.parametrize("moment", [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, tzinfo=UTC)])
def test_events_at_the_edge_of_the_calendar_are_counted(moment: datetime) -> None:
    rows = [row(t=moment)]
    kept = Learned().add(counted(rows), columns(rows)["t"], 168)
    assert kept.total(BINS)[BINS.places["c", ""]].tolist() == [1, 0, 0, 0, 0]
    assert Learned.from_bytes(kept.to_bytes(), BINS).to_bytes() == kept.to_bytes()


def test_what_was_learned_with_other_bins_is_corrupt() -> None:
    rows = [row()]
    data = Learned().add(counted(rows), columns(rows)["t"], 48).to_bytes()
    for other in (None, Reference(BINS.bins[:1])):
        with pytest.raises(Corrupt):
            Learned.from_bytes(data, other)
    with pytest.raises(Corrupt):
        Learned.from_bytes(reference.table_to_bytes(pa.table({"hour": [1]})), BINS)
    assert Learned.from_bytes(Learned().to_bytes(), None).slots == {}


def test_segments_that_are_not_among_the_largest_when_frozen_count_together() -> None:
    values = [f"v{i:03}" for i in range(200) for _ in range(2 if i < 10 else 1)]
    made = reference.freeze(CONTRACT, columns([row(s=value) for value in values]))
    [segments] = [s for s in made.segments if s.name == "s"]
    assert len(segments.names) == MAX_SEGMENTS
    assert segments.names[-1] == "s=*"
    assert set(segments.values) >= {f"v{i:03}" for i in range(10)}
    found = reference.coded(CONTRACT, made, columns([row(s="new"), row(s=None), row(s="v000")])).count()[0]
    assert found[made.places["n", "s=*"]].sum() == 2
    assert found[made.places["n", "s=v000"]].sum() == 1


def test_a_segment_that_is_called_as_all_others_are_counts_with_them() -> None:
    rows = [row(s="*" if i % 2 else "x") for i in range(100)]
    made = reference.freeze(CONTRACT, columns(rows))
    assert [s.names for s in made.segments if s.name == "s"] == [("s=x", "s=*")]
    found = reference.coded(CONTRACT, made, columns([*rows, row(s="new")])).count()[0]
    assert found[made.places["n", "s=*"]].sum() == 51
    assert found[made.places["n", "s=x"]].sum() == 50


def test_no_rows_count_nothing() -> None:
    assert not counted([]).count().any()


def test_bins_of_a_number_hold_the_same_share_each_and_the_odd_ones_have_bins_of_their_own() -> None:
    values = np.random.default_rng(0).normal(size=1280)
    rows = [row(n=float(v), v=[float(v), 0.0]) for v in values]
    rows += [row(n=None, c=None)] * 7 + [row(n=float("inf"))] + [row(n=float("nan"))] + [row(n=-99.0)] + [row(n=99.0)]
    made = reference.freeze(CONTRACT, columns(rows))
    numeric, category, vector = made.bins[:3]
    assert len(numeric.edges) == len(vector.edges) == 127
    assert numeric.size == len(numeric.names) == len(numeric.counts) == 128 + 5
    assert max(numeric.counts[:128]) <= 12
    assert numeric.counts[128:] == (1, 1, 1, 1, 7)
    assert numeric.coarse_size == len(numeric.coarse_names) == 8 + 5
    assert (category.words, category.counts) == (("a",), (1284, 0, 0, 7))
    assert len(numeric.sample) == len(category.sample_words) == 1291
    assert vector.sample == ()


def test_a_constant_and_an_all_missing_column_can_be_frozen() -> None:
    made = reference.freeze(CONTRACT, columns([row(n=None, c=None, v=[1.0, 0.0])] * 3))
    numeric, category, vector = made.bins[:3]
    assert numeric.counts[-1] == category.counts[-1] == 3
    assert vector.edges == (1.0, np.nextafter(1.0, 2.0))
    assert vector.counts[:3] == (0, 3, 0)


TIES = st.lists(st.sampled_from([-1e30, -2.5, 0.0, -0.0, 5e-324, 3.0, 1e30]), min_size=1, max_size=40)


@given(TIES, st.lists(st.floats(-10, 10), max_size=20), st.data())
@settings(deadline=None, max_examples=80)
def test_a_value_that_many_rows_share_has_a_bin_of_its_own(tied: list[float], others: list[float], data: Any) -> None:
    frozen = reference.freeze(ALONE, {"n": pa.array([*tied, *others])}).of("n")
    rows = np.sort([*tied, *others])
    shared = {v for v in tied if np.sum(rows == v) > len(rows) / 64 + 1}
    assert np.all(np.diff(frozen.edges) > 0)
    assert len(frozen.edges) <= 127
    for value in shared:
        near = np.array([np.nextafter(value, -np.inf), value, np.nextafter(value, np.inf)])
        assert len(set(frozen.assign(near).tolist())) == 3
    again = data.draw(st.permutations([*tied, *others]))
    halves = [np.bincount(frozen.assign(np.array(part)), minlength=frozen.size) for part in (again[:7], again[7:])]
    assert tuple((halves[0] + halves[1]).tolist()) == frozen.counts


def test_the_names_of_bins_say_which_hold_one_value() -> None:
    frozen = reference.freeze(ALONE, {"n": pa.array([0.0] * 900)}).of("n")
    assert frozen.names == ("[-inf, 0)", "[0, 0]", "(0, inf)", *frozen.ends) == frozen.coarse_names
    week = reference.freeze(ALONE, {"n": pa.array([float(i % 7) for i in range(700)])}).of("n")
    assert week.names[:4] == ("[-inf, 0)", "[0, 0]", "(0, 1)", "[1, 1]")
    assert week.coarse_names[:3] == ("[-inf, 0]", "(0, 1]", "(1, 2]")
    assert len(week.coarse_names) == week.coarse_size


def test_only_the_most_frequent_words_get_a_bin() -> None:
    words = [f"w{i:02}" for i in range(60)] + ["w59"] * 5
    category = reference.freeze(CONTRACT, columns([row(c=word) for word in words])).of("c")
    assert len(category.words) == MAX_WORDS
    assert category.words[0] == "w59"
    assert category.counts[category.place("other")] == 60 - MAX_WORDS
    assert category.assign(pa.array(["never"])).tolist() == [category.place("unseen")]
    assert category.coarse_names == (*category.words[:7], "other", "unseen", "missing")
    assert category.coarse[: MAX_WORDS + 1].max() == category.coarse[category.place("other")] == 7


def test_a_word_of_the_vocabulary_is_never_unseen() -> None:
    contract = Contract(
        features=[Categorical("c", vocabulary=("a", "rare"))], label=BinaryLabel("y"), key="k", event_time="t"
    )
    made = reference.freeze(contract, {"c": pa.array(["a", "a"])})
    assert made.of("c").assign(pa.array(["a", "rare", "foreign"])).tolist() == [0, 1, 2]


def test_bins_are_closed_on_the_left() -> None:
    assert BINS.of("n").assign(pa.array([-0.1, 0.0, 0.9, 1.0, None])).tolist() == [0, 1, 1, 2, 7]
    assert BINS.of("n").names[:3] == ("[-inf, 0)", "[0, 1)", "[1, inf)")


def test_labels_and_answers_of_every_kind_are_counted() -> None:
    def contract(label: Any) -> Contract:
        return Contract(features=[Numeric("n")], label=label, key="k", event_time="t")

    given_classes = {
        "n": pa.array([0.0, 1.0]),
        LABEL: pa.array([2.0, 0.0]),
        OUTPUT: pa.array([[0.1, 0.2, 0.7], None], TYPES[OUTPUT]),
    }
    classes = contract(ClassLabel("y", ["a", "b", "c"]))
    made = reference.freeze(classes, given_classes)
    assert made.of(LABEL).counts == (1, 0, 1, 0)
    assert made.of(OUTPUT).counts == (0, 0, 1, 1)
    assert made.of(OUTPUT_PROBABILITY).counts[70] == made.of(OUTPUT_PROBABILITY).counts[-1] == 1
    numbers = {
        "n": pa.array([0.0] * 256),
        LABEL: pa.array([float(i) for i in range(256)]),
        OUTPUT: pa.array([[0.0]] * 256, TYPES[OUTPUT]),
    }
    made = reference.freeze(contract(NumericLabel("y")), numbers)
    # A model that has learned nothing answers 0 to all: the answer has the bins of the label.
    assert made.of(OUTPUT).edges == made.of(LABEL).edges
    assert len(made.of(LABEL).edges) == 127


def test_directions_are_fixed_by_the_contract_and_need_two_numbers() -> None:
    assert np.array_equal(signs(CONTRACT.fingerprint, 3), signs(CONTRACT.fingerprint, 3))
    assert set(signs(CONTRACT.fingerprint, 3).ravel()) == {-1.0, 1.0}
    assert [b.feature for b in BINS.bins if b.feature.startswith("_projection/")] == [
        f"_projection/{i}" for i in range(8)
    ]
    alone = Contract(features=[Numeric("n")], label=BinaryLabel("y"), key="k", event_time="t")
    assert {b.feature for b in reference.freeze(alone, {"n": pa.array([1.0, 2.0])}).bins} == {"n", LABEL, OUTPUT}


@given(ROWS.filter(bool))
@settings(deadline=None, max_examples=30)
def test_a_reference_survives_being_stored(rows: list[dict[str, Any]]) -> None:
    frozen = reference.freeze(CONTRACT, columns(rows))
    again = Reference.from_bytes(frozen.to_bytes())
    assert again == frozen
    assert again.to_bytes() == frozen.to_bytes()
    assert again.without_samples().places == frozen.places


def test_a_reference_of_ten_bins_a_feature_is_outdated() -> None:
    old = {
        "feature": pa.array(["n"]),
        "edges": pa.array([[0.0]]),
        "words": pa.array([[]], pa.list_(pa.string())),
        "counts": pa.array([[1, 1, 0]]),
        "sample": pa.array([[0.0]]),
        "sample_words": pa.array([[]], pa.list_(pa.string())),
    }
    with pytest.raises(reference.Outdated):
        Reference.from_bytes(reference.table_to_bytes(pa.table(old)))
