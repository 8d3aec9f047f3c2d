"""The rules of joining, without Kafka and Spark."""

import itertools
import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_trainer import Join, Pipeline
from stream_trainer.errors import UsageError
from stream_trainer.joining.matching import EXAMPLE, SKIPPED, UNMATCHED, WAITING, Emitted, Matching, dump, load
from stream_trainer.joining.records import LABEL, PREDICTION, Body, Event
from stream_trainer.joining.weights import corrected, importance, sampled
from tests.integration.world import CONTRACT

HORIZON = 1_000
FAR = 10**9


def joining(**options: Any) -> Matching:
    given = {"on": "prediction_id", "horizon": timedelta(milliseconds=HORIZON), "patience": timedelta(0), **options}
    return Matching(CONTRACT, Join(**given))


def prediction(name: str, at: int, output: float | None = 0.25, key: str | None = None) -> Event:
    body = Body(name, 3, output, [1.5, None, "red", f"k-{name}", "2026-01-01T00:00:00Z"])
    return Event(key or name, PREDICTION, at, f"p.predictions/0/{at}", msgspec.msgpack.encode(body))


def label(name: str, at: int, value: Any, offset: int, field: str = "prediction_id") -> Event:
    return Event(name, LABEL, at, f"p.labels/1/{offset}", json.dumps({field: name, "label": value}).encode())


def play(rules: Matching, batches: Sequence[Sequence[Event]]) -> list[Emitted]:
    """One key's life: each batch goes through stored bytes, as a restart would; at the end all timers."""
    stored: bytes | None = None
    out: list[Emitted] = []
    for batch in batches:
        state = load(stored)
        out += rules.take(state, batch)
        stored = dump(state)
    state = load(stored)
    while state.due:
        out += rules.expire(state, state.due)
    assert dump(state) is None
    assert sum(e.amount for e in out if e.kind == WAITING) == 0
    return out


def said(out: list[Emitted]) -> list[tuple[str, str, str]]:
    return sorted((e.kind, e.id, _what(e)) for e in out if e.kind in (EXAMPLE, UNMATCHED))


def _what(emitted: Emitted) -> str:
    record = json.loads(emitted.value)
    return str(record["y"] if emitted.kind == EXAMPLE else record["reason"])


@st.composite
def lives(draw: st.DrawFn) -> tuple[list[Event], list[Event]]:
    predicted = draw(st.integers(0, 3_000))
    predictions = [prediction("a", predicted)] if draw(st.booleans()) else []
    times = sorted(draw(st.lists(st.integers(0, 4_000), max_size=5)))
    labels = [label("a", at, draw(st.booleans()), i) for i, at in enumerate(times)]
    return predictions, labels


@given(lives(), st.data(), st.sampled_from([None, False]))
def test_any_interleaving_cut_and_restart_gives_the_same(
    life: tuple[list[Event], list[Event]], data: st.DataObject, on_timeout: bool | None
) -> None:
    predictions, labels = life
    rules = joining(on_timeout=on_timeout)
    expected = said(play(rules, [[*predictions, *labels]]))
    where = data.draw(st.integers(0, len(labels)))
    events = [*labels[:where], *predictions, *predictions, *labels[where:]]
    cuts = sorted(data.draw(st.sets(st.integers(1, len(events)))) if events else [])
    batches = [events[a:b] for a, b in itertools.pairwise([0, *cuts, len(events)]) if a < b]
    shuffled = [data.draw(st.permutations(batch)) for batch in batches]
    assert said(play(rules, shuffled)) == expected
    told = [
        position for kind, name, _ in expected for position in [name.partition(":")[2] if kind == EXAMPLE else name]
    ]
    assert sorted(t for t in told if t != "timeout") == sorted(e.position for e in labels)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3_000), st.booleans()), max_size=8), st.data())
def test_by_key_each_label_is_taught_or_told_once(drawn: list[tuple[bool, int, bool]], data: st.DataObject) -> None:
    rules = joining(on="key")
    events = [
        prediction(f"p{i}", at, key="k") if is_prediction else label("k", at, value, i, "id")
        for i, (is_prediction, at, value) in enumerate(drawn)
    ]
    batches = [[event] for event in data.draw(st.permutations(events))]
    out = said(play(rules, batches))
    told = [name.partition(":")[2] if kind == EXAMPLE else name for kind, name, _ in out]
    assert sorted(told) == sorted(e.position for e in events if e.kind == LABEL)


def test_timers_that_fire_on_time_change_nothing_of_what_is_joined() -> None:
    rules = joining(on_timeout=False)
    state = load(None)
    out = rules.take(state, [prediction("a", 0)])
    assert rules.expire(state, HORIZON) == []
    out += rules.expire(state, HORIZON + 1)
    out += rules.take(state, [label("a", HORIZON + 1, True, 7)])
    assert said(out) == [
        (EXAMPLE, "a:timeout", "False"),
        (UNMATCHED, "p.labels/1/7", "late"),
    ]


def test_a_false_label_is_sampled_by_its_prediction_and_counted() -> None:
    rules = joining(negative_rate=0.25)
    names = [f"n{i}" for i in range(4_000)]
    out = [e for name in names for e in play(rules, [[prediction(name, 0), label(name, 5, False, 1)]])]
    kept = [e for e in out if e.kind == EXAMPLE]
    assert len(kept) + sum(e.kind == SKIPPED for e in out) == 4_000
    assert 900 < len(kept) < 1_100
    assert all(sampled(name, 1.0) for name in names)


@given(st.floats(0.001, 0.999), st.floats(0.01, 1.0))
def test_the_correction_undoes_the_sampling(truth: float, rate: float) -> None:
    taught = truth / (truth + rate * (1 - truth))
    assert corrected(taught, rate) == pytest.approx(truth)


@given(st.floats(0.001, 0.999), st.floats(0.01, 1.0))
def test_weights_make_the_taught_stream_the_true_one(truth: float, late: float) -> None:
    true_ones = truth * importance(True, truth, late)
    false_ones = (1 - (1 - late) * truth) * importance(False, truth, late)
    assert true_ones / (true_ones + false_ones) == pytest.approx(truth)


def test_ktenas_weights_are_those_where_every_true_label_comes_late() -> None:
    assert importance(True, 0.2, 1.0) == pytest.approx(1.2)
    assert importance(False, 0.2, 1.0) == pytest.approx(0.8 * 1.2)


def test_a_late_true_label_is_taught_with_its_weight() -> None:
    rules = joining(on_timeout=False, late_share=1.0)
    state = load(None)
    out = rules.take(state, [prediction("a", 0, output=0.25)])
    out += rules.expire(state, HORIZON + 1)
    out += rules.take(state, [label("a", HORIZON + 5, True, 7)])
    weights = {e.id: json.loads(e.value)["_weight"] for e in out if e.kind == EXAMPLE}
    assert weights == {"a:timeout": pytest.approx(0.75 * 1.25), "a:p.labels/1/7": pytest.approx(1.25)}


@pytest.mark.parametrize(
    "wrong", [{"on_timeout": "no"}, {"negative_rate": 0.0}, {"late_share": 0.5}, {"horizon": timedelta(0)}]
)
def test_a_join_that_cannot_be_meant_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="join"):
        Pipeline(name="p", contract=CONTRACT, join=Join(**{"on": "key", "horizon": timedelta(hours=1), **wrong}))
