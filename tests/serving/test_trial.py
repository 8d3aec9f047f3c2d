"""The trial of a challenger, step by step, on a log in memory and a real store."""

import threading
from dataclasses import replace
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from serving.metrics import Metrics
from serving.trial import TRIAL, Trial
from serving.trial_status import Challenger
from stream_trainer.assignment import takes
from stream_trainer.errors import BrokerUnavailable, Corrupt, InputLost, StoreUnavailable
from stream_trainer.settings import TrialSettings
from stream_trainer.store import ModelStore, Version
from stream_trainer.store.aliases import Alias, Promotion
from stream_trainer.store.challenges import Challenge
from stream_trainer.store.store import WEIGHTS
from stream_trainer.testing.disk import LostAnswers
from tests.serving.examples import TOPIC, TOPIC_ID, MemoryExamples, good_state
from tests.serving.fixtures import NOW, PIPELINE, commit_version, learned_state

BEGINS = {TOPIC: {0: 30, 1: 10}}


def known(offsets: dict[str, dict[int, int]]) -> dict[str, Any]:
    return {"next_offsets": offsets, "topic_ids": {TOPIC: TOPIC_ID}}


class Scene:
    """A store with a poor version 1, a good version 2 and a copy of it, 3; version 1 is champion."""

    def __init__(self, store: ModelStore, log: MemoryExamples, **settings: Any) -> None:
        self.store = store
        self.log = log
        self.metrics = Metrics()
        self.told: list[tuple[str, int | None, int]] = []
        self.seconds = 0.0
        self.trial = Trial(
            PIPELINE,
            store,
            log.open,
            self.tell,
            self.metrics,
            lambda: NOW,
            TrialSettings(**{"block_rows": 1, **settings}),
            poll_seconds=1.0,
            monotonic=lambda: self.seconds,
        )

    def tell(self, alias: str, version: Version | None, entry: int) -> str | None:
        self.told.append((alias, None if version is None else version.number, entry))
        return None

    def champion(self, version: int | None, *, hold: bool = False, mode: Promotion = "manual") -> None:
        alias = Alias(version=version, reason="", by="me", at=NOW, hold=hold, promotion=mode)
        assert self.store.set_alias("champion", alias, self.store.alias_entry("champion").number)

    def challenge(self, version: int | None, **fields: Any) -> None:
        made = Challenge(version=version, reason="try", by="me", at=NOW, **fields)
        assert self.store.challenges.append(made, self.store.challenges.newest_number())

    def run(self, steps: int = 400) -> None:
        """Until nothing is compared for a few looks."""
        quiet = 0
        for _ in range(steps):
            quiet = 0 if self.trial.step() else quiet + 1
            self.seconds += 0.5
            if quiet > 5:
                return
        pytest.fail("it never ends")

    def metric(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"stream_trainer_serving_trial_{name}", labels)

    @property
    def serving(self) -> int | None:
        found = self.store.champion()
        return None if found is None else found.number

    @property
    def challenger(self) -> int | None:
        return self.store.challenges.newest().version


@pytest.fixture
def scene(store: ModelStore) -> Scene:
    for state in (learned_state(), good_state(), good_state()):
        commit_version(store, PIPELINE, state, **known(BEGINS))
    scene = Scene(store, MemoryExamples(900))
    scene.champion(1)
    return scene


def answering(scene: Scene) -> int | None:
    """The challenger that requests meet."""
    found = scene.trial.challenger
    return None if found is None else found.served.number


def beside(scene: Scene, **settings: Any) -> Scene:
    """Another replica on the same store and log."""
    return Scene(ModelStore(scene.store.storage, PIPELINE.name), scene.log, **settings)


def test_a_better_challenger_becomes_champion_and_the_entries_name_the_figures(scene: Scene) -> None:
    scene.challenge(2)
    scene.run()
    entry = scene.store.alias_entry("champion")
    assert entry.alias is not None
    assert (entry.number, entry.alias.version, entry.alias.by, entry.alias.promotion) == (2, 2, TRIAL, "manual")
    assert "better than version 1 after" in entry.alias.reason
    assert "brier champion 0.2" in entry.alias.reason
    nobody = scene.store.challenges.newest().challenge
    assert nobody is not None
    assert (nobody.version, nobody.reason) == (None, f"promoted: {entry.alias.reason}")
    assert scene.told == [("champion", 2, 2), ("challenger", None, 2)]
    status = scene.trial.status
    assert (status.state, status.verdict, status.champion, status.challenger) == ("decided", "better", 1, 2)
    assert (status.needed, status.promotion >= 100.0) == (100.0, True)
    assert (scene.trial.challenger, scene.log.opened) == (None, 0)


def test_a_worse_challenger_is_withdrawn_and_the_champion_stays(scene: Scene) -> None:
    scene.champion(2)
    scene.challenge(1)
    scene.run()
    assert (scene.serving, scene.challenger, scene.trial.status.verdict) == (2, None, "worse")
    assert scene.told == [("challenger", None, 2)]
    assert scene.store.alias_entry("champion").number == 2


def test_one_that_is_no_better_is_withdrawn_in_the_end(store: ModelStore, scene: Scene) -> None:
    scene = beside(scene, max_rows=400)
    scene.champion(2)
    scene.challenge(3, mode="canary", share=0.5)
    scene.run()
    status = scene.trial.status
    assert (scene.serving, scene.challenger, status.verdict, status.rows) == (2, None, "no_better", 400)
    assert "no better than version 2 after 400 labelled rows" in status.detail
    assert status.metrics["champion"] == status.metrics["challenger"]


def test_it_compares_every_row_that_neither_has_learned_from_and_no_other(scene: Scene) -> None:
    late = commit_version(scene.store, PIPELINE, good_state(), **known({TOPIC: {0: 20, 1: 250}}))
    scene.champion(2)
    scene.challenge(late.number)
    scene.run()
    assert scene.trial.status.rows == (600 - 30) + (300 - 250)
    assert {min(r[TOPIC][p][0] for r in scene.log.reads if p in r[TOPIC]) for p in (0, 1)} == {30, 250}
    scene.log.append(30)
    scene.run()
    assert scene.trial.status.rows == 620 + 30


def test_offsets_of_a_topic_that_was_made_again_count_for_nothing(scene: Scene) -> None:
    scene.log.topic_id = "another"
    scene.champion(2)
    scene.challenge(3)
    scene.run()
    assert scene.trial.status.rows == 900


def test_bad_records_are_passed_over(scene: Scene) -> None:
    for value in (b"", b"{", b'{"late": true}', b"\xff"):
        scene.log.put(0, value)
    scene.champion(2)
    scene.challenge(3)
    scene.run()
    assert scene.trial.status.rows == 900 - 40


def test_what_has_not_settled_waits(scene: Scene) -> None:
    young = MemoryExamples(900, clock=lambda: NOW - timedelta(hours=12) + timedelta(seconds=110))
    scene = Scene(scene.store, young)
    scene.champion(2)
    scene.challenge(3)
    scene.run()
    # Records of the first 100 seconds, as 10 have to settle; a row a second, but for those that were learned.
    assert scene.trial.status.rows == 100 - 40


def test_a_challenger_that_may_decide_nothing_only_measures(scene: Scene) -> None:
    scene.challenge(2, decide="manual", mode="canary", share=0.2)
    scene.run()
    status = scene.trial.status
    assert (status.state, status.verdict, status.decide) == ("decided", "better", "manual")
    assert "models promote" in status.detail
    assert (scene.serving, scene.challenger, scene.told) == (1, 2, [])
    assert scene.trial.challenger is not None  # it goes on answering its share until a person ends it


def test_a_champion_that_is_held_is_not_replaced_until_it_is_released(scene: Scene) -> None:
    scene.champion(1, hold=True, mode="gated")
    scene.challenge(2)
    scene.run()
    assert (scene.serving, scene.challenger, scene.trial.status.verdict) == (1, 2, "better")
    assert "the champion is held" in scene.trial.status.detail
    rows = scene.trial.status.rows
    scene.champion(1, mode="gated")
    scene.run()
    alias = scene.store.alias("champion")
    assert alias is not None
    assert (alias.version, alias.promotion, scene.challenger) == (2, "gated", None)
    assert scene.trial.status.rows == rows  # nothing was compared again


def test_a_champion_that_is_held_does_not_keep_a_worse_challenger(scene: Scene) -> None:
    scene.champion(2, hold=True)
    scene.challenge(1)
    scene.run()
    assert (scene.serving, scene.challenger) == (2, None)


def test_replicas_come_to_the_same_verdict_and_one_entry_is_written(scene: Scene) -> None:
    scene.challenge(2)
    others = [beside(scene, rows_per_second=rate) for rate in (1, 7, 50)]
    replicas = [scene, *others]
    for _ in range(300):
        for replica in replicas:
            replica.trial.step()
            replica.seconds += 0.5
    assert scene.store.alias_entry("champion").number == 2
    assert (scene.serving, scene.challenger, scene.store.challenges.newest_number()) == (2, None, 2)
    assert sum(len(replica.told) for replica in replicas) == 2
    assert all(replica.trial.challenger is None for replica in replicas)


def test_how_fast_it_reads_changes_nothing_in_the_verdict(scene: Scene) -> None:
    scene.challenge(2, decide="manual")
    found = []
    for rate in (1, 3, 1_000):
        replica = beside(scene, rows_per_second=rate)
        replica.run()
        found.append(replica.trial.status)
    first = found[0]
    for other in found[1:]:
        assert (other.rows, other.verdict) == (first.rows, first.verdict)
        assert other.promotion == pytest.approx(first.promotion, rel=1e-4)


def test_a_service_that_starts_again_comes_to_the_same_end(scene: Scene) -> None:
    scene.challenge(2, decide="manual")
    first = beside(scene, rows_per_second=5)
    for _ in range(3):
        first.trial.step()
    assert (first.trial.status.rows, first.trial.status.verdict) == (15, None)
    again, undisturbed = beside(scene, rows_per_second=5), beside(scene, rows_per_second=5)
    for one in (again, undisturbed):
        one.run()
    assert again.trial.status == undisturbed.trial.status


def test_who_is_overtaken_by_a_person_changes_nothing(scene: Scene) -> None:
    scene.challenge(2)
    real = scene.store.set_alias

    def set_alias(name: str, alias: Alias, based_on: int) -> int | None:
        scene.store.set_alias = real  # type: ignore[method-assign]
        scene.champion(3, hold=True)
        return real(name, alias, based_on)

    scene.store.set_alias = set_alias  # type: ignore[method-assign]
    scene.run()
    assert scene.serving == 3
    assert (scene.challenger, scene.trial.status.champion) == (2, 3)  # and is compared with the new one


def test_another_champion_or_challenger_begins_anew(scene: Scene) -> None:
    scene.champion(2)
    scene.challenge(3)
    scene.run()
    assert scene.trial.status.rows == 860
    scene.challenge(3, mode="canary", share=1.0)
    scene.trial.look()
    assert (scene.trial.status.rows, scene.trial.status.mode) == (0, "canary")
    scene.run()
    assert scene.trial.status.rows == 860
    scene.champion(3)
    scene.trial.look()
    assert scene.trial.challenger is None


def test_a_trial_that_died_after_promoting_is_finished_by_the_next(scene: Scene) -> None:
    scene.challenge(2)
    scene.champion(2)
    scene.trial.look()
    assert (scene.challenger, scene.told) == (None, [("challenger", None, 2)])
    assert scene.trial.challenger is None


def test_a_challenger_that_a_person_promotes_is_left_to_the_person_in_manual(scene: Scene) -> None:
    scene.challenge(2, decide="manual")
    scene.champion(2)
    scene.run()
    assert (scene.challenger, scene.trial.status.detail) == (2, "the challenger is champion")


def test_where_the_champion_follows_the_newest_version_nothing_is_compared(scene: Scene) -> None:
    scene.challenge(2)
    cases: list[tuple[Promotion, int | None]] = [("auto", 1), ("manual", None)]
    for mode, version in cases:
        scene.champion(version, mode=mode)
        scene.run()
        assert (scene.trial.status.state, scene.trial.challenger, scene.challenger) == ("blocked", None, 2)
        assert "models pin" in scene.trial.status.detail
    scene.champion(3)
    scene.run()
    assert scene.trial.status.state == "running"


def test_a_challenger_that_fails_a_check_meets_no_request_and_is_tried_again(scene: Scene) -> None:
    bad = commit_version(scene.store, PIPELINE, good_state(), files={WEIGHTS: b"not safetensors"})
    scene.challenge(2, mode="canary", share=1.0)
    scene.trial.look()
    assert answering(scene) == 2
    scene.challenge(bad.number, mode="canary", share=1.0)
    scene.run()
    assert (scene.trial.status.state, answering(scene)) == ("refused", None)
    assert f"version {bad.number}" in scene.trial.status.detail
    scene.challenge(3)
    scene.trial.look()
    assert answering(scene) == 3


def test_without_a_challenger_nothing_is_opened_or_read(scene: Scene) -> None:
    scene.run()
    scene.challenge(2)
    scene.challenge(None)
    scene.run()
    assert (scene.trial.status.state, scene.trial.status.detail, scene.trial.status.entry) == ("idle", "try", 2)
    assert scene.log.reads == []
    assert scene.trial.challenger is None


def test_a_broker_that_is_down_delays_and_changes_nothing(scene: Scene) -> None:
    scene.champion(2)
    scene.challenge(3)
    assert scene.trial.step() > 0
    for _ in range(3):
        scene.log.down = True
        for _ in range(3):
            scene.seconds += 2.0
            with pytest.raises(BrokerUnavailable):
                scene.trial.step()
        assert scene.log.opened == 0
        scene.log.down = False
        assert scene.trial.step() > 0
    scene.run()
    assert scene.trial.status.rows == 860


def test_rows_that_are_gone_begin_it_anew_with_those_that_are_left(scene: Scene) -> None:
    scene = beside(scene, rows_per_second=50)
    scene.champion(2)
    scene.challenge(3)
    scene.trial.step()
    scene.log.starts = {0: 400, 1: 200}
    with pytest.raises(InputLost):
        scene.run()
    scene.run()
    assert scene.trial.status.rows == 300
    scene.log.topic_id = "another"
    with pytest.raises(InputLost, match="re-created"):
        scene.run()
    scene.run()
    assert scene.trial.status.rows == 300


def test_a_model_that_fails_begins_it_anew_rather_than_leaving_rows_out(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.champion(2)
    scene.challenge(3)
    scene.trial.step()
    with monkeypatch.context() as patch:
        patch.setattr(type(PIPELINE.learner), "predict", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            scene.trial.step()
    scene.run()
    assert scene.trial.status.rows == 860


def test_an_answer_of_the_store_that_is_lost_promotes_once(scene: Scene) -> None:
    failures = 0
    for lost in range(1, 3):
        scene.challenge(2)
        unlucky = Scene(ModelStore(LostAnswers(scene.store.storage, lost), PIPELINE.name), scene.log)
        while True:
            try:
                unlucky.run()
                break
            except StoreUnavailable:
                failures += 1
                unlucky.seconds += 5
        assert (scene.serving, scene.challenger) == (2, None)
        scene.champion(1)
    assert failures >= 2


def test_entries_that_cannot_be_read_leave_what_answers_as_it_is(scene: Scene) -> None:
    scene.challenge(2, mode="canary", share=0.5)
    scene.trial.look()
    before = scene.trial.challenger
    assert before is not None
    scene.store.storage.put("flights/aliases/challenger/2.json", b"{")
    with pytest.raises(Corrupt):
        scene.trial.look()
    assert scene.trial.challenger is before


def test_a_request_asks_the_challenger_whether_it_answers(scene: Scene) -> None:
    scene.challenge(2, mode="canary", share=0.3)
    scene.trial.look()
    canary = scene.trial.challenger
    assert isinstance(canary, Challenger)
    assert (canary.served.number, canary.role) == (2, "canary")
    keys = [f"k{i}" for i in range(1_000)]
    assert [canary.answers(k) for k in keys] == [takes(k, 0.3, "challenger/1") for k in keys]
    shadow = replace(canary, mode="shadow", share=1.0)
    assert (shadow.role, any(shadow.answers(k) for k in keys)) == ("challenger", False)


def test_prometheus_sees_where_it_stands(scene: Scene) -> None:
    scene.champion(2)
    scene.challenge(3)
    scene.run()
    assert scene.metric("rows") == 860
    losses = [scene.metric("loss", role=role) for role in ("champion", "challenger")]
    assert losses == [scene.trial.status.metrics["champion"]["log_loss"]] * 2
    assert [scene.metric("evidence", **{"for": what}) for what in ("promotion", "withdrawal")] == [1.0, 1.0]
    scene.challenge(None)
    scene.run()
    assert (scene.metric("rows"), scene.metric("loss", role="champion")) == (0, None)


def test_a_status_is_plain_enough_for_json(scene: Scene) -> None:
    scene.challenge(2)
    scene.run()
    said = msgspec.json.decode(msgspec.json.encode(scene.trial.status))
    assert (said["verdict"], said["challenger"], set(said["metrics"])) == ("better", 2, {"champion", "challenger"})


def test_the_thread_compares_says_what_is_wrong_and_ends(scene: Scene) -> None:
    asked = threading.Event()
    lost = MemoryExamples(900)

    def unreachable() -> MemoryExamples:
        if not asked.is_set():
            asked.set()
            raise BrokerUnavailable("no Kafka")
        return lost.open()

    scene.challenge(2, decide="manual")
    trial = Trial(
        PIPELINE,
        scene.store,
        unreachable,
        scene.tell,
        scene.metrics,
        lambda: NOW,
        TrialSettings(rows_per_second=100_000, block_rows=1),
        poll_seconds=0.01,
    )
    trial.start()
    try:
        assert asked.wait(20)
        waited = threading.Event()
        for _ in range(2_000):
            if trial.status.verdict is not None:
                break
            waited.wait(0.01)
        assert (trial.status.verdict, trial.status.problem) == ("better", "")
        scene.challenge(None)
        trial.wake()
        for _ in range(2_000):
            if trial.challenger is None:
                break
            waited.wait(0.01)
        assert trial.challenger is None
    finally:
        trial.stop()
    assert not trial._thread.is_alive()
    assert lost.opened == 0
    assert scene.metric("errors_total", kind="BrokerUnavailable") == 1
