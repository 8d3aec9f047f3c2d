"""The life of an alert: one certain finding opens it, several quiet rounds end it, and the same rounds tell the same."""

import itertools
import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from monitors.alerts import Alert, WindowSpan
from monitors.findings import Effect, Finding, Kind
from monitors.life import Life, LifePolicy, Seen, pass_window, severity_of, step
from stream_trainer.acting import TWO_REFERENCES

from .worlds import START

POLICY = LifePolicy(repeat_every=timedelta(minutes=50), cooldown=timedelta(minutes=15))
MINUTES = 5
SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "schemas" / "alert.json").read_text())


def seen(number: int, windows: int = 1) -> Seen:
    end = START + timedelta(minutes=MINUTES * (number + 1))
    span = WindowSpan(start=end - timedelta(minutes=MINUTES * windows), end=end, rows=2_000)
    return Seen(pipeline="flights", window=span, model_version=number + 1, offsets={"P.predictions": {0: (0, 9)}})


def finding(p_value: float, psi: float = 0.2, **fields: object) -> Finding:
    found = Finding(
        kind="drift",
        feature="x",
        against="learned",
        state="drift" if p_value <= 1e-6 else "quiet",
        p_value=p_value,
        threshold=1e-6,
        effect=Effect(psi=psi),
        rows=2_000,
        detail="[0, 1): 1.00% -> 2.00%",
    )
    return msgspec.structs.replace(found, **fields)


DRIFT, QUIET, DOUBT = finding(1e-9), finding(0.4), finding(0.005)
NOTHING = finding(1.0, state="not enough data")
BAD = finding(1e-9, psi=0.3)


def walk(rounds: list[Finding], life: Life | None = None) -> list[tuple[int, Alert]]:
    life = life or Life()
    found = []
    for number, one in enumerate(rounds):
        life, events = step(life, [one], seen(number, one.windows), POLICY)
        found += [(number, event) for event in events]
    return found


def told(rounds: list[Finding]) -> list[tuple[int, str]]:
    return [(number, event.status) for number, event in walk(rounds)]


def test_one_certain_round_opens_an_alert_and_two_quiet_ones_end_it() -> None:
    found = walk([QUIET, DRIFT, DRIFT, QUIET, DRIFT, QUIET, QUIET, QUIET])

    assert [(n, e.status) for n, e in found] == [(1, "opened"), (6, "resolved")]
    opened, resolved = (event for _, event in found)
    assert opened.alert_key == resolved.alert_key == "drift/learned/x"
    assert opened.since == seen(1).window.start
    assert resolved.opened_at == opened.opened_at == seen(1).window.end
    assert (opened.p_value, opened.threshold, opened.psi, opened.severity) == (1e-9, 1e-6, 0.2, "warning")
    assert "the world moved and the model did not" in opened.message
    assert "version 2" in opened.message
    assert "[0, 1): 1.00% -> 2.00%" in opened.message


def test_what_is_in_doubt_opens_nothing_and_ends_nothing() -> None:
    assert told([DOUBT] * 5) == []
    assert told([DRIFT, QUIET, DOUBT, QUIET, DOUBT, QUIET, QUIET]) == [(0, "opened"), (6, "resolved")]


def test_too_little_data_changes_nothing() -> None:
    assert told([NOTHING, DRIFT, QUIET, NOTHING, QUIET]) == [(1, "opened"), (4, "resolved")]


def test_a_lasting_alert_is_repeated_seldom_and_a_worse_one_at_once() -> None:
    assert told([DRIFT] * 22) == [(0, "opened"), (10, "updated"), (20, "updated")]
    found = walk([DRIFT, BAD, BAD, DRIFT])
    assert [(n, e.status, e.severity) for n, e in found] == [(0, "opened", "warning"), (1, "updated", "critical")]


def test_what_the_model_has_followed_is_repeated_about_daily() -> None:
    alone = finding(1e-9, against="baseline")
    assert told([alone] * (2 * 288 + 1)) == [(0, "opened"), (288, "updated"), (576, "updated")]


def test_after_its_end_an_alert_rests_unless_it_is_worse() -> None:
    rounds = [DRIFT, QUIET, QUIET, DRIFT, DRIFT, DRIFT]

    assert told(rounds) == [(0, "opened"), (2, "resolved"), (5, "opened")]
    assert told([*rounds[:3], BAD]) == [(0, "opened"), (2, "resolved"), (3, "opened")]


def test_an_alert_that_many_windows_found_is_not_ended_by_single_ones() -> None:
    together, still = finding(1e-9, windows=16), finding(0.4, windows=16)

    assert told([together, *[QUIET] * 30]) == [(0, "opened")]
    assert told([together, QUIET, still, QUIET, still]) == [(0, "opened"), (4, "resolved")]


def test_windows_of_an_alert_that_has_ended_do_not_open_it_again() -> None:
    together = finding(1e-9, psi=0.5, windows=16)

    assert told([DRIFT, QUIET, QUIET, *[QUIET] * 12, together]) == [(0, "opened"), (2, "resolved")]
    assert told([DRIFT, QUIET, QUIET, *[QUIET] * 16, together])[-1] == (19, "opened")


def test_what_differs_from_both_references_is_told_as_not_learned() -> None:
    both = [finding(1e-9), finding(1e-12, against="baseline")]
    life, events = step(Life(), both, seen(0), POLICY)

    assert [event.alert_key for event in events] == ["drift/learned/x"]
    # Meanwhile the baseline says nothing, even when the learned reference is quiet for a round.
    life, events = step(life, [finding(0.4), finding(1e-12, against="baseline")], seen(1), POLICY)
    assert events == []
    life, events = step(life, [finding(0.4), finding(1e-12, against="baseline")], seen(2), POLICY)
    assert [(event.alert_key, event.status) for event in events] == [("drift/learned/x", "resolved")]
    _, events = step(life, [finding(0.4), finding(1e-12, against="baseline")], seen(3), POLICY)
    assert [(event.alert_key, event.status) for event in events] == [("drift/baseline/x", "opened")]


@pytest.mark.parametrize(
    ("learned", "words"),
    [
        ([QUIET], "the world moved and the model followed"),
        ([DOUBT], "whether version 1 followed is not certain"),
        ([NOTHING], "has learned cannot be compared"),
        ([], "has learned cannot be compared"),
    ],
)
def test_drift_from_the_baseline_alone_says_whether_the_model_followed(learned: list[Finding], words: str) -> None:
    _, events = step(Life(), [*learned, finding(1e-12, against="baseline")], seen(0), POLICY)

    assert [event.alert_key for event in events] == ["drift/baseline/x"]
    assert words in events[0].message


@pytest.mark.parametrize("kind", sorted(TWO_REFERENCES))
def test_once_the_model_has_followed_its_alert_ends_and_the_baselines_is_another(kind: Kind) -> None:
    life, found = Life(), []
    for number in range(6):
        learned = finding(1e-9 if number < 2 else 0.4, kind=kind)
        life, events = step(life, [learned, finding(1e-12, kind=kind, against="baseline")], seen(number), POLICY)
        found += [(number, event.alert_key, event.status, event.against) for event in events]

    ours, other = f"{kind}/learned/x", f"{kind}/baseline/x"
    assert found == [
        (0, ours, "opened", "learned"),
        (3, ours, "resolved", "learned"),
        (4, other, "opened", "baseline"),
    ]
    assert "followed" in life.open[other].message


def test_a_column_that_is_told_under_anothers_name_is_not_told_against_the_baseline_too() -> None:
    grouped = finding(1e-9, kind="quality", feature="a", together=("a", "b"))
    life, events = step(Life(), [grouped], seen(0), POLICY)
    alone = finding(1e-9, kind="quality", feature="b", against="baseline")
    for number, findings in enumerate(([grouped, alone], [alone], [finding(0.4, kind="quality", feature="b"), alone])):
        life, events = step(life, findings, seen(number + 1), POLICY)
        assert events == []


def without_data(one: Finding, rounds: list[list[Finding]], patience: int = 5) -> list[tuple[int, Alert]]:
    """What is told after an alert was opened, in rounds of which each is one window of predictions."""
    policy = replace(POLICY, patience=patience, label_patience=patience)
    life, found = Life(), []
    for number, findings in enumerate([[one], *rounds]):
        life, events = step(life, findings, seen(number), policy)
        life, ended = pass_window(life, seen(number).window.end, policy)
        found += [(number, event) for event in [*events, *ended]]
    return found[1:]


@pytest.mark.parametrize("one", [finding(1e-9, segment="at=JFK"), finding(1e-9, kind="loss", feature="")])
def test_what_is_not_asked_about_any_more_ends_with_patience_and_opens_again_when_it_comes_back(one: Finding) -> None:
    found = without_data(one, [*[[finding(0.4, feature="y")]] * 20, [one]])
    assert [(number, event.status) for number, event in found] == [(5, "resolved"), (21, "opened")]
    assert "nothing was there to compare in 5 windows" in found[0][1].message
    ended = seen(0 if one.kind == "loss" else 5).window.end  # labels have a time of their own
    assert (found[0][1].updated_at, found[0][1].opened_at) == (ended, seen(0).window.end)


def test_a_pause_of_labels_ends_their_alerts_later_and_mutes_nothing_when_they_are_back() -> None:
    late, policy = finding(1e-9, kind="loss", feature=""), replace(POLICY, patience=5, label_patience=20)
    life, _ = step(Life(), [late], seen(0), policy)
    statuses = []
    for number in range(40):  # labels are ten windows late, and pause
        life, ended = pass_window(life, seen(number + 10).window.end, policy)
        life, events = step(life, [late] if number > 30 else [], seen(number), policy)
        statuses += [(number, event.status) for event in [*ended, *events]]
    assert statuses[:2] == [(20, "resolved"), (31, "opened")]


def test_what_is_never_enough_to_compare_ends_its_alert() -> None:
    one = finding(1e-9)
    nothing = msgspec.structs.replace(one, state="not enough data", rows=0)
    found = without_data(one, [[nothing]] * 20)
    assert [(number, event.status) for number, event in found] == [(5, "resolved")]


def _asked(round_: list[Finding]) -> bool:
    return any(finding.state != "not enough data" for finding in round_)


@given(st.lists(st.sampled_from([[], [NOTHING], [DRIFT], [DOUBT]]), max_size=40))
def test_an_alert_about_which_data_come_now_and_then_goes_on(rounds: list[list[Finding]]) -> None:
    longest = max((len(list(same)) for asked, same in itertools.groupby(rounds, _asked) if not asked), default=0)
    assert {event.status for _, event in without_data(DRIFT, rounds, patience=longest + 1)} <= {"updated"}


def test_an_alert_of_many_windows_waits_for_as_many_again() -> None:
    together = finding(1e-9, windows=16, segment="at=JFK")
    assert [number for number, _ in without_data(together, [[]] * 60)] == [48]


def test_a_long_pause_in_which_nobody_asked_ends_nothing() -> None:
    life, _ = step(Life(), [DRIFT], seen(0), POLICY)
    life, events = pass_window(life, seen(9_000).window.end, POLICY)
    assert events == []
    assert list(life.open) == ["drift/learned/x"]


ALERTS_ALONE = st.lists(st.sampled_from([DRIFT, QUIET, DOUBT, BAD]), min_size=1, max_size=12)


@given(ALERTS_ALONE, st.integers(100, 200))
def test_windows_from_before_an_alert_say_nothing_of_it_when_they_are_judged_again(
    rounds: list[Finding], opened: int
) -> None:
    life, _ = step(Life(), [DRIFT], seen(opened), POLICY)
    again = Life(open=life.open)  # the state is lost, not the log of alerts
    for number, one in enumerate(rounds):
        again, events = step(again, [one], seen(number), replace(POLICY, patience=1))
        again, ended = pass_window(again, seen(number).window.end, replace(POLICY, patience=1))
        assert [*events, *ended] == []
    assert again.open == life.open


def test_an_alert_that_many_windows_found_is_not_ended_by_single_ones_after_the_state_was_lost() -> None:
    life, _ = step(Life(), [finding(1e-9, windows=16)], seen(0), POLICY)
    assert walk([QUIET] * 30, Life(open=life.open)) == []
    assert [event.status for _, event in walk([finding(0.4, windows=16)] * 2, Life(open=life.open))] == ["resolved"]


def test_what_is_long_over_is_forgotten() -> None:
    life, _ = step(Life(), [DRIFT], seen(0), replace(POLICY, resolve_after=1))
    life, _ = step(life, [QUIET], seen(1), replace(POLICY, resolve_after=1))
    life, _ = pass_window(life, seen(288).window.end, POLICY)
    assert list(life.courses) == ["drift/learned/x"]
    life, _ = pass_window(life, seen(289).window.end, POLICY)
    assert life == Life()


def test_a_new_version_in_every_window_is_one_alert_that_names_the_version() -> None:
    life, found = Life(), []
    for number in range(9):
        beside = [finding(0.4, segment=f"_version={number}"), finding(1e-9, segment=f"_version={number + 1}")]
        life, events = step(life, beside, seen(number), replace(POLICY, repeat_every=timedelta(minutes=20)))
        found += [(event.alert_key, event.status, event.segment, event.model_version) for event in events]

    key = "drift/learned/x/_version"
    assert found == [
        (key, "opened", "_version=1", 1),
        (key, "updated", "_version=5", 5),
        (key, "updated", "_version=9", 9),
    ]
    assert "from what version 9 has learned" in life.open[key].message


def test_severity_is_the_findings_own_or_that_of_its_effect() -> None:
    sizes = [severity_of(finding(1e-9, psi=psi), POLICY) for psi in (0.05, 0.1, 0.24, 0.25)]

    assert sizes == ["info", "warning", "warning", "critical"]
    assert severity_of(finding(1e-9, effect=Effect()), POLICY) == "warning"
    assert severity_of(finding(1e-9, psi=0.5, severity="info"), POLICY) == "info"


ROUNDS = st.lists(
    st.sampled_from([DRIFT, QUIET, DOUBT, NOTHING, BAD, finding(1e-9, windows=4), finding(0.4, windows=4)]), max_size=50
)


@given(ROUNDS)
def test_a_life_is_opened_updates_resolved_in_that_order(rounds: list[Finding]) -> None:
    is_open = False
    validator = Draft202012Validator(SCHEMA)
    for _, event in walk(rounds):
        assert (event.status == "opened") != is_open
        is_open = event.status != "resolved"
        assert event.updated_at >= event.opened_at
        validator.validate(json.loads(msgspec.json.encode(event)))


@given(ROUNDS, st.integers(0, 50))
def test_a_life_that_was_written_down_and_read_again_tells_the_same(rounds: list[Finding], at: int) -> None:
    life, events = Life(), []
    for number, one in enumerate(rounds):
        if number == at:
            life = msgspec.msgpack.decode(msgspec.msgpack.encode(life), type=Life)
            again = step(life, [one], seen(number, one.windows), POLICY)
            assert again == step(life, [one], seen(number, one.windows), POLICY)
        life, some = step(life, [one], seen(number, one.windows), POLICY)
        events += [(number, event) for event in some]

    assert events == walk(rounds)


@given(ROUNDS)
def test_quiet_rounds_of_the_longest_scale_always_end_an_alert(rounds: list[Finding]) -> None:
    found = walk([*rounds, *[finding(0.4, windows=64)] * 2])

    assert not found or found[-1][1].status == "resolved"
