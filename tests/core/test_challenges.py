"""Who challenges, as the store keeps it: numbered entries, compare-and-set, on every kind of storage."""

import pytest

from stream_trainer.errors import Corrupt, StoreUnavailable
from stream_trainer.store import ModelStore
from stream_trainer.store.challenges import Challenge
from stream_trainer.store.storage import Storage
from stream_trainer.testing.disk import LostAnswers
from tests.core.worlds import NOW


@pytest.fixture
def store(storage: Storage) -> ModelStore:
    return ModelStore(storage, "flights")


def said(version: int | None, by: str = "me") -> Challenge:
    return Challenge(version=version, reason="", by=by, at=NOW)


def test_the_highest_entry_counts(store: ModelStore) -> None:
    assert store.challenges.newest() == (0, None)
    assert store.challenges.newest().version is None
    for number in range(12):
        assert store.challenges.append(said(number or None), number) == number + 1
    assert ModelStore(store.storage, "flights").challenges.newest() == (12, said(11))


def test_of_two_who_decide_on_the_same_entry_the_slower_is_told(store: ModelStore) -> None:
    assert store.challenges.append(said(1), 0) == 1
    assert store.challenges.append(said(1, by="you"), 0) is None
    assert store.challenges.newest() == (1, said(1))
    assert store.challenges.append(said(None), 1) == 2
    assert store.challenges.newest().version is None


def test_a_lost_answer_is_no_lost_race(store: ModelStore) -> None:
    unlucky = ModelStore(LostAnswers(store.storage, 1), "flights")
    with pytest.raises(StoreUnavailable):
        unlucky.challenges.append(said(1), 0)
    assert unlucky.challenges.append(said(1), 0) == 1


@pytest.mark.parametrize("data", [b"{", b"[]", b'{"version":1}', b'{"version":"x","reason":"","by":"","at":"now"}'])
def test_a_damaged_entry_is_corrupt_and_its_number_is_known(store: ModelStore, data: bytes) -> None:
    store.storage.put("flights/aliases/challenger/3.json", data)
    with pytest.raises(Corrupt, match=r"challenger/3\.json is not a challenger"):
        store.challenges.newest()
    assert store.challenges.newest_number() == 3


def test_champion_and_challenger_do_not_meet(store: ModelStore) -> None:
    store.challenges.append(said(None), 0)
    assert store.alias_entry("champion") == (0, None)
    assert store.aliases.names() == ["challenger"]
