"""The record of windows: bounded, and as cheap to add to when it is long."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitors.history import History, WindowRecord
from stream_trainer.errors import StoreUnavailable
from stream_trainer.store.storage import LocalStorage
from tests.monitors.histories import START, WINDOW

KEPT = 5


class Counted(LocalStorage):
    """Counts listings; `stuck`: nothing can be deleted."""

    listings = 0
    stuck = False

    def walk(self, prefix: str) -> list[str]:
        self.listings += 1
        return super().walk(prefix)

    def delete(self, path: str) -> None:
        if self.stuck:
            raise StoreUnavailable("no answer")
        super().delete(path)


def window(number: int) -> WindowRecord:
    return WindowRecord(start=START + number * WINDOW, end=START + (number + 1) * WINDOW, rows=1)


def test_however_many_windows_are_added_the_folder_is_listed_once(tmp_path: Path) -> None:
    storage = Counted(tmp_path)
    history = History(storage, kept=KEPT)
    for number in range(20):
        history.add(window(number))
    assert storage.listings == 1
    assert history.starts() == [window(number).start for number in range(15, 20)]
    assert len(list(tmp_path.rglob("*.msgpack"))) == KEPT


def test_a_restart_knows_what_is_there_and_forgets_the_oldest(tmp_path: Path) -> None:
    for number in range(KEPT + 2):
        History(LocalStorage(tmp_path), kept=KEPT).add(window(number))
    assert History(LocalStorage(tmp_path)).starts() == [window(number).start for number in range(2, KEPT + 2)]


def test_what_could_not_be_deleted_is_deleted_when_the_window_comes_again(tmp_path: Path) -> None:
    storage = Counted(tmp_path)
    history = History(storage, kept=1)
    history.add(window(0))
    storage.stuck = True
    with pytest.raises(StoreUnavailable):
        history.add(window(1))
    storage.stuck = False
    history.add(window(1))
    assert history.starts() == [window(1).start]


@given(st.lists(st.integers(0, 12), min_size=1, max_size=30), st.integers(1, 6))
@settings(max_examples=25)
def test_in_any_order_and_however_often_the_newest_are_kept(
    tmp_path_factory: pytest.TempPathFactory, numbers: list[int], kept: int
) -> None:
    history = History(LocalStorage(tmp_path_factory.mktemp("history")), kept=kept)
    expected: set[int] = set()
    for number in numbers:
        history.add(window(number))
        expected = set(sorted(expected | {number})[-kept:])
    assert history.starts() == [window(number).start for number in sorted(expected)]
