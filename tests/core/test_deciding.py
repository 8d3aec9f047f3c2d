"""An entry that others also want to append."""

import pytest

from stream_trainer.deciding import TRIES, Undecidable, append


class Shelf:
    """Entries in order; so many calls of `put` find that somebody else was faster."""

    def __init__(self, others: int = 0) -> None:
        self.entries: list[str] = []
        self.others = others

    def newest(self) -> tuple[int, str | None]:
        return len(self.entries), self.entries[-1] if self.entries else None

    def put(self, entry: str, after: int) -> int | None:
        if self.others:
            self.others -= 1
            self.entries.append("another's")
        if len(self.entries) != after:
            return None
        self.entries.append(entry)
        return len(self.entries)


def after(before: str | None) -> str:
    return f"after {before}"


def test_the_decision_is_on_the_newest_entry() -> None:
    shelf = Shelf()
    assert append("it", shelf.newest, after, shelf.put) == (1, "after None")
    assert append("it", shelf.newest, after, shelf.put) == (2, "after after None")


def test_it_is_decided_anew_when_somebody_was_faster() -> None:
    shelf = Shelf(others=TRIES - 1)
    assert append("it", shelf.newest, after, shelf.put) == (TRIES, "after another's")


def test_who_is_never_first_is_told_so() -> None:
    shelf = Shelf(others=TRIES)
    with pytest.raises(Undecidable, match="it is being set by others all the time") as raised:
        append("it", shelf.newest, after, shelf.put)
    assert raised.value.why == "contended"
    assert "after another's" not in shelf.entries
