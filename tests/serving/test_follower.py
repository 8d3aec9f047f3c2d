from datetime import timedelta
from typing import Any

import pytest

from stream_trainer.store.manifest import Rows, Verdict
from stream_trainer.store.store import GOLDEN, WEIGHTS
from tests.serving.fixtures import (
    NOW,
    PIPELINE,
    Harness,
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
}


@pytest.mark.parametrize("reason", BAD)
def test_a_refused_version_leaves_the_last_good_one_and_the_next_recovers(harness: Harness, reason: str) -> None:
    state, changes = BAD[reason]
    commit_version(harness.store, PIPELINE, STATE)
    harness.follower.look()
    bad = commit_version(harness.store, PIPELINE, state, **changes)
    for second in range(3):
        harness.source.push(bad, NOW + timedelta(seconds=second))
        harness.follower.step()
    assert harness.version == 1
    assert harness.metric("refused_versions_total", reason=reason) == 1
    harness.source.push(commit_version(harness.store, PIPELINE, OTHER), NOW + timedelta(seconds=9))
    harness.follower.step()
    assert harness.version == 3
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


def test_a_push_may_roll_back(harness: Harness) -> None:
    old, new = (commit_version(harness.store, PIPELINE, s) for s in (STATE, OTHER))
    for version, seconds in ((new, 10), (old, 20)):
        harness.source.push(version, NOW + timedelta(seconds=seconds))
        harness.follower.step()
    assert harness.version == 1
    harness.follower.step()
    assert harness.version == 1
