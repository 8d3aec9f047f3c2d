"""Each label is told once, whatever becomes of joiner and checkpoint, and what a start reads again is bounded."""

import json
from collections import Counter
from datetime import timedelta
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from tests.joining.oracle import Told, expected
from tests.joining.simulation import LABELS, PREDICTIONS, Ends, World
from tests.joining.test_matching import HORIZON, joining, label, prediction

DAY = 10 * HORIZON


def world(**options: Any) -> World:
    return World(joining(on_timeout=False, **options))


def predict(it: World, name: str) -> None:
    event = prediction(name, it.now)
    it.append(event._replace(position=f"{PREDICTIONS}/0/{len(it.log[PREDICTIONS])}"))


def tell(it: World, name: str, *, value: bool = True) -> None:
    offset = len(it.log[LABELS])
    event = label(name, it.now, value, offset)
    it.append(event._replace(position=f"{LABELS}/0/{offset}"))


def due(it: World) -> dict[str, Any]:
    """What the oracle says of the log."""
    predictions = {event.key: event.at for event in reversed(it.log[PREDICTIONS])}
    labels = [Told(e.position, e.key, e.at, json.loads(e.payload)["label"]) for e in it.log[LABELS]]
    join = it.rules.join
    return expected(predictions, labels, horizon=it.rules.horizon, kept=it.rules.kept, on_timeout=join.on_timeout)


def settle(it: World) -> None:
    """Until nothing can come any more."""
    for _ in range(60):
        it.now += HORIZON // 8
        it.batch(1_000)


def check(it: World) -> None:
    assert Counter(it.ids) == Counter(due(it).keys())
    assert it.values == due(it)
    assert it.waiting == 0


@pytest.mark.parametrize("patience", [0, 15, 300])
def test_a_label_in_time_is_taught_however_late_it_is_read(patience: int) -> None:
    """The joiner was away for longer than a horizon: what it reads first are predictions, their labels lie further on."""
    it = world(patience=timedelta(milliseconds=patience))
    for i in range(20):
        predict(it, f"p{i}")
    it.now += HORIZON // 2
    for i in range(10):
        tell(it, f"p{i}")
    it.now += 5 * HORIZON
    for _ in range(30):
        it.now += HORIZON // 4
        it.batch(1)
    settle(it)
    assert {name for name in it.ids if name.endswith("timeout")} == {f"p{i}:timeout" for i in range(10, 20)}
    check(it)


def test_a_lost_checkpoint_adds_no_timeout_to_a_label_that_was_taught() -> None:
    it = world()
    for name in "abc":
        predict(it, name)
    it.now += HORIZON // 2
    tell(it, "a")
    it.batch(100)
    assert it.ids == ["a:p.labels/0/0"]
    it.lose()
    it.now += 5 * HORIZON
    for _ in range(20):
        it.now += HORIZON // 8
        it.batch(1)
    settle(it)
    check(it)


def test_what_a_clean_start_reads_again_does_not_grow() -> None:
    it = world()
    for n in range(300):
        predict(it, f"p{n}")
        it.now += 10
        tell(it, f"p{n}")
        it.batch(1_000)
        if n % 50 == 0:
            it.stop()
            it.batch(1_000)
            assert (it.reread, it.known) == (0, 0)
    settle(it)
    check(it)


def test_after_a_crash_what_is_known_is_dropped_once_it_cannot_come() -> None:
    it = world()
    for n in range(10):
        predict(it, f"p{n}")
    it.batch(1_000)
    for n in range(10):
        tell(it, f"p{n}")
    it.batch(1_000, "after the commit, and its plan is lost")
    it.batch(4)
    assert it.reread == 10
    assert it.known == 20
    settle(it)
    assert it.known == 0
    it.stop()
    it.batch(1_000)
    assert it.reread == 0
    check(it)


@pytest.mark.parametrize("batches", [1, 2, 7, 100])
def test_an_older_checkpoint_writes_no_id_again(batches: int) -> None:
    it = world()
    for n in range(30):
        predict(it, f"p{n}")
        it.now += HORIZON // 10
        if n % 3:
            tell(it, f"p{n}")
        it.batch(1_000)
    it.roll_back(batches)
    it.now += 3
    settle(it)
    check(it)


def test_a_checkpoint_that_is_lost_by_a_joiner_far_behind_loses_no_label() -> None:
    """It had read a day less than there is: what it has not read lies before a horizon ago."""
    it = world()
    for n in range(20):
        predict(it, f"p{n}")
        it.now += DAY // 20
        tell(it, f"p{n}")
    it.batch(3)
    it.now += DAY
    it.batch(3)
    it.lose()
    for _ in range(20):
        it.now += 10
        it.batch(2)
    settle(it)
    check(it)


def test_the_count_of_what_waits_survives_replays_and_batches_of_timers_only() -> None:
    it = world()
    predict(it, "a")
    it.batch(1_000, "after the commit, and its plan is lost")
    predict(it, "b")
    it.batch(1_000)
    assert it.waiting == 2
    predict(it, "c")
    it.batch(1_000, "after the commit")
    it.batch(1_000)
    assert it.waiting == 3
    it.roll_back(1)
    it.batch(1_000)
    assert it.waiting == 3
    silent = World(joining(on_timeout=None))
    predict(silent, "a")
    settle(silent)
    assert silent.waiting == 0


def test_topics_that_keep_too_little_for_a_recovery_are_warned_of() -> None:
    join = joining(remember=timedelta(milliseconds=2 * HORIZON)).join
    assert join.doubt(join.span) is None
    assert "retention_hours" in str(join.doubt(timedelta(milliseconds=4 * HORIZON)))


def test_old_markers_that_do_not_tell_what_is_settled_are_compared_once() -> None:
    it = world()
    predict(it, "a")
    it.now += 5
    tell(it, "a")
    it.batch(100)
    assert it.marker is not None
    it.marker = msgspec.structs.replace(it.marker, settled=-1)
    it.stop()
    it.batch(100)
    assert it.known == 2
    settle(it)
    assert it.known == 0
    check(it)


def do(it: World, act: str, number: int) -> None:
    match act:
        case "predict":
            if f"p{number}" not in {event.key for event in it.log[PREDICTIONS]}:
                predict(it, f"p{number}")
        case "tell":
            tell(it, f"p{number // 2}", value=number % 2 == 0)
        case "pass":
            it.now += number
        case "batch":
            it.batch(number)
        case "crash":
            it.batch(3, get_args(Ends)[number])
        case "roll back":
            it.roll_back(number)
        case _:
            {"lose": it.lose, "keep": it.keep, "restore": it.restore}[act]()


_ACTS = st.one_of(
    st.tuples(st.just("predict"), st.integers(0, 9)),
    st.tuples(st.just("tell"), st.integers(0, 19)),
    st.tuples(st.just("pass"), st.sampled_from([1, 50, 400, HORIZON, 4 * HORIZON])),
    st.tuples(st.just("batch"), st.sampled_from([1, 2, 5, 1_000])),
    st.tuples(st.just("crash"), st.integers(0, len(get_args(Ends)) - 1)),
    st.tuples(st.just("lose"), st.just(0)),
    st.tuples(st.just("roll back"), st.integers(0, 5)),
    st.tuples(st.sampled_from(["keep", "restore"]), st.just(0)),
)


@settings(max_examples=200)
@given(
    st.lists(_ACTS, max_size=40),
    st.sampled_from([None, False]),
    st.sampled_from([0, 15, 200]),
    st.sampled_from([None, 0, 2_500]),
)
def test_whatever_crashes_is_lost_or_restored_each_label_is_told_once_and_rightly(
    acts: list[tuple[str, int]], on_timeout: bool | None, patience: int, remember: int | None
) -> None:
    rules = joining(
        on_timeout=on_timeout,
        patience=timedelta(milliseconds=patience),
        remember=None if remember is None else timedelta(milliseconds=remember),
    )
    it = World(rules)
    note(f"{acts} {on_timeout=} {patience=} {remember=}")
    for act, number in acts:
        it.now += 1
        do(it, act, number)
    it.now += 1
    it.batch(1_000)
    settle(it)
    check(it)
    assert it.known == 0
