"""A person decides which version serves: the commands, and what they refuse."""

import json
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import pytest

from stream_trainer import cli
from stream_trainer.commands import champion
from stream_trainer.errors import StoreDamaged, UsageError
from stream_trainer.settings import Settings
from stream_trainer.store import ModelStore
from stream_trainer.store.aliases import Alias, Promotion
from stream_trainer.store.manifest import Rows
from tests.core.test_cli import ADDRESS, RUNNER
from tests.core.test_microbatch import World, fill
from tests.core.test_promotion import FAILED
from tests.core.test_store import commit
from tests.core.worlds import NOW


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Versions 1, 2, 3 and 5 passed their gates, 4 did not."""
    folder = tmp_path_factory.mktemp("models")
    world = World(folder)
    for n in range(3):
        fill(world, 40 * n)
        world.learn()
    commit(world.store, 4, gates=FAILED, rows=Rows(seen=1, quarantined=1))
    commit(world.store, 5)
    return folder


@pytest.fixture
def store(committed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelStore]:
    folder = shutil.copytree(committed, tmp_path / "models")
    monkeypatch.setenv("STREAM_TRAINER_STORE__URL", str(folder))
    monkeypatch.setenv("STREAM_TRAINER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "200")
    yield World(folder).store
    assert not (tmp_path / "data" / "broker").exists()


def run(command: str, *arguments: str) -> dict[str, Any]:
    found = RUNNER.invoke(cli.app, ["models", command, ADDRESS, *arguments, "--json"])
    assert found.exit_code == 0, found.output
    said: dict[str, Any] = json.loads(found.stdout)
    return said


def refused(command: str, *arguments: str) -> Exception:
    error = RUNNER.invoke(cli.app, ["models", command, ADDRESS, *arguments]).exception
    assert isinstance(error, Exception)
    return error


def serving(store: ModelStore) -> int | None:
    found = store.champion()
    return None if found is None else found.number


def set_mode(store: ModelStore, mode: Promotion, version: int | None) -> None:
    number, _ = store.alias_entry("champion")
    store.set_alias("champion", Alias(version=version, reason="", by="trainer", at=NOW, promotion=mode), number)


def test_a_rollback_serves_the_newest_good_one_before_the_champion_and_holds_it(store: ModelStore) -> None:
    said = run("rollback", "--reason", "answers look wrong")
    assert (said["champion"], said["hold"], said["alias"], said["reason"]) == (3, True, 1, "answers look wrong")
    assert "models release" in said["until"]
    assert "@" in said["by"]
    assert said["announced"] is False
    commit(store, 6)
    assert serving(store) == 3
    assert run("rollback")["champion"] == 2
    assert run("rollback", "1")["champion"] == 1
    assert isinstance(refused("rollback"), UsageError)
    assert serving(store) == 1


def test_a_release_ends_the_hold(store: ModelStore) -> None:
    run("pin", "2")
    assert serving(store) == 2
    assert run("release")["champion"] == 5 == serving(store)
    assert isinstance(refused("release"), UsageError)


def test_a_rollback_passes_over_what_was_pruned_or_damaged(store: ModelStore) -> None:
    store.prune(3)
    second = store.read(2).manifest.attempt
    store.storage.delete(f"flights/versions/{2:020d}/{second}/weights.safetensors")
    assert run("rollback")["champion"] == 1


def test_in_auto_a_promotion_holds_unless_it_is_the_newest_that_passed(store: ModelStore) -> None:
    assert run("promote", "2")["hold"] is True
    assert serving(store) == 2
    assert run("promote", "5")["hold"] is False
    commit(store, 6)
    assert serving(store) == 6
    assert run("promote", "6", "--hold")["hold"] is True


@pytest.mark.parametrize("mode", ["manual", "gated"])
def test_in_manual_and_gated_a_promotion_stands_without_holding(store: ModelStore, mode: Promotion) -> None:
    set_mode(store, mode, None)
    assert serving(store) is None
    said = run("promote", "2")
    assert (said["champion"], said["hold"], said["promotion"], said["alias"]) == (2, False, mode, 2)
    commit(store, 6)
    assert serving(store) == 2
    assert run("promote", "3", "--hold")["hold"] is True
    released = run("release")
    assert (released["champion"], released["promotion"], serving(store)) == (3, mode, 3)


def test_nothing_to_roll_back_to_is_said(store: ModelStore) -> None:
    set_mode(store, "manual", None)
    assert "nothing to roll back to" in str(refused("rollback"))


@pytest.mark.parametrize("command", ["promote", "rollback", "pin"])
def test_what_must_not_serve_is_refused_and_nothing_changes(store: ModelStore, command: str) -> None:
    store.prune(1)
    attempt = store.read(3).manifest.attempt
    store.storage.delete(f"flights/versions/{3:020d}/{attempt}/golden.arrow")
    for number, kind, says in (
        ("1", UsageError, "retention has deleted it"),
        ("3", StoreDamaged, "golden.arrow is gone"),
        ("4", UsageError, "did not pass its gates"),
        ("99", UsageError, "does not exist"),
    ):
        error = refused(command, number)
        assert isinstance(error, kind)
        assert says in str(error)
    assert store.alias_entry("champion") == (0, None)


def test_a_damaged_entry_does_not_keep_a_person_from_deciding(store: ModelStore) -> None:
    set_mode(store, "manual", 5)
    store.storage.put("flights/aliases/champion/2.json", b"{")
    said = run("promote", "2")
    assert (said["alias"], said["promotion"]) == (3, "manual")
    assert serving(store) == 2


def test_who_is_overtaken_decides_again_on_what_was_said(store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    real = ModelStore.set_alias
    overtaken = iter([True, False])

    def set_alias(self: ModelStore, name: str, alias: Alias, based_on: int) -> int | None:
        if next(overtaken):
            faster = Alias(version=3, reason="", by="you", at=NOW, hold=True)
            real(self, name, faster, based_on)
        return real(self, name, alias, based_on)

    monkeypatch.setattr(ModelStore, "set_alias", set_alias)
    said = run("rollback")
    assert (said["alias"], said["champion"]) == (2, 2)


def test_the_words_say_what_serves_and_until_when(store: ModelStore) -> None:
    out = RUNNER.invoke(cli.app, ["models", "rollback", ADDRESS]).stdout
    assert "version 3 of" in out
    assert "held until `models release`" in out
    assert "next look at the store: no Kafka is configured" in out


def test_serving_is_told_when_a_broker_is_there(store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[str, str, dict[str, Any]]] = []

    class Admin:
        def __init__(self, settings: object) -> None: ...
        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None: ...
        def require(self, topics: list[str]) -> None: ...

    class Producer:
        def __init__(self, settings: object) -> None: ...
        def send(self, topic: str, records: list[tuple[str, Any]]) -> None:
            sent.extend((topic, key, value) for key, value in records)

        def close(self) -> None: ...

    monkeypatch.setattr("stream_trainer.announcing.Admin", Admin)
    monkeypatch.setattr("stream_trainer.announcing.ControlProducer", Producer)
    monkeypatch.setattr(champion, "reachable", lambda settings: settings)
    assert run("rollback")["announced"] is True
    ((topic, key, value),) = sent
    assert (topic, key, value["version"], value["alias"]) == ("flights.models", "champion", 3, 1)
    assert value["manifest_sha256"] == store.read(3).sha256


def test_a_configured_kafka_is_reachable_and_a_local_one_only_when_it_runs(tmp_path: Path) -> None:
    configured = Settings(kafka={"bootstrap_servers": "there:9092"})
    assert cli.running(configured) is configured
    assert cli.running(Settings(data_dir=tmp_path)) is None
    assert list(tmp_path.iterdir()) == []


def aged(store: ModelStore, path: str) -> None:
    """A file as a writer that died two days ago left it."""
    store.storage.put(path, b"xxxx")
    then = (datetime.now(UTC) - timedelta(days=2)).timestamp()
    os.utime(Path(store.storage.url) / path, (then, then))


def test_gc_says_what_it_would_delete_deletes_it_and_then_finds_nothing(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAM_TRAINER_STORE__KEEP_VERSIONS", "2")
    aged(store, f"flights/versions/{2:020d}/dead/weights.safetensors")
    aged(store, f"flights/versions/{5:020d}/.abc.tmp")
    before = store.storage.walk("flights")
    said = run("gc", "--dry-run")
    assert store.storage.walk("flights") == before
    assert (said["versions"], said["kinds"]["attempt"], said["kinds"]["unfinished"]) == (
        [1, 2, 3],
        {"objects": 1, "bytes": 4},
        {"objects": 1, "bytes": 4},
    )
    assert said["kinds"]["intent"]["objects"] == 3
    assert run("gc")["kinds"] == said["kinds"]
    assert [n for n in store.numbers() if store.pruned(n)] == [1, 2, 3]
    assert "nothing to delete" in RUNNER.invoke(cli.app, ["models", "gc", ADDRESS]).stdout
    verified = RUNNER.invoke(cli.app, ["models", "verify", ADDRESS])
    assert verified.exit_code == 0
    assert "5 of 5 versions are what was committed, 3 of them without data" in verified.stdout


def test_gc_deletes_nothing_while_it_cannot_tell_who_is_champion(store: ModelStore) -> None:
    store.storage.put("flights/aliases/champion/1.json", b"{")
    error = refused("gc")
    assert isinstance(error, StoreDamaged)
    assert "nothing was deleted" in str(error)


def test_verify_calls_a_version_without_its_manifest_damaged(store: ModelStore) -> None:
    store.storage.delete(f"flights/versions/{2:020d}/manifest.json")
    found = RUNNER.invoke(cli.app, ["models", "verify", ADDRESS])
    assert found.exit_code == 5
    assert "has no version 2" in found.stdout
