"""Old versions lose their data files, never their manifests."""

from pathlib import Path

import pytest

from stream_trainer.errors import Corrupt
from stream_trainer.settings import StoreSettings
from stream_trainer.store import ModelStore, retention
from stream_trainer.store.storage import LocalStorage
from tests.serving.fixtures import PIPELINE, commit_version, learned_state

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
