"""How often something is attempted again, and what counts as getting further."""

import threading
from collections.abc import Iterator

import pytest

from stream_trainer import restarting
from stream_trainer.errors import BrokerUnavailable, RetriesExhausted, UsageError
from stream_trainer.restarting import until_done


class Worker:
    """Stands at one position after the other, and fails at each but the last."""

    def __init__(self, *positions: int | None) -> None:
        self._positions: Iterator[int | None] = iter(positions)
        self.position: int | None = next(self._positions)
        self.attempts = 0

    def attempt(self) -> None:
        self.attempts += 1
        after = next(self._positions, "end")
        if after != "end":
            assert not isinstance(after, str)
            self.position = after
            raise BrokerUnavailable("gone")

    def run(self, most: int, stop: threading.Event | None = None) -> None:
        stop = stop or threading.Event()
        until_done(self.attempt, position=lambda: self.position, most=most, stop=stop, again="again")


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restarting, "_FIRST_PAUSE", 0.0)


def test_failures_in_a_row_are_borne_up_to_the_bound() -> None:
    worker = Worker(5, 5, 5)
    worker.run(most=2)
    assert worker.attempts == 3
    with pytest.raises(RetriesExhausted, match="after 2 failures"):
        Worker(5, 5, 5).run(most=1)


def test_one_that_got_further_begins_to_count_anew() -> None:
    worker = Worker(5, 6, 7, 8)
    worker.run(most=1)
    assert worker.attempts == 4


def test_to_learn_where_it_stands_is_not_to_get_further() -> None:
    with pytest.raises(RetriesExhausted):
        Worker(None, None, 50).run(most=1)


def test_a_stop_ends_the_pause_and_what_cannot_pass_ends_it_at_once() -> None:
    stop = threading.Event()
    stop.set()
    worker = Worker(1, 1, 1)
    worker.run(most=9, stop=stop)
    assert worker.attempts == 1

    def wrong() -> None:
        raise UsageError("wrong")

    with pytest.raises(UsageError):
        until_done(wrong, position=lambda: 1, most=9, stop=threading.Event(), again="again")
