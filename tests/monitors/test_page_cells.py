"""The numbers of the heat map."""

from datetime import UTC, datetime, timedelta
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitors.findings import Effect, Finding, State
from monitors.history import WindowRecord
from monitors.page.cells import LETTERS, MAX_ROWS, STATES, Ask, Column, Registry, code, column, decode, grid, since

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
Against = Literal["baseline", "learned", "limit"]


def finding(
    feature: str,
    state: State = "quiet",
    psi: float | None = 0.01,
    segment: str = "",
    against: Against = "learned",
    kind: Literal["drift", "quality"] = "drift",
) -> Finding:
    return Finding(kind=kind, feature=feature, segment=segment, against=against, state=state, effect=Effect(psi=psi))


def columns(*windows: list[Finding], registry: Registry, hours: list[int] | None = None) -> list[Column]:
    at = hours or list(range(len(windows)))
    return [
        column(
            WindowRecord(start=START + n * HOUR, end=START + (n + 1) * HOUR, rows=10 * (n + 1), findings=found),
            registry,
        )
        for n, found in zip(at, windows, strict=True)
    ]


def test_versions_come_and_go_so_only_those_that_differ_get_a_row() -> None:
    registry = Registry()
    columns(
        [finding("x"), finding("x", segment="_version=7"), finding("x", "drift", segment="_version=8")],
        registry=registry,
    )
    assert [key.segment for key in registry.keys] == ["", "_version=8"]


@given(st.sampled_from(sorted(STATES)), st.none() | st.floats(0, 1e4, allow_nan=False))
def test_a_code_keeps_state_and_effect(state: str, effect: float | None) -> None:
    number, found = decode(code(state, effect))
    assert number == STATES[state]
    assert found == (None if effect is None else pytest.approx(effect, abs=1e-4))


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_no_effect_ever_looks_like_another_state(effect: float) -> None:
    for state, number in STATES.items():
        assert decode(code(state, effect))[0] == number


def test_a_cell_shows_the_worst_of_its_tests_and_says_when_there_were_none() -> None:
    registry = Registry()
    known = columns(
        [
            finding("a", "quiet", 0.3),
            finding("a", "drift", 0.02, against="baseline"),
            finding("b", "not enough data", None),
        ],
        [finding("a"), finding("a", "quiet", 0.05, kind="quality")],
        registry=registry,
    )
    shown = grid(known, registry, Ask())
    assert [(row.feature, row.states, row.effects) for row in shown.rows] == [
        ("a", "dq", [0.02, 0.05]),
        ("b", "n.", [None, None]),
    ]
    assert [row.states for row in grid(known, registry, Ask(against="learned", kind="drift")).rows] == ["qq", "n."]
    assert [row.states for row in grid(known, registry, Ask(kind="quality")).rows] == [".q"]


def test_rows_are_features_in_a_segment_or_segments_of_a_feature() -> None:
    registry = Registry()
    found = [finding(name, segment=part) for name in ("a", "b") for part in ("", "o=x", "o=y")]
    known = columns(found, registry=registry)
    by_feature = grid(known, registry, Ask(segment="o=x"))
    assert [(row.feature, row.segment) for row in by_feature.rows] == [("a", "o=x"), ("b", "o=x")]
    by_segment = grid(known, registry, Ask(feature="b"))
    assert [(row.feature, row.segment) for row in by_segment.rows] == [("b", ""), ("b", "o=x"), ("b", "o=y")]


def test_columns_of_several_windows_follow_the_calendar_and_name_the_window_they_show() -> None:
    registry = Registry()
    quiet, loud = [finding("a")], [finding("a", "drift", 0.4)]
    known = columns(quiet, quiet, loud, quiet, quiet, registry=registry, hours=[0, 1, 2, 3, 9])
    shown = grid(known, registry, Ask(per=4))
    assert [len(slot.windows) for slot in shown.columns] == [4, 1]
    assert shown.rows[0].states == "dq"
    assert shown.columns[0].windows[shown.rows[0].worst[0]] == START + 2 * HOUR
    assert (shown.columns[0].start, shown.columns[0].end, shown.columns[0].rows) == (START, START + 4 * HOUR, 100)
    one_more = [*known, *columns(quiet, registry=registry, hours=[10])]
    assert grid(one_more, registry, Ask(per=4)).columns[0] == shown.columns[0]


def test_the_newest_columns_are_shown_and_older_ones_can_be_asked_for() -> None:
    registry = Registry()
    known = columns(*[[finding("a")]] * 10, registry=registry)
    newest = grid(known, registry, Ask(columns=4))
    assert ([slot.start for slot in newest.columns], newest.more) == ([START + n * HOUR for n in range(6, 10)], True)
    oldest = grid(known, registry, Ask(columns=8, before=START + 6 * HOUR))
    assert (len(oldest.columns), oldest.more) == (6, False)


def test_of_too_many_rows_those_with_the_most_to_tell_stay_in_their_order() -> None:
    registry = Registry()
    many = [finding(f"f{n}", "drift" if n % 50 == 49 else "quiet", 0.001 * n) for n in range(MAX_ROWS + 100)]
    shown = grid(columns(many, registry=registry), registry, Ask())
    names = [row.feature for row in shown.rows]
    assert (len(names), shown.left_off) == (MAX_ROWS, 100)
    assert {f"f{n}" for n in range(49, MAX_ROWS + 100, 50)} <= set(names)
    assert names == sorted(names, key=lambda name: int(name[1:]))


def test_nothing_known_is_an_empty_grid() -> None:
    shown = grid([], Registry(), Ask())
    assert (shown.columns, shown.rows, shown.left_off, shown.more) == ([], [], 0, False)


def test_a_drift_began_with_the_unbroken_run_that_too_little_data_does_not_break() -> None:
    registry = Registry()
    states: list[State] = ["drift", "quiet", "drift", "not enough data", "drift", "drift"]
    known = columns(*[[finding("a", state)] for state in states], registry=registry)
    assert since(known, registry, "a", "", START + 5 * HOUR) == START + 2 * HOUR
    assert since(known, registry, "a", "", START + 1 * HOUR) is None
    assert since(known, registry, "a", "", START + 3 * HOUR) is None
    assert since(known, registry, "other", "", START + 5 * HOUR) is None


def test_every_state_has_a_letter() -> None:
    assert [LETTERS[number] for number in STATES.values()] == ["n", "q", "d"]
