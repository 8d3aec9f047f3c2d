"""What alerts ask of the trainer: once each, whatever is repeated, and holds end when nobody needs them."""

import itertools
import json
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitors.acting import Actor, publishing
from monitors.alerts import Alert
from stream_trainer.acting import (
    Asked,
    HoldPromotion,
    RaiseLearningRate,
    ReleasePromotion,
    RollBack,
    When,
    id_of_alert,
    parse,
)
from tests.core.test_acting import SCHEMA
from tests.monitors.worlds import alert

AT = datetime(2026, 1, 1, tzinfo=UTC)
RULES = (
    When(kind="drift", severity="critical", do=RaiseLearningRate()),
    When(kind="drift", do=HoldPromotion()),
    When(kind="drift", feature="y", severity="critical", do=RollBack()),
)


def said(feature: str, status: str = "opened", severity: str = "critical", minutes: int = 0, opened: int = 0) -> Alert:
    at, since = AT + timedelta(minutes=minutes), AT + timedelta(minutes=opened)
    return alert(
        alert_key=f"drift/{feature}", feature=feature, status=status, severity=severity, opened_at=since, updated_at=at,
        since=None,
    )  # fmt: skip


def kinds(found: Sequence[Asked]) -> list[str]:
    return [request.action.kind for request in found]


class World:
    def __init__(self) -> None:
        self.sent: list[Asked] = []
        self.trouble: Exception | None = None
        self.actor = Actor(RULES, self.send)

    def send(self, requests: Sequence[Asked]) -> None:
        if self.trouble is not None:
            raise self.trouble
        self.sent += requests

    def restart(self, *open_alerts: Alert) -> None:
        self.actor = Actor(RULES, self.send, asked=self.sent, open_alerts=open_alerts)


def test_an_alert_asks_what_its_rules_say_and_names_itself() -> None:
    world = World()
    found = world.actor.act([said("x", severity="warning")])
    assert kinds(found) == ["hold_promotion"]
    assert found[0].action_id == id_of_alert("drift/x", AT, HoldPromotion())
    assert found[0].alert is not None
    assert (found[0].alert.alert_key, found[0].alert.since, found[0].by) == ("drift/x", AT, "monitor")
    assert kinds(world.actor.act([said("x", "updated", "critical", 5)])) == ["raise_learning_rate"]
    assert kinds(world.actor.act([said("y")])) == ["raise_learning_rate", "hold_promotion", "roll_back"]
    for request in world.sent:
        data = msgspec.json.encode(request)
        SCHEMA.validate(json.loads(data))
        assert parse(request.action_id.encode(), data) == request


def test_nothing_is_asked_because_the_model_followed() -> None:
    world = World()
    world.actor.act([said("y")])
    world.actor.act([said("y", "resolved", minutes=5)])
    followed = msgspec.structs.replace(said("y", minutes=5, opened=5), alert_key="drift/baseline/y", against="baseline")
    assert world.actor.act([followed]) == []


def test_a_hold_ends_with_the_last_alert_that_asked_for_one() -> None:
    world = World()
    holds = [r for f in "xy" for r in world.actor.act([said(f, severity="warning")])]
    assert kinds(world.actor.act([said("x", "resolved", minutes=5)])) == []
    released = world.actor.act([said("y", "resolved", minutes=9)])
    assert [r.action for r in released] == [ReleasePromotion(hold=hold.action_id) for hold in holds]
    assert {r.asked_at for r in released} == {AT + timedelta(minutes=9)}
    assert world.actor.act([said("z", "resolved", minutes=9)]) == []
    assert kinds(world.actor.act([said("x", severity="warning", minutes=20, opened=20)])) == ["hold_promotion"]


def test_what_could_not_be_sent_is_asked_again() -> None:
    world = World()
    world.trouble = OSError("no broker")
    with pytest.raises(OSError, match="no broker"):
        world.actor.act([said("x")])
    world.trouble = None
    assert kinds(world.actor.act([said("x")])) == ["raise_learning_rate", "hold_promotion"]


def test_a_release_that_a_dead_monitor_owed_is_asked_for_at_the_start_after_the_alerts_are_told() -> None:
    world = World()
    told: list[Any] = []
    world.actor.act([said("x", severity="warning")])
    world.restart()
    publish = publishing(lambda events: told.append((list(events), len(world.sent))), world.actor)
    assert kinds(world.sent) == ["hold_promotion", "release_promotion"]
    publish([said("y")])
    assert [sent for _, sent in told] == [2]
    assert len(world.sent) == 5


def test_two_threads_that_act_know_of_each_others_alerts() -> None:
    sent: list[Asked] = []
    other_acted = threading.Event()

    def act_too() -> None:
        actor.act([said("y")])
        other_acted.set()

    other = threading.Thread(target=act_too)

    def send(requests: Sequence[Asked]) -> None:
        if not other.ident:  # the first is still sending when the second one comes
            other.start()
            other_acted.wait(0.2)
        sent.extend(requests)

    actor = Actor(RULES[1:2], send)
    actor.act([said("x")])
    other.join()
    assert kinds(sent) == ["hold_promotion"] * 2
    assert actor.act([said("x", "resolved", minutes=5)]) == []


def test_a_key_with_anything_in_it_is_still_a_request() -> None:
    world = World()
    found = world.actor.act([said("a\nb\x1b[31m\u2028" + "x" * 1000)])
    for request in found:
        assert parse(request.action_id.encode(), msgspec.json.encode(request)) == request


def test_a_hold_that_has_ended_holds_nothing_when_its_alert_comes_again() -> None:
    world = World()
    world.actor.act([said("x", severity="warning")])
    world.actor.act([said("x", "resolved", minutes=1)])
    world.actor.act([said("x", severity="info", minutes=10, opened=10)])
    hold = world.actor.act([said("z", severity="warning", minutes=20, opened=20)])
    released = world.actor.act([said("z", "resolved", minutes=30, opened=20)])
    assert [r.action for r in released] == [ReleasePromotion(hold=hold[0].action_id)]


def test_what_is_held_may_keep_its_alert_open_and_is_let_go_after_a_time() -> None:
    world, day = World(), 24 * 60
    hold = world.actor.act([said("x", severity="warning")])
    world.restart(said("x", severity="warning"))
    assert world.actor.act([said("x", "updated", "warning", minutes=day - 1)]) == []
    released = world.actor.act([said("x", "updated", "warning", minutes=day)])
    assert [r.action for r in released] == [ReleasePromotion(hold=hold[0].action_id)]
    assert world.actor.act([said("x", "updated", "warning", minutes=2 * day)]) == []


def test_an_alert_that_grows_severe_late_holds_as_long_as_any() -> None:
    world, days = World(), 3 * 24 * 60
    world.actor.act([said("x", severity="info")])
    assert kinds(world.actor.act([said("x", "updated", "warning", minutes=days)])) == ["hold_promotion"]
    assert world.actor.act([said("x", "updated", "warning", minutes=days + 60)]) == []


def test_long_keys_that_begin_alike_are_asked_for_apart() -> None:
    world, long = World(), "x" * 1000
    found = [request for name in (long + "a", long + "b") for request in world.actor.act([said(name)])]
    assert len({request.action_id for request in found}) == len(found) == 4


STEPS = st.lists(st.tuples(st.sampled_from("xyz"), st.booleans(), st.booleans()), max_size=30)


@given(STEPS)
def test_restarts_and_repetitions_ask_for_nothing_more_and_no_hold_outlives_its_alerts(
    steps: list[tuple[str, bool, bool]],
) -> None:
    once, often = World(), World()
    open_since: dict[str, int] = {}
    open_alerts: dict[str, Alert] = {}
    for minute, (feature, repeat, restart) in enumerate(steps):
        status = "resolved" if feature in open_since else "opened"
        event = said(feature, status, "warning", minute, open_since.pop(feature, minute))
        if status == "opened":
            open_since[feature] = minute
            open_alerts[feature] = event
        else:
            del open_alerts[feature]
        once.actor.act([event])
        often.actor.act([event])
        if restart:
            often.restart(*open_alerts.values())
        if repeat:
            often.actor.act([event])
    assert [r.action_id for r in often.sent] == [r.action_id for r in once.sent]
    holds = {r.action_id for r in once.sent if isinstance(r.action, HoldPromotion)}
    released = {r.action.hold for r in once.sent if isinstance(r.action, ReleasePromotion)}
    assert released <= holds
    if not open_since:
        assert released == holds
    assert len({r.action_id for r in once.sent}) == len(once.sent)
    assert all(a.asked_at <= b.asked_at for a, b in itertools.pairwise(once.sent))
