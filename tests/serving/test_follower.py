import asyncio
import shutil
from datetime import timedelta
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch
from httpx import ASGITransport, AsyncClient

from serving.announcements import Announcement
from stream_trainer.errors import NoVersion
from stream_trainer.prequential import Prequential
from stream_trainer.store import ModelStore
from stream_trainer.store.aliases import Alias
from stream_trainer.store.manifest import Rows, Verdict
from stream_trainer.store.storage import LocalStorage
from stream_trainer.store.store import GOLDEN, WEIGHTS
from tests.serving.fixtures import (
    NOW,
    PIPELINE,
    Harness,
    app_of,
    commit_version,
    damaged,
    golden,
    learned_state,
    put_alias,
)

STATE = learned_state()
OTHER = learned_state(seed=1)
BAD: dict[str, tuple[Any, dict[str, Any]]] = {
    "contract": (STATE, {"contract": "0" * 64}),
    "gates": (
        STATE,
        {"gates": [Verdict(gate="finite", passed=False, detail="")], "rows": Rows(seen=8, quarantined=8)},
    ),
    "not_finite": (
        damaged(STATE, "net.skip.weight", float("nan")),
        {"files": {GOLDEN: golden(PIPELINE, STATE)}},
    ),
    "golden": (STATE, {"files": {GOLDEN: golden(PIPELINE, OTHER)}}),
    "damaged": (STATE, {"files": {WEIGHTS: b"not safetensors"}}),
    "model": (
        damaged(STATE, "net.skip.weight", 0.0, shape=(3, 1)),
        {"files": {GOLDEN: golden(PIPELINE, STATE)}},
    ),
    "golden-shape": (STATE, {"files": {GOLDEN: b"not Arrow"}}),
}


async def ready(harness: Harness) -> tuple[int, Any]:
    """What `/health/ready` answers."""
    async with AsyncClient(transport=ASGITransport(app_of(harness)), base_url="http://test") as client:
        answer = await client.get("/health/ready")
        return answer.status_code, answer.json()["model_version"]


@pytest.mark.parametrize("reason", BAD)
def test_f31_a_refused_version_leaves_the_last_good_one_ready_and_the_next_recovers(
    harness: Harness, reason: str
) -> None:
    state, changes = BAD[reason]
    commit_version(harness.store, PIPELINE, STATE)
    harness.follower.look()
    bad = commit_version(harness.store, PIPELINE, state, **changes)
    for second in range(3):
        harness.source.push(bad, NOW + timedelta(seconds=second))
        harness.follower.step()
    assert harness.version == 1
    assert asyncio.run(ready(harness)) == (200, 1)
    assert harness.metric("refused_versions_total", reason=reason.partition("-")[0]) == 1
    harness.source.push(commit_version(harness.store, PIPELINE, OTHER), NOW + timedelta(seconds=9))
    harness.follower.step()
    assert asyncio.run(ready(harness)) == (200, 3)
    assert harness.metric("event_to_served_seconds_count") == 2


def test_a_start_on_a_damaged_champion_serves_the_newest_good_one(harness: Harness) -> None:
    for contract in (PIPELINE.contract.fingerprint, "0" * 64):
        commit_version(harness.store, PIPELINE, STATE, contract=contract)
    harness.follower.look()
    assert harness.version == 1


def test_only_the_newest_announcement_is_loaded(harness: Harness) -> None:
    for _ in range(3):
        harness.source.push(commit_version(harness.store, PIPELINE, STATE), NOW)
    harness.follower.step()
    assert (harness.version, harness.metric("swaps_total")) == (3, 1)


def test_a_version_that_comes_too_soon_waits_and_makes_way_for_a_later_one(tmp_path: Path) -> None:
    harness = Harness(ModelStore(LocalStorage(tmp_path), PIPELINE.name), swap_every_seconds=60.0)
    commit_version(harness.store, PIPELINE, STATE)
    harness.follower.look()
    for state in (OTHER, STATE):
        harness.source.push(commit_version(harness.store, PIPELINE, state), harness.clock())
        harness.follower.step()
        assert harness.version == 1
    harness.seconds = 59.0
    harness.follower.step()
    assert harness.version == 1
    harness.source.patience.clear()
    harness.seconds = 60.0
    harness.follower.step()
    assert (harness.version, harness.metric("swaps_total")) == (3, 2)
    assert harness.source.patience == [0.0]


def test_nobody_is_in_a_hurry_for_a_version_that_was_refused(tmp_path: Path) -> None:
    harness = Harness(ModelStore(LocalStorage(tmp_path), PIPELINE.name), swap_every_seconds=60.0)
    commit_version(harness.store, PIPELINE, STATE)
    harness.follower.look()
    harness.seconds = 60.0
    harness.source.push(commit_version(harness.store, PIPELINE, STATE, contract="0" * 64), harness.clock())
    harness.follower.step()
    harness.seconds = 200.0
    harness.follower.look()
    harness.source.patience.clear()
    harness.follower.step()
    assert harness.version == 1
    assert harness.source.patience == pytest.approx([0.01])


def test_an_idle_announcement_refreshes_staleness_only(harness: Harness) -> None:
    version = commit_version(harness.store, PIPELINE, STATE, covered_at=None)
    harness.follower.look()
    harness.clock.advance(61)
    assert harness.follower.staleness() == 60.0
    harness.source.push(version, harness.clock(), covered_at=harness.clock())
    harness.follower.step()
    assert harness.follower.staleness() == 0.0
    harness.clock.advance(-5)
    assert harness.follower.staleness() == 0.0
    assert harness.metric("swaps_total") == 1


def test_the_store_is_enough_while_kafka_is_down(harness: Harness) -> None:
    harness.source.down = True
    for state in (STATE, OTHER):
        number = commit_version(harness.store, PIPELINE, state).number
        harness.follower.step()
        assert harness.version == number
    assert harness.metric("follower_errors_total", kind="kafka") == 2


def test_neither_an_old_record_nor_a_lagging_store_moves_back(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = commit_version(harness.store, PIPELINE, STATE)
    new = commit_version(harness.store, PIPELINE, OTHER)
    harness.follower.look()
    harness.source.push(old, old.manifest.created_at)
    harness.follower.step()
    assert harness.version == 2
    harness.source.push(new, NOW + timedelta(seconds=30))
    harness.follower.step()
    monkeypatch.setattr(harness.store, "champion", lambda: old)
    harness.follower.step()
    assert harness.version == 2


def test_a_version_nobody_announced_is_news_although_an_idle_announcement_is_later(harness: Harness) -> None:
    harness.source.push(commit_version(harness.store, PIPELINE, STATE), NOW + timedelta(minutes=5))
    harness.follower.step()
    commit_version(harness.store, PIPELINE, OTHER)
    harness.follower.step()
    assert harness.version == 2


def test_a_held_alias_lowers_the_version_and_its_release_raises_it(harness: Harness) -> None:
    for state in (STATE, OTHER):
        newest = commit_version(harness.store, PIPELINE, state)
    harness.source.push(newest, NOW + timedelta(seconds=10))
    harness.follower.step()
    put_alias(harness.store, 1, NOW + timedelta(seconds=20), hold=True)
    harness.follower.step()
    assert harness.version == 1
    harness.source.push(newest, NOW + timedelta(seconds=10))  # the topic read again from its beginning
    harness.follower.step()
    assert harness.version == 1
    put_alias(harness.store, 1, NOW + timedelta(seconds=40), hold=False)
    harness.follower.step()
    assert harness.version == 2


def test_a_push_of_a_newer_decision_rolls_back(harness: Harness) -> None:
    old, new = (commit_version(harness.store, PIPELINE, s) for s in (STATE, OTHER))
    harness.source.push(new, NOW)
    harness.follower.step()
    put_alias(harness.store, 1, NOW, hold=True)
    harness.seconds = 0.005  # too early for a look at the store, but for the push
    harness.source.push(old, NOW, alias=1)
    harness.follower.step()
    assert harness.version == 1
    harness.follower.step()
    assert harness.version == 1


def test_who_can_only_announce_cannot_choose_who_serves(harness: Harness) -> None:
    versions = [commit_version(harness.store, PIPELINE, s) for s in (STATE, OTHER, STATE)]
    put_alias(harness.store, 2, NOW, hold=True)
    harness.follower.look()
    for version in versions:
        for alias in (0, 1, 9):
            harness.source.push(version, NOW + timedelta(hours=1), alias=alias)
            harness.follower.step()
            assert harness.version == 2


def test_a_version_that_was_said_and_is_not_there_is_forgotten(harness: Harness) -> None:
    first = commit_version(harness.store, PIPELINE, STATE)
    harness.follower.look()
    word = Announcement(version=9, manifest_sha256="0" * 64, at=NOW + timedelta(days=1), covered_at=NOW)
    harness.source.waiting.append(word)
    harness.follower.step()
    assert harness.version == first.number
    assert harness.metric("refused_versions_total", reason="missing") == 1
    second = commit_version(harness.store, PIPELINE, OTHER)
    harness.source.push(second, NOW + timedelta(seconds=5))
    harness.follower.step()
    assert harness.version == second.number


def test_a_fixed_champion_stays_fresh_by_its_announcements(harness: Harness) -> None:
    version = commit_version(harness.store, PIPELINE, STATE)
    put_alias(harness.store, 1, NOW, hold=True)
    harness.follower.look()
    later = NOW + timedelta(hours=2)
    harness.source.push(version, later, covered_at=later, alias=1)
    harness.follower.step()
    assert harness.follower.served is not None
    assert harness.follower.served.covered_at == later


def test_a_trainer_that_was_asleep_cannot_push_an_overtaken_version(harness: Harness) -> None:
    old, new = (commit_version(harness.store, PIPELINE, s) for s in (STATE, OTHER))
    for version, seconds in ((new, 10), (old, 20)):
        harness.source.push(version, NOW + timedelta(seconds=seconds))
        harness.follower.step()
    assert harness.version == 2


def test_a_store_that_began_anew_is_followed_at_its_first_push(harness: Harness, tmp_path: Path) -> None:
    for state in (STATE, OTHER):
        harness.source.push(commit_version(harness.store, PIPELINE, state), NOW)
    harness.follower.step()
    shutil.rmtree(tmp_path / PIPELINE.name)
    anew = ModelStore(LocalStorage(tmp_path), PIPELINE.name)
    again = commit_version(anew, PIPELINE, OTHER, created_at=NOW + timedelta(hours=1))
    harness.source.push(again, NOW + timedelta(hours=1))
    harness.follower.step()
    assert harness.follower.served is not None
    assert harness.follower.served.sha256 == again.sha256


def test_a_rollback_by_hand_is_followed_within_a_poll_interval_while_the_trainer_goes_on_pushing(
    harness: Harness,
) -> None:
    for state in (STATE, OTHER):
        newest = commit_version(harness.store, PIPELINE, state)
    harness.follower.look()
    put_alias(harness.store, 1, NOW, hold=True)
    for tick in range(1, 5):  # a trainer that has not noticed, every quarter of the interval of 0.01 s
        harness.seconds += 0.0025
        harness.source.push(newest, NOW + timedelta(hours=tick))
        harness.follower.step()
        assert harness.version == (1 if tick == 4 else 2)
    for tick in range(9):
        harness.source.push(newest, NOW + timedelta(hours=10 + tick))
        harness.follower.step()
        assert harness.version == 1
    assert harness.metric("swaps_total") == 2


@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
def test_the_newest_alias_entry_wins_in_whatever_order_it_is_heard_of(harness: Harness, order: tuple[int, ...]) -> None:
    versions = [commit_version(harness.store, PIPELINE, state) for state in (STATE, OTHER, STATE)]
    put_alias(harness.store, 2, NOW, hold=True)
    put_alias(harness.store, 1, NOW, hold=True)
    harness.seconds = -1.0  # too early for a look at the store
    words = [(versions[2], 5, 0), (versions[1], 9, 1), (versions[0], 1, 2)]  # the older the entry, the later its word
    for i in order:
        version, hours, alias = words[i]
        harness.source.push(version, NOW + timedelta(hours=hours), alias=alias)
    harness.follower.step()
    assert harness.version == 1
    for i in order:
        version, hours, alias = words[i]
        harness.source.push(version, NOW + timedelta(hours=hours), alias=alias)
        harness.follower.step()
        assert harness.version == 1


def test_what_is_served_stays_while_an_alias_names_nobody_or_something_unreadable(harness: Harness) -> None:
    first = commit_version(harness.store, PIPELINE, STATE)
    harness.follower.look()
    harness.store.set_alias("champion", Alias(version=7, reason="", by="me", at=NOW, hold=True), 0)
    with pytest.raises(NoVersion):
        harness.follower.look()
    harness.source.push(commit_version(harness.store, PIPELINE, OTHER), NOW + timedelta(hours=1))
    harness.follower.step()
    assert harness.version == first.number
    harness.store.set_alias("champion", Alias(version=None, reason="", by="me", at=NOW, promotion="manual"), 1)
    harness.follower.look()
    assert harness.version == first.number


def test_in_manual_mode_nobody_serves_before_somebody_is_promoted(harness: Harness) -> None:
    harness.store.set_alias("champion", Alias(version=None, reason="", by="me", at=NOW, promotion="manual"), 0)
    commit_version(harness.store, PIPELINE, STATE)
    harness.follower.look()
    assert (harness.version, harness.follower.reason) == (None, "no_version")
    harness.source.push(commit_version(harness.store, PIPELINE, OTHER), NOW, alias=1)
    harness.follower.step()
    assert harness.version is None
    harness.store.set_alias("champion", Alias(version=1, reason="", by="me", at=NOW, promotion="manual"), 1)
    harness.follower.look()
    assert harness.version == 1


def test_the_scores_of_the_version_that_answers_are_gauges_and_go_with_it(store: ModelStore) -> None:
    scored = (
        Prequential.fresh("binary", 1).score(torch.tensor([0.9, 0.2]), torch.tensor([1.0, 0.0]).double())[0].metrics()
    )
    commit_version(store, PIPELINE, STATE, metrics={**scored, "served": scored})
    harness = Harness(store)
    harness.follower.look()

    def shown(forecast: str, forecaster: str, metric: str) -> float | None:
        labels = {"forecast": forecast, "forecaster": forecaster, "metric": metric}
        return harness.metrics.registry.get_sample_value("stream_trainer_serving_score", labels)

    for forecast in ("trained", "served"):
        assert shown(forecast, "model", "log_loss") == scored["log_loss"]
        assert shown(forecast, "majority", "log_loss") == scored["majority"]["log_loss"]
    commit_version(store, PIPELINE, OTHER, metrics={**scored, "log_loss": 0.5})
    harness.follower.look()
    assert shown("trained", "model", "log_loss") == 0.5
    assert shown("served", "model", "log_loss") is None
