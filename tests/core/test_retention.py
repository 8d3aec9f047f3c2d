"""Old versions lose their data files, never their manifests."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from stream_trainer.errors import Corrupt
from stream_trainer.settings import StoreSettings
from stream_trainer.store import ModelStore, Rows, garbage, retention
from stream_trainer.store.aliases import Alias
from stream_trainer.store.challenges import Challenge
from stream_trainer.store.manifest import Verdict
from stream_trainer.store.storage import LocalStorage
from tests.serving.fixtures import NOW, PIPELINE, commit_version, learned_state

SETTINGS = StoreSettings(keep_versions=3, keep_every=4)


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(LocalStorage(tmp_path), PIPELINE.name)


def committed(store: ModelStore, count: int, settings: StoreSettings) -> None:
    state = learned_state()
    for _ in range(count):
        version = commit_version(store, PIPELINE, state)
        retention.forget(store, version.number, settings)


def kept(store: ModelStore) -> list[int]:
    return [n for n in store.numbers() if not store.pruned(n)]


def test_the_newest_and_one_in_so_many_older_versions_keep_their_data(store: ModelStore) -> None:
    committed(store, 10, SETTINGS)
    assert store.numbers() == list(range(1, 11))
    assert kept(store) == [4, 8, 9, 10]
    head = store.head()
    assert head is not None
    assert head.number == 10
    with pytest.raises(Corrupt, match="gone"):
        store.verify(5)


def test_nothing_is_deleted_when_all_are_to_be_kept(store: ModelStore) -> None:
    committed(store, 6, StoreSettings(keep_versions=0))
    assert kept(store) == list(range(1, 7))


def test_what_the_champion_alias_names_keeps_its_data(store: ModelStore) -> None:
    committed(store, 2, SETTINGS)
    alias = b'{"version":2,"reason":"","by":"me","at":"2026-01-01T00:00:00Z","hold":true}'
    assert store.storage.put_if_absent(f"{PIPELINE.name}/aliases/champion/1.json", alias)
    committed(store, 8, SETTINGS)
    assert kept(store) == [2, 4, 8, 9, 10]


FAILED: dict[str, Any] = {
    "gates": [Verdict(gate="g", passed=False, detail="")],
    "rows": Rows(seen=1, quarantined=1),
}


def test_an_old_champion_outlives_many_versions_that_failed_their_gates(store: ModelStore) -> None:
    state = learned_state()
    commit_version(store, PIPELINE, state)
    for _ in range(12):
        version = commit_version(store, PIPELINE, state, **FAILED)
        retention.forget(store, version.number, SETTINGS)
    champion = store.champion()
    assert champion is not None
    assert champion.number == 1
    assert store.verify(1) == champion
    assert kept(store) == [1, 4, 8, 11, 12, 13]


def test_what_is_protected_is_the_head_its_understudy_the_newest_two_and_the_champion(store: ModelStore) -> None:
    committed(store, 9, StoreSettings(keep_versions=0))
    for number in (8, 9):
        attempt = store.read(number).manifest.attempt
        store.storage.delete(f"{PIPELINE.name}/versions/{number:020d}/{attempt}/weights.safetensors")
    store.prune(6)
    store.set_alias("champion", Alias(version=2, reason="", by="me", at=NOW, hold=True), 0)
    store.set_alias("holdout", Alias(version=3, reason="", by="me", at=NOW, hold=True), 0)
    assert retention.protected(store) == {9, 8, 7, 5, 2, 3}


def challenged(store: ModelStore, version: int | None) -> None:
    challenge = Challenge(version=version, reason="", by="me", at=NOW)
    assert store.challenges.append(challenge, store.challenges.newest_number()) is not None


def test_a_challenger_keeps_its_data_until_it_is_withdrawn(store: ModelStore) -> None:
    committed(store, 2, SETTINGS)
    challenged(store, 2)
    committed(store, 8, SETTINGS)
    assert kept(store) == [2, 4, 8, 9, 10]
    assert 2 in retention.protected(store)
    assert collected(store, SETTINGS).versions == {}
    challenged(store, None)
    assert 2 not in retention.protected(store)
    assert list(collected(store, SETTINGS).versions) == [2]


def test_gc_spares_a_challenger_that_was_named_between_finding_and_deleting(store: ModelStore) -> None:
    committed(store, 9, StoreSettings(keep_versions=0))
    found = garbage.find(store, SETTINGS, older_than=datetime.now(UTC))
    challenged(store, 3)
    garbage.collect(store, found)
    assert kept(store) == [3, 4, 7, 8, 9]


def test_nothing_is_deleted_while_nobody_can_tell_who_challenges(store: ModelStore) -> None:
    committed(store, 9, StoreSettings(keep_versions=0))
    store.storage.put(f"{PIPELINE.name}/aliases/challenger/1.json", b"{")
    with pytest.raises(Corrupt, match="not a challenger"):
        garbage.find(store, SETTINGS, older_than=datetime.now(UTC))
    committed(store, 1, SETTINGS)
    assert kept(store) == list(range(1, 11))


def test_what_was_lost_by_accident_is_damage_not_retention(store: ModelStore) -> None:
    committed(store, 3, StoreSettings(keep_versions=0))
    attempt = f"{PIPELINE.name}/versions/{1:020d}/{store.read(1).manifest.attempt}"
    for name in store.storage.names(attempt):
        store.storage.delete(f"{attempt}/{name}")
    assert not store.pruned(1)
    assert store.prune(2) == 3
    assert store.pruned(2)
    assert store.prune(2) == 0


def aged(store: ModelStore, path: str, days: float = 2) -> None:
    store.storage.put(path, b"x")
    then = (datetime.now(UTC) - timedelta(days=days)).timestamp()
    os.utime(Path(store.storage.url) / path, (then, then))


def collected(store: ModelStore, settings: StoreSettings) -> garbage.Garbage:
    found = garbage.find(store, settings, older_than=garbage.past(datetime.now(UTC), 24))
    garbage.collect(store, found)
    return found


def test_gc_takes_what_crashes_left_and_leaves_what_is_being_written(store: ModelStore) -> None:
    committed(store, 5, StoreSettings(keep_versions=0))
    versions = f"{PIPELINE.name}/versions"
    aged(store, f"{versions}/{2:020d}/dead/weights.safetensors")
    aged(store, f"{versions}/{2:020d}/young/weights.safetensors", days=0.1)
    aged(store, f"{versions}/{6:020d}/next/weights.safetensors")
    aged(store, f"{PIPELINE.name}/.old.tmp")
    aged(store, f"{versions}/{6:020d}/next/.young.tmp", days=0.1)
    before = set(store.storage.walk(""))
    collected(store, StoreSettings(keep_versions=0))
    assert before - set(store.storage.walk("")) == {f"{versions}/{2:020d}/dead/weights.safetensors"}
    assert "dead" not in store.storage.names(f"{versions}/{2:020d}")
    assert [item.path.rsplit("/", 1)[-1] for item in store.storage.leftovers("")] == [".young.tmp"]
    for number in store.numbers():
        store.verify(number)


def test_gc_lets_go_of_what_the_settings_no_longer_keep_and_finishes_what_was_begun(store: ModelStore) -> None:
    committed(store, 9, StoreSettings(keep_versions=0))
    half = f"{PIPELINE.name}/versions/{8:020d}"  # within what is kept, but somebody began to delete it
    store.storage.put_if_absent(f"{half}/pruned.json", b'{"version":8}')
    store.storage.put(f"{PIPELINE.name}/versions/{3:020d}/manifest.json", b"{")  # nobody knows what it named
    committed(store, 1, StoreSettings(keep_versions=0))
    found = collected(store, SETTINGS)
    assert sorted(found.versions) == [1, 2, 5, 6, 7, 8]
    assert kept(store) == [3, 4, 9, 10]
    assert collected(store, SETTINGS).versions == {}


def test_gc_spares_what_is_promoted_between_finding_and_deleting(store: ModelStore) -> None:
    committed(store, 9, StoreSettings(keep_versions=0))
    found = garbage.find(store, SETTINGS, older_than=datetime.now(UTC))
    store.set_alias("champion", Alias(version=2, reason="", by="me", at=NOW, hold=True), 0)
    garbage.collect(store, found)
    assert kept(store) == [2, 4, 7, 8, 9]
    store.verify(2)
