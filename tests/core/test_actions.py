"""What is asked of a trainer: decided on once, kept in intent and manifest, carried out, repeated by a crash and a replay."""

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_trainer import championing
from stream_trainer.acting import (
    HoldPromotion,
    RaiseLearningRate,
    ReleasePromotion,
    RollBack,
    WarmRetrain,
)
from stream_trainer.acts import Act, Read
from stream_trainer.learners import Sgd, Tabular
from stream_trainer.lineage import Lineage
from stream_trainer.monitoring import Monitoring
from stream_trainer.pipeline import Pipeline
from stream_trainer.planning import MOST, Refusal, acting_versions, newest_ranges
from stream_trainer.replay import Replay, replay
from stream_trainer.settings import StoreSettings
from stream_trainer.store.aliases import CHAMPION
from stream_trainer.testing import Crash, FakeClock, MemoryRequests, Pause, ScriptedLog, crash_at, train
from tests.core.scripts import PIPELINE, flights, manifests, of_batches, paused, store
from tests.core.test_schemas import as_json, check
from tests.core.worlds import asked, bits

ALWAYS = replace(PIPELINE, monitoring=Monitoring(action_cooldown=timedelta(0)))
FASTER = RaiseLearningRate(factor=8, rows=50)


class Scene:
    """A log of 20 flights a micro-batch, and requests that come before a micro-batch."""

    def __init__(self, folder: Path, pipeline: Pipeline = ALWAYS, batches: int = 4) -> None:
        self.folder = folder
        self.pipeline = pipeline
        self.log = ScriptedLog(pipeline, paused(batches, 20, 60.0))
        self.requests = MemoryRequests()
        self.clock = FakeClock()

    def train(self, **options: Any) -> Lineage:
        chosen: dict[str, Any] = {"settings": of_batches(100), "clock": self.clock, "requests": self.requests} | options
        return train(self.pipeline, self.log, self.folder, **chosen)

    def more(self, batches: int = 1) -> Lineage:
        """So many further micro-batches."""
        first = sum(end for end in self.log.ends("", self.log.partitions("")).values())
        for i in range(batches):
            self.log.append(*flights(20, first + 20 * i), Pause(60.0))
        return self.train()

    def replayed(self) -> Replay:
        return replay(
            self.pipeline, store(self.folder), lambda ranges, _: self.log.read(ranges), to=store(self.folder).highest()
        )

    def acts(self) -> list[Act]:
        """Everything that was decided, oldest first."""
        there = store(self.folder)
        versions = reversed(list(acting_versions(there, there.head())))
        return [act for v in versions for cut in v.manifest.acts for act in cut.acts]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path / "store")


def calm(folder: Path, pipeline: Pipeline = ALWAYS, batches: int = 4) -> dict[str, bytes]:
    return bits(Scene(folder, pipeline, batches).train())


@pytest.mark.parametrize("learner", [Sgd(), Sgd(rates=(1e-3, 1e-2)), Tabular()], ids=["sgd", "rates", "tabular"])
def test_a_raised_rate_changes_what_is_learned_and_is_replayed_bit_for_bit(tmp_path: Path, learner: Any) -> None:
    pipeline = replace(ALWAYS, learner=learner)
    scene = Scene(tmp_path / "store", pipeline)
    scene.requests.ask(asked(FASTER))
    learned = bits(scene.train())
    assert learned != calm(tmp_path / "calm", pipeline)
    assert scene.replayed().identical
    of_first = store(scene.folder).read(1).manifest.acts
    assert [(cut.cut, [act.asked for act in cut.acts]) for cut in of_first] == [(0, [asked(FASTER)])]
    check("manifest", as_json(store(scene.folder).read(1).manifest))


def test_rows_are_counted_down_over_versions_and_restarts(tmp_path: Path) -> None:
    alone = Scene(tmp_path, batches=0)
    alone.requests.ask(asked(FASTER))
    found = [alone.more().state.training.get("pace.rows") for _ in range(4)]
    assert [None if rows is None else int(rows) for rows in found] == [30, 10, None, None]


def test_a_kill_after_the_intent_repeats_the_action_though_the_topic_was_emptied(tmp_path: Path) -> None:
    undisturbed = Scene(tmp_path / "calm")
    undisturbed.requests.ask(asked(FASTER), asked(HoldPromotion()))
    wanted = bits(undisturbed.train())
    for point in (
        "microbatch.cut_fixed",
        "microbatch.champion_decided",
        "microbatch.acted",
        "microbatch.files_written",
    ):
        scene = Scene(tmp_path / point)
        scene.requests.ask(asked(FASTER), asked(HoldPromotion()))
        with crash_at(point), pytest.raises(Crash):
            scene.train()
        stored = store(scene.folder).intents(1)[0]
        assert [act.asked.action for act in stored.actions] == [FASTER, HoldPromotion()]
        check("intent", as_json(stored))
        scene.requests.records[:] = [None] * len(scene.requests.records)
        assert bits(scene.train()) == wanted
        assert scene.replayed().identical


def test_a_request_that_is_written_again_counts_once_for_ever(scene: Scene) -> None:
    scene.requests.ask(asked(FASTER), asked(FASTER))
    scene.train()
    scene.requests.ask(asked(FASTER))
    scene.more(2)
    scene.requests.topic_id = "11111111-0000-0000-0000-00000000ac75"
    scene.more()
    assert [act.asked.action for act in scene.acts()] == [FASTER]
    assert (
        store(scene.folder).read(1).manifest.acted_before is not store(scene.folder).read(2).manifest.acted_before == 1
    )


@given(st.lists(st.sampled_from([*range(8), None, -1]), max_size=40), st.lists(st.integers(0, 20), max_size=4))
@settings(max_examples=15)
def test_however_requests_are_repeated_cut_and_mixed_with_rubbish_each_is_taken_once(
    tmp_path_factory: pytest.TempPathFactory, script: list[int | None], cuts: list[int]
) -> None:
    scene = Scene(tmp_path_factory.mktemp("models"), batches=0)
    records: list[tuple[bytes | None, bytes | None] | None] = []
    for what in script:
        if what is None:
            records.append(None)
        elif what < 0:
            records.append((b"key", b"rubbish"))
        else:
            one = MemoryRequests()
            one.ask(asked(RaiseLearningRate(rows=100 + what)))
            records.append(one.records[0])
    for cut in [*sorted(cuts), len(records)]:
        scene.requests.records = records[:cut]
        scene.more()
    scene.more(1 + len(records) // MOST)
    taken = [act.asked.action for act in scene.acts()]
    first = list(dict.fromkeys(what for what in script if what is not None and what >= 0))
    assert taken == [RaiseLearningRate(rows=100 + what) for what in first]
    asked_so_far = scene.train().asked
    assert (
        (asked_so_far.next, asked_so_far.skipped) == (len(records), script.count(-1)) if asked_so_far else not records
    )


def test_rubbish_is_counted_skipped_and_stops_nobody(scene: Scene) -> None:
    scene.requests.records += [(b"x", b"\xff"), (None, None), (b"y", b'{"action": {"kind": "explode"}}')]
    scene.requests.ask(asked(FASTER))
    lineage = scene.train()
    assert lineage.asked == Read(topic_id=scene.requests.topic_id, next=4, skipped=3)
    assert [act.is_done for act in scene.acts()] == [True]


def test_without_requests_a_manifest_says_nothing_of_them(scene: Scene) -> None:
    scene.train()
    assert not {"actions", "asked", "acted_before"} & set(as_json(store(scene.folder).read(4).manifest))


def test_at_most_one_action_of_a_kind_in_a_cooldown(tmp_path: Path) -> None:
    scene = Scene(tmp_path, replace(PIPELINE, monitoring=Monitoring(action_cooldown=timedelta(minutes=10))), batches=1)
    scene.requests.ask(asked(FASTER, "one"), asked(FASTER, "two"), asked(HoldPromotion(), "one"))
    scene.train()
    scene.clock.advance(600)
    scene.requests.ask(asked(FASTER, "three"))
    scene.more()
    said = [(act.asked.alert.alert_key, act.is_done) for act in scene.acts() if act.asked.alert]
    assert said == [("one", True), ("two", False), ("one", False), ("three", True)]
    assert "at most one in 0:10:00" in str(scene.acts()[1].refused)


class Rateless:
    """A learner that offers nothing beside `Learner`."""

    def __init__(self) -> None:
        inner = Sgd()
        self.init, self.predict, self.learn = inner.init, inner.predict, inner.learn
        self.hyperparameters = inner.hyperparameters


def test_a_learner_that_cannot_refuses_and_goes_on(tmp_path: Path) -> None:
    pipeline = replace(ALWAYS, learner=Rateless())
    scene = Scene(tmp_path / "store", pipeline)
    scene.requests.ask(asked(FASTER))
    assert bits(scene.train()) == calm(tmp_path / "calm", pipeline)
    assert [act.refused for act in scene.acts()] == ["the learner Rateless has no learning rate that could be raised"]
    assert scene.replayed().identical


def champion(scene: Scene) -> int:
    found = store(scene.folder).champion()
    assert found is not None
    return found.number


def test_a_hold_keeps_the_champion_until_it_is_released(scene: Scene) -> None:
    scene.train()
    hold = asked(HoldPromotion())
    scene.requests.ask(hold)
    scene.more(3)
    entry = store(scene.folder).alias_entry(CHAMPION)
    assert entry.alias is not None
    assert (champion(scene), entry.number, entry.alias.hold, entry.alias.action) == (4, 1, True, hold.action_id)
    assert (entry.alias.by, entry.alias.reason) == ("monitor", "hold_promotion")
    check("alias", as_json(entry.alias))
    scene.requests.ask(asked(ReleasePromotion(hold=hold.action_id)))
    scene.more()
    assert champion(scene) == 8
    assert [act.is_done for act in scene.acts()] == [True, True]


def test_who_decided_after_a_hold_is_not_released_and_who_holds_is_not_overruled(scene: Scene) -> None:
    scene.train()
    hold = asked(HoldPromotion())
    scene.requests.ask(hold)
    scene.more()
    championing.pin(store(scene.folder), 2, by="ann")
    scene.requests.ask(
        asked(ReleasePromotion(hold=hold.action_id)),
        asked(HoldPromotion(), "other"),
        asked(RollBack(), at=FakeClock()()),
    )
    scene.more(4)
    assert champion(scene) == 2
    reasons = [str(act.refused) for act in scene.acts() if not act.is_done]
    assert reasons == [
        "the hold is not that action's any more",
        "version 2 is held already, by a person",
        "version 2 is held, by a person: a person decides",
    ]


def test_a_person_who_decides_between_plan_and_act_counts(scene: Scene) -> None:
    scene.train()
    scene.requests.ask(asked(HoldPromotion()))
    scene.log.append(*flights(20, 80))
    with crash_at("microbatch.cut_fixed"), pytest.raises(Crash):
        scene.train()
    championing.pin(store(scene.folder), 1, by="ann")
    scene.train()
    assert champion(scene) == 1
    assert store(scene.folder).alias_entry(CHAMPION).number == 1


def test_without_a_champion_there_is_nothing_to_hold(scene: Scene) -> None:
    scene.requests.ask(asked(HoldPromotion()), asked(RollBack()))
    scene.train()
    assert "there is no champion yet" in {act.refused for act in scene.acts()}


def since(scene: Scene, version: int) -> datetime:
    through = store(scene.folder).read(version).manifest.trained_through
    assert through is not None
    return through


def test_a_rollback_goes_to_the_newest_version_from_before_the_alert_and_is_held(scene: Scene) -> None:
    scene.train()
    scene.requests.ask(asked(RollBack(), at=since(scene, 2) + timedelta(seconds=1)))
    scene.more(2)
    alias = store(scene.folder).alias(CHAMPION)
    assert alias is not None
    assert (champion(scene), alias.hold) == (2, True)
    scene.requests.ask(asked(RollBack(), "other", at=since(scene, 4)))
    scene.more()
    assert champion(scene) == 2  # never forwards


def test_a_rollback_goes_no_further_than_data_exist(scene: Scene) -> None:
    scene.train(retention=StoreSettings(keep_versions=2, keep_every=100))
    scene.requests.ask(asked(RollBack(), at=since(scene, 1)))
    scene.more()
    assert champion(scene) == 5
    assert "its data is gone" in str(scene.acts()[-1].refused)


def test_a_warm_retrain_learns_only_its_records_and_is_replayed(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "store")
    scene.train()
    before = store(scene.folder).read(4).manifest
    scene.requests.ask(asked(WarmRetrain(records=30)))
    learned = scene.more()
    act = scene.acts()[-1]
    assert act.ranges
    spans = {p: end - start for p, (start, end) in act.ranges[scene.log.topic_name].items()}
    assert spans == dict.fromkeys(range(3), 10)
    assert {t: {p: end for p, (_, end) in ps.items()} for t, ps in act.ranges.items()} == before.next_offsets
    assert scene.replayed().identical
    assert learned.total.seen == 100  # what is learned again is not counted again
    young = Scene(tmp_path / "calm")
    young.train()
    assert bits(young.more()) != bits(learned)
    assert int(learned.state.serving["standardiser.count"].max()) <= 50


def test_a_warm_retrain_whose_records_are_gone_is_refused(scene: Scene) -> None:
    scene.train()
    scene.log.expire(0, 25)
    scene.requests.ask(asked(WarmRetrain(records=60)))
    scene.more()
    assert "are gone (retention)" in str(scene.acts()[-1].refused)
    scene.requests.ask(asked(WarmRetrain(records=5)))
    scene.more()
    assert scene.acts()[-1].is_done


def test_records_that_go_between_plan_and_act_end_the_action_and_not_the_trainer(scene: Scene) -> None:
    scene.train()
    scene.requests.ask(asked(WarmRetrain(records=30)))
    scene.log.append(*flights(20, 80))
    with crash_at("microbatch.acted"), pytest.raises(Crash):
        scene.train()
    position = store(scene.folder).read(4).manifest.next_offsets[scene.log.topic_name]
    for partition, offset in position.items():
        scene.log.expire(partition, offset)
    scene.train()
    assert [act.refused for act in scene.acts()] == ["the records are gone"]
    assert manifests(scene.folder)[-1].rows.trained == 20


def test_shares_of_partitions_and_what_is_gone() -> None:
    assert newest_ranges({"t": {0: 10, 1: 3}}, {"t": {0: 0, 1: 0, 2: 0}}, 12) == {
        "t": {0: (6, 10), 1: (0, 3), 2: (0, 0)}
    }
    for position, earliest, says in (
        ({"t": {0: 10}}, {"t": {0: 8}}, r"offsets 5 to 7 of t\[0\] are gone"),
        ({"t": {0: 10}}, {"t": {0: 12}}, r"offsets 5 to 9 of t\[0\] are gone"),
        ({"t": {0: 0}}, {"t": {0: 0}}, "nothing was learned"),
        ({}, {}, "nothing was learned"),
    ):
        with pytest.raises(Refusal, match=says):
            newest_ranges(position, earliest, 5)
