"""Faults F09 to F13 and F15: full, torn, powerless, broken, raced and forbidden storage."""

import errno
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stream_trainer.errors import Corrupt, StoreUnavailable, StoreUnwritable
from stream_trainer.settings import StoreSettings
from stream_trainer.store import ModelStore, retention
from stream_trainer.store.aliases import Alias
from stream_trainer.store.manifest import Rows
from stream_trainer.store.storage import LocalStorage, Storage
from stream_trainer.testing.disk import FaultyDisk, Kind, LostAnswers, Stopped, faulty_storage
from tests.core.test_microbatch import World, fill, undisturbed
from tests.core.test_promotion import FAILED
from tests.core.test_store import Unsynced, commit, intent
from tests.core.worlds import NOW, bits
from tests.serving.fixtures import PIPELINE as SERVED
from tests.serving.fixtures import Harness, commit_version, learned_state

# What may say that the disk is full: delayed allocation lets fsync and close say so too.
SPACE: list[Kind] = ["create", "write", "sync", "close", "link", "replace", "make_folder", "sync_folder"]
SYNCS: list[Kind] = ["sync", "sync_folder"]


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Three versions that nothing disturbed."""
    return undisturbed(tmp_path_factory.mktemp("calm"))


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the first of them."""
    folder = tmp_path_factory.mktemp("begun")
    world = World(folder)
    fill(world)
    world.learn()
    return folder


def world_on(storage: Storage, records: int) -> World:
    """A trainer that has just started on this storage, and a log of so many records."""
    world = World(Path(storage.url))
    world.store = ModelStore(storage, "flights")
    for first in range(0, records, 40):
        fill(world, first)
    world.restart()
    return world


def goes_on_to_the_same_bits(storage: Storage, calm: World) -> None:
    """A trainer started now learns what is missing, in the cuts of the undisturbed one, and ends where that did."""
    world = world_on(storage, 120)
    for n in range(1, 4):
        end = {0: 20 * n, 1: 20 * n}
        if world.lineage.number == n:
            world.learn(world.cut(end))
    assert bits(world.lineage) == bits(calm.lineage)
    for n in range(1, 4):
        assert world.store.verify(n).manifest.files == calm.store.verify(n).manifest.files


def nothing_visible_is_torn(store: ModelStore, calm: World) -> None:
    """Every file under its final name is whole: what the undisturbed trainer wrote, or JSON that parses."""
    for path in store.storage.walk("flights"):
        data = store.storage.get(path)
        parts = path.split("/")
        if parts[1] == "versions" and len(parts) == 5:
            assert data == calm.store.file(calm.store.read(int(parts[2])), parts[4]), path
        elif parts[1] != "references":
            json.loads(data)
    for number in store.numbers():
        store.verify(number)


def calls_of_a_commit(folder: Path, begun: Path) -> list[Kind]:
    storage, disk = faulty_storage(shutil.copytree(begun, folder))
    world = world_on(storage, 80)
    disk.calls.clear()
    world.learn()
    return list(disk.calls)


def fails_and_recovers(
    folder: Path, begun: Path, calm: World, error: type[Exception], break_it: Callable[[FaultyDisk], None]
) -> None:
    storage, disk = faulty_storage(shutil.copytree(begun, folder))
    world = world_on(storage, 80)
    break_it(disk)
    with pytest.raises(error) as raised:
        world.learn()
    assert "\n" not in str(raised.value)
    assert str(folder) in str(raised.value)
    disk.heal()
    head = world.store.head()
    assert head is not None
    assert head.number in (1, 2)
    nothing_visible_is_torn(world.store, calm)
    assert storage.leftovers("flights") == []
    goes_on_to_the_same_bits(storage, calm)
    shutil.rmtree(folder)


@pytest.mark.parametrize("partial", [0.0, 0.6])
def test_f09_a_full_disk_at_any_call_stops_the_trainer_and_goes_on_after_there_is_space(
    tmp_path: Path, begun: Path, calm: World, partial: float
) -> None:
    calls = [kind for kind in calls_of_a_commit(tmp_path / "probe", begun) if kind in SPACE]
    assert len(calls) > 50
    # Each call of the first and the last file; of those between, which are written alike, every fifth.
    chosen = [n for n in range(1, len(calls) + 1) if n <= 12 or n > len(calls) - 14 or n % 5 == (2 if partial else 0)]
    for nth in chosen:
        number = errno.ENOSPC if nth % 2 else errno.EDQUOT
        fails_and_recovers(
            tmp_path / f"{nth}",
            begun,
            calm,
            StoreUnwritable,
            lambda disk, nth=nth, number=number: disk.fail(number, SPACE, nth=nth, onward=True, partial=partial),  # type: ignore[misc]
        )


@pytest.mark.parametrize("nth", range(1, 120, 2))
def test_f09_a_full_disk_at_any_call_of_the_store_leaves_nothing_half_written(tmp_path: Path, nth: int) -> None:
    storage, disk = faulty_storage(tmp_path / "models")
    store = ModelStore(storage, "flights")
    commit(store, 1)
    disk.fail(errno.ENOSPC, SPACE, nth=nth, onward=True, partial=0.5)
    try:
        committed(store, 2, 3)
    except StoreUnwritable as error:
        assert "No space left on device: free some space" in str(error)  # noqa: PT017
    disk.heal()
    assert storage.leftovers("") == []
    for number in store.numbers():
        store.verify(number)
    committed(store, store.highest() + 1, 4)
    assert store.numbers() == [1, 2, 3, 4]


def committed(store: ModelStore, first: int, last: int) -> list[int]:
    """Commit these versions as a trainer does, intents included."""
    return [commit_one(store, number) for number in range(first, last + 1)]


def commit_one(store: ModelStore, number: int) -> int:
    store.fix_cut(msgspec.structs.replace(intent(0, "run"), version=number))
    return commit(store, number).number


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real tmpfs of 256 KiB, where mounting is permitted."""
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        reason = f"a tmpfs cannot be mounted here: {done.stderr.strip()}"
        if os.environ.get("CI") == "true" and os.geteuid() == 0:
            pytest.fail(reason)
        pytest.skip(reason)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def test_f09_and_f15_a_real_disk_that_fills_up_and_is_remounted_read_only(small_disk: Path, calm: World) -> None:
    store = ModelStore(LocalStorage(small_disk / "models"), "flights")
    (small_disk / "other").write_bytes(bytes(200 * 1024))
    with pytest.raises(StoreUnwritable, match="No space left on device: free some space"):
        committed_by_a_trainer(store)
    head = store.head()
    nothing_visible_is_torn(store, calm)
    remount(small_disk, "ro")
    with pytest.raises(StoreUnwritable, match="Read-only file system: remount it"):
        committed_by_a_trainer(store)
    assert store.head() == head
    remount(small_disk, "rw,size=16m")
    goes_on_to_the_same_bits(store.storage, calm)


def committed_by_a_trainer(store: ModelStore) -> None:
    world = world_on(store.storage, 120)
    for n in range(world.lineage.number, 4):
        world.learn(world.cut({0: 20 * n, 1: 20 * n}))


def damages(size: int) -> Iterator[tuple[str, Callable[[bytes], bytes]]]:
    """Torn at each 4 KiB boundary, empty, one byte short, longer, and one bit flipped in each 4 KiB."""
    for length in sorted({0, size - 1, *range(4096, size, 4096)}):
        yield f"cut to {length}", lambda data, length=length: data[:length]  # type: ignore[misc]
        yield f"zeros from {length}", lambda data, length=length: data[:length] + bytes(len(data) - length)  # type: ignore[misc]
    yield "longer", lambda data: data + b"\0"
    for start in range(0, size, 4096):
        at = random.Random(start).randrange(start, min(size, start + 4096))
        yield (
            f"bit {at}",
            lambda data, at=at: data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :],  # type: ignore[misc]
        )


@pytest.mark.parametrize(
    "name", ["weights.safetensors", "trainer.safetensors", "learned.arrow", "golden.arrow", "manifest.json"]
)
def test_f10_whatever_is_torn_in_the_newest_version_makes_the_previous_one_head(calm: World, name: str) -> None:
    storage, store = calm.store.storage, ModelStore(calm.store.storage, "flights")
    (path,) = [p for p in storage.walk(f"flights/versions/{3:020d}") if p.endswith(name)]
    data = storage.get(path)
    tried = 0
    try:
        for what, damage in damages(len(data)):
            torn = damage(data)
            if torn == data:
                continue
            storage.put(path, torn)
            head = store.head()
            assert head is not None, what
            assert (head.number, store.highest()) == (2, 3), what
            assert list(store.damaged_after(2)) == [3], what
            tried += 1
    finally:
        storage.put(path, data)
    assert tried > 3
    assert store.damaged_after(2) == {}


class Flipped(LostAnswers):
    """Reads one file as other bytes; loses nothing."""

    def __init__(self, storage: Storage, path: str) -> None:
        super().__init__(storage, 0)
        self.path, self.data = path, storage.get(path)

    def get(self, path: str, *, limit: int | None = None) -> bytes:
        return self.data if path == self.path else super().get(path, limit=limit)


def test_f10_every_flipped_bit_of_the_newest_unsigned_manifest_is_noticed(calm: World) -> None:
    path = f"flights/versions/{3:020d}/manifest.json"
    storage = Flipped(calm.store.storage, path)
    data = storage.data
    assert b'"checksum"' in data
    assert b'"signature"' not in data
    store = ModelStore(storage, "flights")
    for at, byte in enumerate(data):
        for bit in range(8):
            storage.data = data[:at] + bytes([byte ^ 1 << bit]) + data[at + 1 :]
            with pytest.raises(Corrupt) as error:
                store.read(3)
            assert path in str(error.value), (at, bit)
    storage.data = data
    assert store.read(3) == calm.store.read(3)


@pytest.mark.parametrize("old", [b'"checksum"', b'"seed":0', b'"trained":', b'"log_loss":0.'])
def test_f10_a_flipped_manifest_makes_the_previous_version_the_head(calm: World, old: bytes) -> None:
    path = f"flights/versions/{3:020d}/manifest.json"
    storage = Flipped(calm.store.storage, path)
    at = storage.data.index(old) + len(old) - 2
    storage.data = storage.data[:at] + bytes([storage.data[at] ^ 1]) + storage.data[at + 1 :]
    store = ModelStore(storage, "flights")
    head = store.head()
    assert head is not None
    assert (head.number, store.highest()) == (2, 3)
    assert path in store.damaged_after(2)[3]


def test_f10_each_manifest_names_the_digest_of_the_one_it_was_committed_on(calm: World) -> None:
    for n in (2, 3):
        assert calm.store.read(n).manifest.parent_sha256 == calm.store.read(n - 1).sha256


def run_until_stopped(storage: LocalStorage, done: list[int], aliases: list[int]) -> None:
    store = ModelStore(storage, "flights")
    for number in range(store.highest() + 1, 4):
        done.append(commit_one(store, number))
        entry = store.alias_entry("champion").number
        word = Alias(version=number, reason="", by="me", at=NOW, hold=True)
        appended = store.set_alias("champion", word, entry)
        assert appended is not None
        aliases.append(appended)


def calls_of_three_commits(folder: Path) -> list[Kind]:
    storage, disk = faulty_storage(folder)
    run_until_stopped(storage, [], [])
    return list(disk.calls)


def survived(folder: Path, done: list[int], aliases: list[int], where: object) -> None:
    store = ModelStore(LocalStorage(folder), "flights")
    head = store.head() if store.highest() else None
    assert (head.number if head else 0) >= max(done, default=0), where
    for number in store.numbers():
        store.verify(number)
    assert store.alias_entry("champion").number >= max(aliases, default=0), where


def test_f11_a_power_cut_at_any_call_loses_no_version_that_was_committed(tmp_path: Path) -> None:
    total = len(calls_of_three_commits(tmp_path / "probe"))
    assert total > 100
    lost_something = 0
    for nth in range(1, total + 2):
        for seed in range(2 if nth % 4 == 0 else 1):
            storage, disk = faulty_storage(tmp_path / "models")
            done: list[int] = []
            aliases: list[int] = []
            disk.stop_at(nth)
            if nth <= total:
                with pytest.raises(Stopped):
                    run_until_stopped(storage, done, aliases)
            else:
                run_until_stopped(storage, done, aliases)
            before = sum(1 for p in storage.root.rglob("*"))
            disk.power_cut(1000 * nth + seed)
            lost_something += sum(1 for p in storage.root.rglob("*")) < before
            survived(storage.root, done, aliases, (nth, seed))
            if seed:
                run_until_stopped(LocalStorage(storage.root), done, aliases)
                survived(storage.root, [3], aliases, (nth, seed))
            shutil.rmtree(storage.root)
    assert lost_something > 20


def test_f11_what_a_killed_process_left_unsynced_is_durable_once_the_next_one_builds_on_it(tmp_path: Path) -> None:
    calls = calls_of_three_commits(tmp_path / "probe")
    for nth in [n for n, kind in enumerate(calls, 1) if kind == "sync_folder"]:  # whatever stands before it is loose
        storage, disk = faulty_storage(tmp_path / "models")
        done: list[int] = []
        aliases: list[int] = []
        disk.stop_at(nth)
        with pytest.raises(Stopped):
            run_until_stopped(storage, done, aliases)
        disk.restart()
        run_until_stopped(LocalStorage(storage.root, disk), done, aliases)
        disk.power_cut(nth)
        store = ModelStore(LocalStorage(storage.root), "flights")
        survived(storage.root, done, aliases, nth)
        assert store.numbers() == list(range(1, store.highest() + 1)), nth
        shutil.rmtree(storage.root)


def test_f11_without_its_fsyncs_the_store_would_lose_versions(tmp_path: Path) -> None:
    """The model of a power cut is sharp enough to notice."""

    class Lazy(FaultyDisk):
        def sync_folder(self, path: Path) -> None:
            pass

    lost = 0
    for seed in range(10):
        root = tmp_path / f"{seed}"
        disk = Lazy(root)
        commit(ModelStore(LocalStorage(root, disk), "flights"), 1)
        disk.power_cut(seed)
        lost += ModelStore(LocalStorage(root), "flights").highest() == 0
    assert lost


def test_f12_an_error_of_fsync_is_a_failed_write_that_a_restart_gets_over(
    tmp_path: Path, begun: Path, calm: World
) -> None:
    calls = [kind for kind in calls_of_a_commit(tmp_path / "probe", begun) if kind in SYNCS]
    for nth in range(1, len(calls) + 1):
        fails_and_recovers(
            tmp_path / f"{nth}",
            begun,
            calm,
            StoreUnavailable,
            lambda disk, nth=nth: disk.fail(errno.EIO, SYNCS, nth=nth),  # type: ignore[misc]
        )


@pytest.mark.parametrize("nth", range(1, 9))
def test_f12_what_fsync_failed_for_is_never_visible_not_even_after_a_power_cut(tmp_path: Path, nth: int) -> None:
    storage, disk = faulty_storage(tmp_path / "models")
    store = ModelStore(storage, "flights")
    commit(store, 1)
    disk.fail(errno.EIO, ["sync"], nth=nth)
    try:
        commit_one(store, 2)
    except StoreUnavailable:
        pass
    else:
        assert nth > 5
    disk.heal()
    disk.power_cut(nth)
    for number in ModelStore(LocalStorage(tmp_path / "models"), "flights").numbers():
        store.verify(number)


Word = tuple[str, int]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.sampled_from(["good", "good", "failed", "pin", "release"]), st.integers(0, 30)), max_size=20),
    st.integers(1, 3),
)
def test_f13_retention_never_deletes_what_somebody_needs(tmp_path: Path, steps: list[Word], keep: int) -> None:
    shutil.rmtree(tmp_path / "models", ignore_errors=True)
    store = ModelStore(LocalStorage(tmp_path / "models", Unsynced()), "flights")
    limits = StoreSettings(keep_versions=keep, keep_every=1000)
    for what, draw in steps:
        number = store.highest()
        if what in ("good", "failed"):
            judged: dict[str, Any] = {} if what == "good" else {"gates": FAILED, "rows": Rows(seen=1, quarantined=1)}
            commit(store, number + 1, **judged)
            retention.forget(store, number + 1, limits)
        elif number:
            entry = store.alias_entry("champion")
            whole = [n for n in store.numbers() if not store.pruned(n)]
            word = Alias(version=whole[draw % len(whole)], reason="", by="", at=NOW, hold=what == "pin")
            store.set_alias("champion", word, entry.number)
        needed = retention.protected(store)
        assert needed >= {n for n in (store.highest(), store.highest() - 1) if n > 0}
        champion, head, entry = store.champion(), store.head(), store.alias_entry("champion")
        assert needed >= {version.number for version in (champion, head) if version}
        for n in needed - {entry.alias.version if entry.alias and not entry.alias.hold else 0}:
            store.verify(n)


def test_f13_a_version_deleted_while_it_is_loaded_leaves_what_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = Harness(ModelStore(LocalStorage(tmp_path), SERVED.name))
    commit_version(harness.store, SERVED, learned_state())
    harness.follower.look()
    doomed = commit_version(harness.store, SERVED, learned_state(seed=1))
    real = harness.store.storage.get

    def get(path: str, *, limit: int | None = None) -> bytes:
        if path.endswith("weights.safetensors"):
            ModelStore(LocalStorage(tmp_path), SERVED.name).prune(doomed.number)
        return real(path, limit=limit)

    monkeypatch.setattr(harness.store.storage, "get", get)
    harness.source.push(doomed, NOW)
    harness.follower.step()
    assert harness.version == 1
    monkeypatch.setattr(harness.store.storage, "get", real)
    harness.source.push(commit_version(harness.store, SERVED, learned_state()), NOW + timedelta(seconds=1))
    harness.follower.step()
    assert harness.version == 3


def test_f13_a_crash_or_a_power_cut_in_the_middle_of_retention_never_reads_as_damage(tmp_path: Path) -> None:
    for nth in range(1, 40):
        storage, disk = faulty_storage(tmp_path / f"{nth}")
        store = ModelStore(storage, "flights")
        committed(store, 1, 3)
        disk.stop_at(nth)
        try:
            store.prune(1)
            finished = True
        except Stopped:
            finished = False
        disk.power_cut(nth) if nth % 3 else disk.restart()
        again = ModelStore(LocalStorage(storage.root), "flights")
        if not again.pruned(1):
            assert not finished
            again.verify(1)
        again.prune(1)
        assert again.numbers() == [1, 2, 3]
        if finished:
            return
    pytest.fail("it never finished")


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_f15_a_store_that_must_not_be_written_is_said_so_in_one_line(
    tmp_path: Path, begun: Path, calm: World, number: int
) -> None:
    for nth in (1, 9, 30):
        fails_and_recovers(
            tmp_path / f"{nth}",
            begun,
            calm,
            StoreUnwritable,
            lambda disk, nth=nth: disk.fail(number, SPACE, nth=nth, onward=True),  # type: ignore[misc]
        )


WRITE_AS_SOMEBODY = """
import os, sys
from pathlib import Path
from stream_trainer.store.storage import LocalStorage
if os.geteuid() == 0:
    os.seteuid(65534)
LocalStorage(Path(sys.argv[1])).put_if_absent("flights/x", b"1")
"""


def test_f15_a_folder_of_somebody_else_is_said_to_be_that(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir(mode=0o500)
    done = subprocess.run(
        [sys.executable, "-c", WRITE_AS_SOMEBODY, str(tmp_path / "models")], capture_output=True, text=True, check=False
    )
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("stream_trainer.errors.StoreUnwritable: ")
    assert "Permission denied: let the user of this process write there" in last
    assert list((tmp_path / "models").iterdir()) == []


@pytest.mark.parametrize("nth", range(1, 9))
def test_an_answer_lost_at_any_put_leads_to_the_same_bits(tmp_path: Path, begun: Path, calm: World, nth: int) -> None:
    storage = LocalStorage(shutil.copytree(begun, tmp_path / "models"))
    world = world_on(storage, 80)
    world.store = ModelStore(LostAnswers(storage, nth), "flights")
    with pytest.raises(StoreUnavailable):
        world.learn()
    goes_on_to_the_same_bits(storage, calm)


def test_a_store_in_a_bucket_tells_a_lost_answer_from_a_lost_race(storage: Storage) -> None:
    for nth in range(1, 5):
        store = ModelStore(LostAnswers(storage, nth), "flights")
        with pytest.raises(StoreUnavailable):
            committed(store, store.highest() + 1, 9)
        whole = ModelStore(storage, "flights")
        for number in whole.numbers():
            whole.verify(number)
    with pytest.raises(Corrupt):
        whole.reference("0" * 64)
