"""The end of the thread that shadows: what it has in hand is logged, what waits is counted, and it holds up nobody."""

import threading
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from serving.model import Served
from serving.rows import Rows
from serving.shadow import Shadow, Shadowed
from tests.serving.fixtures import PIPELINE, ROWS, Harness, commit_version, learned_state, requested


class Held:
    """A challenger that predicts once it is let."""

    def __init__(self, harness: Harness) -> None:
        commit_version(harness.store, PIPELINE, learned_state())
        harness.follower.look()
        assert harness.follower.served is not None
        self.served = harness.follower.served
        self.harness = harness
        self.begun, self.let = threading.Event(), threading.Event()
        self.shadow = Shadow(self._predict, harness.log, harness.metrics, max_rows=100)

    def _predict(self, _: Served, rows: Rows) -> Tensor:
        self.begun.set()
        self.let.wait()
        return torch.zeros(len(rows))

    def offer(self, count: int) -> None:
        rows = requested(PIPELINE, ROWS[:count])
        ids = [str(i) for i in range(count)]
        self.shadow.offer(Shadowed(served=self.served, ids=ids, rows=rows, requested_at=self.harness.clock()))

    def dropped(self) -> float:
        return self.harness.metric("shadow_dropped_total")


@pytest.fixture
def held(harness: Harness) -> Iterator[Held]:
    held = Held(harness)
    yield held
    held.let.set()
    assert held.shadow._thread is not None
    held.shadow._thread.join(20)
    assert not held.shadow._thread.is_alive()


def test_what_is_at_hand_is_logged_and_what_waits_is_counted(held: Held) -> None:
    held.offer(1)
    assert held.begun.wait(20)
    held.offer(2)
    held.offer(3)
    closing = threading.Thread(target=held.shadow.close, args=(20.0,))
    closing.start()
    assert held.shadow._closed.wait(20)
    held.let.set()
    closing.join(20)
    assert [len(answered.ids) for answered in held.harness.log.answered] == [1]
    assert held.dropped() == 5


def test_one_that_hangs_is_not_waited_for_and_its_rows_are_counted(held: Held) -> None:
    held.offer(1)
    assert held.begun.wait(20)
    held.offer(2)
    held.shadow.close(0.0)
    assert held.dropped() == 3


def test_an_idle_one_ends_and_what_is_offered_afterwards_is_counted(held: Held) -> None:
    held.let.set()
    held.offer(1)
    assert held.begun.wait(20)
    held.shadow.close(20.0)
    assert held.shadow._thread is not None
    assert not held.shadow._thread.is_alive()
    assert held.dropped() == 0
    held.offer(2)
    assert held.dropped() == 2


def test_one_that_never_began_ends(harness: Harness) -> None:
    Shadow(lambda *_: torch.zeros(0), harness.log, harness.metrics, max_rows=1).close()
    assert harness.metric("shadow_dropped_total") == 0
