"""Who is champion: the rule of the alias, what the trainer appends to it, and compare-and-set on a real store."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_trainer import promotion
from stream_trainer.errors import Corrupt, StoreUnavailable
from stream_trainer.promotion import does_well, next_alias, record_mode
from stream_trainer.store import Manifest, ModelStore, Rows, Version
from stream_trainer.store.aliases import Alias, Entry, Promotion, champion_of
from stream_trainer.store.manifest import Verdict
from stream_trainer.store.storage import LocalStorage, Storage
from stream_trainer.testing.disk import LostAnswers
from tests.core.test_store import commit
from tests.core.worlds import NOW

MODES: list[Promotion] = ["auto", "manual", "gated"]
QUARANTINED = Rows(seen=1, quarantined=1)
FAILED = [Verdict(gate="g", passed=False, detail="")]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return commit(ModelStore(LocalStorage(tmp_path_factory.mktemp("models")), "flights"), 1).manifest


def clock() -> datetime:
    return NOW


def scored(template: Manifest, number: int, loss: float | None, *, passed: bool = True, **metrics: Any) -> Manifest:
    found = {"rows": 10, "no_change": {"log_loss": 0.7}, "majority": {"log_loss": 0.6}, **metrics}
    found |= {} if loss is None else {"log_loss": loss}
    changes: dict[str, Any] = {} if passed else {"gates": FAILED, "rows": QUARANTINED}
    return msgspec.structs.replace(template, version=number, metrics=found, **changes)


def history(template: Manifest, losses: Sequence[float | None], failed: Collection[int] = ()) -> list[Manifest]:
    return [scored(template, n, loss, passed=n not in failed) for n, loss in enumerate(losses, 1)]


def test_without_an_entry_and_in_auto_the_newest_that_passed_is_champion() -> None:
    assert champion_of(None, lambda: 7) == 7
    assert champion_of(None, lambda: None) is None
    assert champion_of(Alias(version=3, reason="", by="", at=NOW), lambda: 7) == 7


@pytest.mark.parametrize("mode", MODES)
def test_what_holds_is_champion_in_every_mode_and_nobody_else_is_asked_for(mode: Promotion) -> None:
    entry = Alias(version=3, reason="", by="", at=NOW, hold=True, promotion=mode)
    assert champion_of(entry, lambda: pytest.fail("not needed")) == 3


@pytest.mark.parametrize("mode", ["manual", "gated"])
@pytest.mark.parametrize("number", [3, None])
def test_in_manual_and_gated_the_entry_counts_although_it_does_not_hold(mode: Promotion, number: int | None) -> None:
    entry = Alias(version=number, reason="", by="", at=NOW, promotion=mode)
    assert champion_of(entry, lambda: pytest.fail("not needed")) == number


def test_a_version_is_promoted_after_five_that_passed_in_a_row(template: Manifest) -> None:
    found = history(template, [0.5] * 5)
    assert does_well(found, None)
    assert not does_well(found[1:], None)
    assert does_well(found[1:], None, promotion_after=4)
    for failed in range(1, 6):
        assert not does_well(history(template, [0.5] * 5, {failed}), None)
    assert does_well(history(template, [0.5] * 6, {1}), None)
    partly = msgspec.structs.replace(found[1], quarantined=[{"t": {0: (0, 1)}}])
    assert partly.passed
    assert not does_well([found[0], partly, *found[2:]], None)


@pytest.mark.parametrize(
    ("loss", "well"), [(1.05, True), (1.0501, False), (0.2, True), (None, False), (float("nan"), False)]
)
def test_against_a_champion_its_recorded_loss_counts(template: Manifest, loss: float | None, well: bool) -> None:
    champion = scored(template, 1, 1.0)
    assert does_well(history(template, [*[2.0] * 5, loss]), champion) is well


@pytest.mark.parametrize(("loss", "well"), [(0.6, True), (0.61, False)])
def test_without_a_champion_both_baselines_must_be_reached(template: Manifest, loss: float, well: bool) -> None:
    assert does_well(history(template, [*[2.0] * 4, loss]), None) is well
    unscored = scored(template, 1, None)
    assert does_well(history(template, [*[2.0] * 4, loss]), unscored) is well


def test_a_loss_over_no_rows_or_without_baselines_promotes_nobody(template: Manifest) -> None:
    before = history(template, [0.5] * 4)
    assert not does_well([*before, scored(template, 5, 0.0, rows=0)], None)
    assert not does_well([*before, scored(template, 5, 0.0, majority={})], None)


def test_the_squared_error_counts_for_numbers(template: Manifest) -> None:
    numbers: dict[str, Any] = {"mse": 2.0, "no_change": {"mse": 3.0}, "majority": {"mse": 2.5}}
    found = [scored(template, n, None, **numbers) for n in range(1, 6)]
    assert does_well(found, None)
    assert not does_well(found, scored(template, 9, None, **(numbers | {"mse": 1.9})))


def test_the_champion_is_not_promoted_again(template: Manifest) -> None:
    found = history(template, [0.5] * 5)
    assert not does_well(found, found[-1])


def test_the_reason_tells_the_two_losses(template: Manifest) -> None:
    found = history(template, [0.5] * 5)
    entry = Entry(4, Alias(version=None, reason="", by="", at=NOW, promotion="gated"))
    promoted = next_alias(entry, Version(found[-1], ""), "gated", found, None, clock)
    assert promoted is not None
    assert (promoted.version, promoted.by, promoted.hold, promoted.promotion) == (5, "trainer", False, "gated")
    assert "loss 0.5 against 0.6 (the better baseline)" in promoted.reason
    again = next_alias(entry, Version(found[-1], ""), "gated", found, found[0], clock)
    assert again is not None
    assert "against 0.525 (version 1 + 5 %)" in again.reason


def test_a_mode_that_is_recorded_already_is_not_recorded_again(template: Manifest) -> None:
    for mode in MODES:
        entry = Entry(1, Alias(version=1, reason="", by="", at=NOW, promotion=mode))
        assert record_mode(entry, mode, template, clock) is None
    assert record_mode(Entry(0, None), "auto", template, clock) is None
    assert (
        record_mode(Entry(1, Alias(version=None, reason="", by="", at=NOW, promotion="manual")), "auto", None, clock)
        is None
    )


Step = tuple[Promotion, float, bool, str]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(MODES),
        st.sampled_from([0.3, 0.5, 0.9]),
        st.booleans(),
        st.sampled_from(["", "", "", "pin", "release"]),
    ),
    max_size=25,
)


@given(STEPS)
def test_over_any_history_the_champion_passed_its_gates_holds_stand_and_the_mode_is_recorded(
    template: Manifest, steps: list[Step]
) -> None:
    entry, manifests = Entry(0, None), list[Manifest]()

    def newest_passed() -> int | None:
        return next((m.version for m in reversed(manifests) if m.passed), None)

    def append(alias: Alias | None) -> None:
        nonlocal entry
        if alias is not None:
            assert alias.version is not None or (alias.promotion != "auto" and not alias.hold)
            entry = Entry(entry.number + 1, alias)

    for mode, loss, passed, person in steps:
        before = champion_of(entry.alias, newest_passed)
        if person == "pin" and before is not None:
            held = entry.alias.promotion if entry.alias else "auto"
            append(Alias(version=before, reason="", by="me", at=NOW, hold=True, promotion=held))
        if person == "release" and entry.alias is not None:
            append(msgspec.structs.replace(entry.alias, hold=False))
        champion = manifests[before - 1] if before is not None else None
        append(record_mode(entry, mode, champion, clock))
        made = scored(template, len(manifests) + 1, loss, passed=passed)
        manifests.append(made)
        was = entry.alias
        append(next_alias(entry, Version(made, ""), mode, manifests, champion, clock))
        now = champion_of(entry.alias, newest_passed)
        assert now is None or manifests[now - 1].passed
        assert (entry.alias.promotion if entry.alias else "auto") == mode or (mode == "auto" and now is None)
        if was is not None and was.hold:
            assert (now, entry.alias and entry.alias.hold) == (was.version, True)
        elif mode == "auto":
            assert now == newest_passed()
        elif mode == "manual":
            assert now == before
        else:
            assert now in (before, made.version)
            assert now == before or does_well(manifests, champion)


@pytest.fixture
def store(storage: Storage) -> ModelStore:
    return ModelStore(storage, "flights")


def said(number: int | None, *, hold: bool = False, mode: Promotion = "auto", by: str = "me") -> Alias:
    return Alias(version=number, reason="", by=by, at=NOW, hold=hold, promotion=mode)


def test_of_two_who_decide_on_the_same_entry_the_slower_is_told(store: ModelStore) -> None:
    assert store.alias_entry("champion") == (0, None)
    assert store.set_alias("champion", said(1), 0) == 1
    assert store.set_alias("champion", said(2, by="you"), 0) is None
    assert store.alias_entry("champion") == (1, said(1))
    assert store.set_alias("champion", said(2, by="you"), 1) == 2
    assert ModelStore(store.storage, "flights").alias_entry("champion") == (2, said(2, by="you"))


def test_a_lost_answer_is_no_lost_race(store: ModelStore) -> None:
    unlucky = ModelStore(LostAnswers(store.storage, 1), "flights")
    with pytest.raises(StoreUnavailable):
        unlucky.set_alias("champion", said(1), 0)
    assert unlucky.set_alias("champion", said(1), 0) == 1


def test_another_process_sees_what_was_appended(store: ModelStore) -> None:
    other = ModelStore(store.storage, "flights")
    for n in range(1, 13):
        assert store.set_alias("champion", said(n), n - 1) == n
        assert other.alias_entry("champion") == (n, said(n))
    store.storage.delete("flights/aliases/champion/12.json")
    assert other.alias_entry("champion") == (11, said(11))


@pytest.mark.parametrize("broken", [said(None), said(None, hold=True, mode="manual")])
def test_an_entry_that_has_to_name_a_version_and_does_not_is_corrupt(store: ModelStore, broken: Alias) -> None:
    store.set_alias("champion", broken, 0)
    with pytest.raises(Corrupt, match="has to name a version"):
        store.champion()


def test_hundreds_of_failed_versions_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ModelStore(LocalStorage(tmp_path), "flights")
    for n in range(1, 31):
        commit(store, n, **({"gates": FAILED, "rows": QUARANTINED} if n > 1 else {}))
    champion = store.champion()
    assert champion is not None
    assert champion.number == 1
    read: list[str] = []
    real = store.storage.get

    def get(path: str, *, limit: int | None = None) -> bytes:
        read.append(path)
        return real(path, limit=limit)

    monkeypatch.setattr(store.storage, "get", get)
    assert store.champion() == champion
    assert len([path for path in read if path.endswith("manifest.json")]) <= 2
    commit(store, 31, created_at=NOW + timedelta(hours=1))
    assert store.newest_passed() == 31
    assert store.newest_passed(before=31) == 1


def test_the_trainers_constants_are_those_of_the_manual() -> None:
    assert (promotion.PROMOTION_AFTER, promotion.TOLERANCE) == (5, 1.05)
