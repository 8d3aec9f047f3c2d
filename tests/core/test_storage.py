import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from stream_trainer.errors import StoreUnavailable, StoreUnwritable, UsageError
from stream_trainer.settings import StoreSettings
from stream_trainer.store.storage import LocalStorage, Storage, open_storage
from stream_trainer.testing.disk import faulty_storage


def test_what_was_put_is_what_is_got(storage: Storage) -> None:
    data = bytes(range(256)) * 5000
    storage.put("a/b/c.bin", data)
    assert storage.get("a/b/c.bin") == data
    storage.put("a/b/c.bin", b"")
    assert storage.get("a/b/c.bin") == b""


def test_only_the_first_of_two_puts_if_absent_counts(storage: Storage) -> None:
    assert storage.put_if_absent("p/x", b"one") is True
    assert storage.put_if_absent("p/x", b"two") is False
    assert storage.put_if_absent("p/x", b"one") is False
    assert storage.get("p/x") == b"one"


def test_what_fills_a_folder_is_all_there_in_the_end(storage: Storage) -> None:
    with storage.filling("p/own"):
        assert all(storage.put_if_absent(f"p/own/{name}", name.encode()) for name in "abc")
        assert storage.put_if_absent("p/other", b"other") is True
    assert storage.walk("p") == ["p/other", "p/own/a", "p/own/b", "p/own/c"]


def test_a_folder_that_is_filled_is_synced_once_for_all_of_its_names(tmp_path: Path) -> None:
    storage, disk = faulty_storage(tmp_path)
    storage.put("p/before", b"")
    disk.calls.clear()
    with storage.filling("p/own"):
        for name in "abc":
            storage.put_if_absent(f"p/own/{name}", name.encode())
    assert disk.calls.count("sync") == 3
    assert disk.calls.count("sync_folder") == 2  # its own name, then those in it
    disk.power_cut(0)
    assert LocalStorage(tmp_path).walk("p/own") == ["p/own/a", "p/own/b", "p/own/c"]


def test_of_sixteen_writers_at_once_exactly_one_wins(storage: Storage) -> None:
    gate = threading.Barrier(16)

    def write(i: int) -> bool:
        gate.wait()
        return storage.put_if_absent("race/manifest.json", f"{i}".encode())

    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(write, range(16)))
    assert won.count(True) == 1
    assert storage.get("race/manifest.json") == f"{won.index(True)}".encode()


def test_a_missing_object_is_not_found(storage: Storage) -> None:
    storage.put("a/b", b"x")
    for path in ("a/none", "none/at/all", "a"):
        with pytest.raises(FileNotFoundError):
            storage.get(path)


def test_names_are_those_directly_under_a_folder(storage: Storage) -> None:
    for path in ("p/1/x", "p/1/y", "p/2/x", "p/CURRENT", "q/3"):
        storage.put(path, b"")
    assert storage.names("p") == ["1", "2", "CURRENT"]
    assert storage.names("p/1") == ["x", "y"]
    assert storage.names("none") == []
    assert storage.names("p/CURRENT") == []
    assert storage.names("p", after="1") == ["2", "CURRENT"]
    assert storage.names("p/1", after="x") == ["y"]
    assert storage.names("p", after="CURRENT") == storage.names("none", after="1") == []


def test_walking_gives_every_path_below(storage: Storage) -> None:
    for path in ("p/1/x", "p/2/deep/er/y", "p/CURRENT", "q/3"):
        storage.put(path, b"")
    assert storage.walk("p") == ["p/1/x", "p/2/deep/er/y", "p/CURRENT"]
    assert storage.walk("none") == []
    assert storage.survey("none") == []


def test_a_survey_tells_sizes_and_times(storage: Storage) -> None:
    before = datetime.now(UTC)
    storage.put("p/1/x", b"123")
    storage.put("p/y", b"")
    found = storage.survey("p")
    assert [(item.path, item.size) for item in found] == [("p/1/x", 3), ("p/y", 0)]
    assert all(abs(item.modified - before) < timedelta(minutes=1) for item in found)
    assert storage.leftovers("p") == []


def test_existing_is_told_of_objects_not_of_folders(storage: Storage) -> None:
    storage.put("p/1/x", b"")
    assert storage.exists("p/1/x")
    assert not any(storage.exists(path) for path in ("p/1", "p/1/y", "p/1/x/z", "none/x"))


def test_a_folder_with_objects_is_not_tidied_away_and_an_empty_one_can_be_filled_again(storage: Storage) -> None:
    storage.put("p/1/x", b"")
    storage.tidy("p/1")
    storage.tidy("p/none")
    storage.persist("p/1/x")
    assert storage.exists("p/1/x")
    storage.delete("p/1/x")
    storage.tidy("p/1")
    assert storage.names("p") == []
    storage.put("p/1/x", b"again")
    assert storage.get("p/1/x") == b"again"


def test_deleting_removes_and_may_be_repeated(storage: Storage) -> None:
    storage.put("p/x", b"1")
    storage.delete("p/x")
    storage.delete("p/x")
    with pytest.raises(FileNotFoundError):
        storage.get("p/x")
    assert storage.put_if_absent("p/x", b"2") is True


def test_a_folder_holds_no_temporary_files_afterwards(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    storage.put("a/x", b"1")
    storage.put_if_absent("a/x", b"2")
    storage.put_if_absent("a/y", b"2")
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["x", "y"]


def test_a_half_written_temporary_file_is_never_seen(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    storage.put("a/x", b"1")
    (tmp_path / "a" / ".1234.tmp").write_bytes(b"half")
    assert storage.names("a") == ["x"]
    assert storage.walk("a") == ["a/x"]
    assert [(item.path, item.size) for item in storage.leftovers("a")] == [("a/.1234.tmp", 4)]
    storage.delete("a/.1234.tmp")
    assert storage.leftovers("a") == []


def test_a_folder_that_somebody_else_tidied_away_is_made_again(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    storage.put("a/x", b"1")
    storage.delete("a/x")
    LocalStorage(tmp_path).tidy("a")
    assert storage.put_if_absent("a/x", b"2")


def test_a_file_in_the_place_of_a_folder_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for root in (tmp_path / "file", tmp_path / "file" / "models"):
        with pytest.raises(StoreUnwritable, match="a file is where a folder has to be"):
            LocalStorage(root).put_if_absent("x", b"1")
    storage = LocalStorage(tmp_path)
    with pytest.raises(StoreUnwritable, match="a file is where a folder has to be"):
        storage.put("file/x", b"1")


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(UsageError, match="s3://"):
        open_storage("ftp://there/models", StoreSettings())


def test_a_folder_may_be_named_as_a_file_url(tmp_path: Path) -> None:
    storage = open_storage(f"file://{tmp_path}", StoreSettings())
    storage.put("x", b"1")
    assert (tmp_path / "x").read_bytes() == b"1"


def test_a_store_that_is_not_there_is_unavailable_not_empty(s3: StoreSettings) -> None:
    gone = open_storage("s3://no-such-bucket/p", s3)
    with pytest.raises(StoreUnavailable, match="no such bucket"):
        gone.put_if_absent("x", b"1")
    with pytest.raises(StoreUnavailable, match="no-such-bucket"):
        gone.names("x")
