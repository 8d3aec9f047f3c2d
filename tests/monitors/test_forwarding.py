"""What stands in `P.alerts` reaches the webhook, whoever wrote it, across stops, failures and new topics."""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from infra.broker import BrokerInfo
from monitors.alert_log import open_alerts
from monitors.findings import Severity
from monitors.forwarding import AGE_SECONDS, MOST_WAITING, PATH, Forwarder, Position
from monitors.outgoing import Failed
from monitors.query import _publisher
from monitors.webhook import Webhook
from stream_trainer.alerts import TrainerAlert, damage_alert
from stream_trainer.errors import BrokerUnavailable
from stream_trainer.kafka import Admin, ControlProducer, topic_plans
from stream_trainer.outbox import KafkaOutbox
from stream_trainer.settings import KafkaSettings
from stream_trainer.store import open_store
from stream_trainer.store.storage import LocalStorage
from stream_trainer.topic_reading import Record
from tests.security.test_webhook import ALERT, NOW

from .worlds import pipeline, settings

PATIENCE = 30.0


class Posted:
    """A receiver that lets a test wait for what it got; `down` fails so many tries first, `never` those of some alerts."""

    def __init__(self, down: int = 0, never: Sequence[str] = ()) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.outcomes: list[str] = []
        self.ids: list[str] = []
        self.down = down
        self.never = never
        self.gone: Sequence[str] = ()
        self.tries = 0
        self._changed = threading.Condition()

    def __call__(self, body: bytes, delivery_id: str) -> None:
        with self._changed:
            self.tries += 1
            self._changed.notify_all()
            if self.tries <= self.down or msgspec.json.decode(body)["alert_key"] in self.never:
                raise Failed("down", again=True)
            if msgspec.json.decode(body)["alert_key"] in self.gone:
                raise Failed("gone", again=False)
            self.bodies.append(msgspec.json.decode(body))
            self.ids.append(delivery_id)
            self._changed.notify_all()

    def wait(self, *, posted: int = 0, tries: int = 0, outcomes: int = 0) -> list[str]:
        """The keys and states that came, once there are so many, so many were tried, and so many are done with."""

        def done() -> bool:
            return len(self.bodies) >= posted and self.tries >= tries and len(self.outcomes) >= outcomes

        with self._changed:
            assert self._changed.wait_for(done, PATIENCE)
            return [f"{body['alert_key']} {body['status']}" for body in self.bodies]

    def webhook(self) -> Webhook:
        return Webhook(self, self._ended)

    def _ended(self, outcome: str) -> None:
        with self._changed:
            self.outcomes.append(outcome)
            self._changed.notify_all()


class MemoryLog:
    """`P.alerts` of one partition in memory; reading raises what stands in `troubles`."""

    def __init__(self) -> None:
        self.topic_id = "one"
        self.records: list[tuple[bytes, bytes | None]] = []
        self.troubles: list[Exception] = []
        self.page = 10**9
        self._at = 0
        self._changed = threading.Condition()

    def write(self, key: str, value: Any) -> None:
        with self._changed:
            raw = value if isinstance(value, bytes) or value is None else msgspec.json.encode(value)
            self.records.append((key.encode(), raw))
            self._changed.notify_all()

    def alert(self, key: str, status: str, **fields: str) -> None:
        self.write(key, {"alert_key": key, "status": status, "n": len(self.records), **fields})

    def ends(self) -> dict[int, int]:
        return {0: len(self.records)}

    def seek(self, offsets: Mapping[int, int]) -> None:
        self._at = offsets.get(0, 0)

    def position(self) -> dict[int, int]:
        return {0: self._at}

    def poll(self, seconds: float) -> list[Record]:
        with self._changed:
            if self.troubles:
                raise self.troubles.pop()
            self._changed.wait_for(lambda: len(self.records) > self._at, seconds)
            until = min(len(self.records), self._at + self.page)
            found = [Record(0, i, *self.records[i]) for i in range(self._at, until)]
        self._at = until
        return found


class World:
    """A forwarder that can be started anew over the same log and storage."""

    def __init__(self, folder: Path) -> None:
        self.log = MemoryLog()
        self.storage = LocalStorage(folder)
        self.now = 0.0
        self.waiting: list[int] = []

    def position(self) -> Position:
        return msgspec.json.decode(self.storage.get(PATH), type=Position)

    @contextmanager
    def forwarding(self, posted: Posted, pause: float = 0.0, least: Severity = "info") -> Iterator[None]:
        @contextmanager
        def opened() -> Iterator[MemoryLog]:
            yield self.log

        forwarder = Forwarder(
            opened,
            posted.webhook(),
            self.storage,
            least=least,
            pauses=(pause,),
            again_seconds=0.0,
            tell=self.waiting.append,
            clock=lambda: self.now,
        )
        forwarder.start()
        try:
            yield
        finally:
            forwarder.stop(PATIENCE)
            forwarder.stop()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_the_first_time_what_is_open_is_posted_and_then_all_that_comes(world: World) -> None:
    for key, status in (("a", "opened"), ("b", "opened"), ("a", "updated"), ("b", "resolved"), ("c", "opened")):
        world.log.alert(key, status)
    posted = Posted()
    with world.forwarding(posted):
        posted.wait(posted=2)
        world.log.alert("b", "opened")
        world.log.alert("a", "resolved")
        assert posted.wait(posted=4) == ["a updated", "c opened", "b opened", "a resolved"]
    assert posted.outcomes == ["delivered"] * 4


def test_what_is_raised_while_nobody_forwards_is_posted_by_the_next_one_once(world: World) -> None:
    first, second = Posted(), Posted()
    world.log.alert("a", "opened")
    with world.forwarding(first):
        first.wait(posted=1)
    world.log.alert("a", "resolved")
    with world.forwarding(second):
        assert second.wait(posted=1) == ["a resolved"]
    assert first.wait(posted=1) == ["a opened"]


@pytest.mark.parametrize("known", [True, False])
def test_an_alert_whose_next_try_is_awaited_at_the_end_is_posted_by_the_next_one(world: World, known: bool) -> None:
    if known:
        with world.forwarding(Posted()):
            wait_for_position(world)
    world.log.alert("a", "opened")
    world.log.alert("b", "resolved")
    first, second = Posted(down=1), Posted()
    with world.forwarding(first, pause=600.0):
        first.wait(tries=1)
    assert (first.bodies, first.outcomes) == ([], [])
    with world.forwarding(second):
        assert second.wait(posted=2 if known else 1) == ["a opened", "b resolved"][: 2 if known else 1]


def wait_for_position(world: World) -> None:
    deadline, tick = time.monotonic() + PATIENCE, threading.Event()
    while not world.storage.exists(PATH):
        assert time.monotonic() < deadline
        tick.wait(0.01)


def test_a_broker_that_is_away_for_a_while_delays_alerts_only(world: World) -> None:
    posted = Posted()
    world.log.troubles = [BrokerUnavailable("away")] * 3
    world.log.alert("a", "opened")
    with world.forwarding(posted):
        assert posted.wait(posted=1) == ["a opened"]


def test_a_topic_that_was_made_anew_is_read_from_its_beginning(world: World) -> None:
    first, second = Posted(), Posted()
    world.log.alert("a", "opened")
    with world.forwarding(first):
        first.wait(posted=1)
    world.log = MemoryLog()
    world.log.topic_id = "two"
    world.log.alert("b", "opened")
    with world.forwarding(second):
        assert second.wait(posted=1) == ["b opened"]


def test_an_unreadable_position_posts_what_is_open_again(world: World) -> None:
    first, second = Posted(), Posted()
    world.log.alert("a", "opened")
    with world.forwarding(first):
        first.wait(posted=1)
    world.storage.put(PATH, b"{")
    with world.forwarding(second):
        assert second.wait(posted=1) == ["a opened"]
    assert first.ids == second.ids


def test_tombstones_and_what_is_no_alert_are_passed_over(world: World) -> None:
    posted = Posted()
    with world.forwarding(posted):
        for value in (None, b"not json", b"[]", b"\xff"):
            world.log.write("x", value)
        world.log.alert("a", "opened")
        assert posted.wait(posted=1) == ["a opened"]


def test_what_is_less_severe_than_asked_for_is_not_posted_until_it_is_worse_and_then_to_its_end(world: World) -> None:
    first, second = Posted(), Posted()
    world.log.alert("old", "opened", severity="info")
    with world.forwarding(first, least="warning"):
        wait_for_position(world)
        world.log.alert("small", "opened", severity="info")
        world.log.alert("grows", "opened", severity="info")
        world.log.alert("grows", "updated", severity="warning")
        world.log.alert("small", "resolved", severity="info")
        world.log.alert("unnamed", "opened")
        assert first.wait(posted=2) == ["grows updated", "unnamed opened"]
    world.log.alert("grows", "updated", severity="info")
    world.log.alert("grows", "resolved", severity="info")
    world.log.alert("grows", "opened", severity="info")
    world.log.alert("end", "opened", severity="critical")
    with world.forwarding(second, least="warning"):
        assert second.wait(posted=3) == ["grows updated", "grows resolved", "end opened"]
    assert first.outcomes == ["delivered"] * 2


def test_what_is_open_the_first_time_is_posted_when_it_is_severe_enough(world: World) -> None:
    world.log.alert("small", "opened", severity="warning")
    world.log.alert("large", "opened", severity="critical")
    posted = Posted()
    with world.forwarding(posted, least="critical"):
        assert posted.wait(posted=1) == ["large opened"]
        world.log.alert("large", "resolved", severity="critical")
        assert posted.wait(posted=2) == ["large opened", "large resolved"]


def test_a_receiver_that_is_away_for_hours_gets_what_was_raised_meanwhile_the_newest_of_each(world: World) -> None:
    before, away, after = Posted(), Posted(down=10**9), Posted()
    world.log.alert("a", "opened")
    with world.forwarding(before):
        before.wait(posted=1)
    with world.forwarding(away):
        world.log.alert("b", "opened")
        away.wait(tries=6)  # more than there are pauses
        world.log.alert("a", "resolved")
        world.log.alert("b", "updated")
        world.now = AGE_SECONDS - 1
        away.wait(tries=12)
    assert away.outcomes == []
    with world.forwarding(after):
        assert after.wait(posted=2) == ["a resolved", "b updated"]
    assert world.position().told == {"b"}
    assert max(world.waiting) == 2
    assert world.waiting[-1] == 0


def test_an_alert_that_a_receiver_never_takes_holds_up_no_other_and_is_given_up_after_a_day(world: World) -> None:
    posted = Posted(never=["poison"])
    with world.forwarding(posted):
        world.log.alert("poison", "opened")
        for number, status in enumerate(("opened", "updated", "resolved"), 1):
            world.log.alert("a", status)
            assert posted.wait(posted=number)[-1] == f"a {status}"
        assert posted.outcomes == ["delivered"] * 3
        world.now = AGE_SECONDS
        posted.wait(outcomes=4)
        world.log.alert("b", "opened")
        assert posted.wait(posted=4)[-1] == "b opened"
    assert posted.outcomes == ["delivered"] * 3 + ["failed", "delivered"]
    assert world.position().waiting == {}
    assert world.position().told == {"b"}


def test_what_the_receiver_refuses_for_good_leaves_it_with_what_it_believed(world: World) -> None:
    posted = Posted()
    with world.forwarding(posted, least="warning"):
        world.log.alert("a", "opened", severity="critical")
        posted.wait(posted=1)
        posted.gone = ["a"]
        world.log.alert("a", "resolved", severity="critical")
        world.log.alert("b", "opened", severity="critical")
        posted.wait(posted=2)
        posted.gone = []
        world.log.alert("a", "updated", severity="info")
        assert posted.wait(posted=3)[-1] == "a updated"
    assert posted.outcomes == ["delivered", "failed", "delivered", "delivered"]


def test_while_too_many_wait_the_topic_holds_the_others(world: World) -> None:
    away, after = Posted(down=10**9), Posted()
    many = MOST_WAITING + 20
    for number in range(many):
        world.log.alert(f"{number:04d}", "resolved")
    with world.forwarding(away):
        wait_for_position(world)
    world.log.page = 10
    for number in range(many):
        world.log.alert(f"{number:04d}", "opened")
    with world.forwarding(away, pause=600.0):
        away.wait(tries=MOST_WAITING)
    assert MOST_WAITING <= len(world.position().waiting) < many
    with world.forwarding(after):
        assert after.wait(posted=many) == [f"{number:04d} opened" for number in range(many)]


def test_f38_a_crash_between_posting_and_noting_it_posts_again_under_the_same_id(world: World) -> None:
    first, second = Posted(), Posted()
    with world.forwarding(Posted()):
        wait_for_position(world)
    before = world.storage.get(PATH)
    world.log.alert("a", "opened", severity="critical")
    with world.forwarding(first):
        first.wait(posted=1)
    world.storage.put(PATH, before)
    with world.forwarding(second):
        assert second.wait(posted=1) == ["a opened"]
    assert first.ids == second.ids


def test_alerts_of_the_trainer_and_of_the_monitor_are_posted_alike(broker: BrokerInfo, tmp_path: Path) -> None:
    of = settings(tmp_path, kafka=KafkaSettings(bootstrap_servers=broker.bootstrap_servers))
    watched = pipeline(f"forwarded-{tmp_path.name.lower().replace('_', '-')[:40]}")
    producer = ControlProducer(of.kafka)
    opening = partial(open_alerts, of.kafka, watched.topics.alerts)
    storage = LocalStorage(tmp_path / "monitor")
    gate = TrainerAlert(
        alert_key="gate/finite",
        kind="gate",
        pipeline=watched.name,
        status="opened",
        model_version=3,
        opened_at=NOW,
        updated_at=NOW,
        message="not finite",
    )
    with Admin(of.kafka) as admin:
        admin.create_missing([topic_plans(watched.name, of.kafka)["alerts"]])
        outbox = KafkaOutbox(watched.topics, producer, admin, open_store(of, watched.name))
        outbox.alert([gate])
        first, second = Posted(), Posted()
        forwarder = Forwarder(opening, first.webhook(), storage)
        forwarder.start()
        try:
            first.wait(posted=1)
            _publisher(producer, watched.topics.alerts)([ALERT])
            outbox.alert([damage_alert(watched.name, 2, "truncated", NOW, healed_by=None)])
            found = first.wait(posted=3)
        finally:
            forwarder.stop()
        outbox.alert([gate])
    assert found == ["gate/finite opened", "drift/distance opened", "store/version-2 opened"]
    assert first.bodies[0] == msgspec.to_builtins(gate, str_keys=True)

    again = Forwarder(opening, second.webhook(), storage)
    again.start()
    try:
        assert second.wait(posted=1) == ["gate/finite opened"]
    finally:
        again.stop()
    assert second.ids == first.ids[:1]
    producer.close()
