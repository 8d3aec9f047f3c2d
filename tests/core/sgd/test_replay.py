"""Which rows are learned again, and which are kept."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from stream_trainer.learner import Batch
from stream_trainer.learners.sgd import Replay, Sgd
from stream_trainer.learners.sgd.replay import Table, steps
from stream_trainer.learners.tabular.replay import Rows
from tests.core.test_sgd import BINARY, rows


def positions(old: int, new: int) -> Rows:
    total = old + new
    return Rows(inputs=torch.arange(total), codes=torch.zeros(total, 1), weights=torch.ones(total), old=old)


def pieces(given: Rows, size: int, replay: Replay | None, *, again: bool = False) -> list[Tensor]:
    return [given.inputs[piece] for piece in steps(given, size, replay, again=again)]


@given(
    old=st.integers(0, 60),
    new=st.integers(1, 70),
    size=st.integers(1, 33),
    kept=st.integers(1, 80),
    share=st.floats(0.0, 0.9),
    again=st.booleans(),
)
def test_each_new_row_is_learned_once_and_older_ones_come_from_the_newest(
    old: int, new: int, size: int, kept: int, share: float, *, again: bool
) -> None:
    replay = Replay(rows=kept, share=share)
    seen = 0
    for piece in pieces(positions(old, new), size, replay, again=again):
        fresh = min(size, new - seen)
        assert piece[:fresh].tolist() == list(range(old + seen, old + seen + fresh))
        drawn = piece[fresh:]
        assert len(drawn) == (replay.beside(fresh) if old else 0)
        end = old + new if again else old + seen
        assert all(max(0, end - kept) <= at < end for at in drawn.tolist())
        seen += fresh
    assert seen == new


def test_every_kept_row_is_as_likely() -> None:
    torch.manual_seed(1)
    drawn = torch.cat([pieces(positions(10, 1), 1, Replay(rows=10, share=0.99))[0][1:] for _ in range(200)])
    counts = torch.bincount(drawn, minlength=11)
    assert counts[10] == 0
    assert counts[:10].tolist() == pytest.approx([len(drawn) / 10] * 10, rel=0.12)


@pytest.mark.parametrize(("share", "beside"), [(0.0, 0), (0.5, 32), (0.75, 96), (0.2, 8)])
def test_the_share_is_that_of_the_steps_rows(share: float, beside: int) -> None:
    assert Replay(share=share).beside(32) == beside


def test_the_newest_rows_are_kept_with_their_weights() -> None:
    learner = Sgd(replay=Replay(rows=50))
    state, _ = learner.learn(learner.init(BINARY, 0), rows(30, 0))
    counts = torch.linspace(1.0, 2.0, 40, dtype=torch.float64)
    plain = rows(40, 1)
    state, _ = learner.learn(state, Batch(features=plain.features, labels=plain.labels, weights=counts))
    assert state.training["replay.rows"].shape == (50, 4)
    assert state.training["replay.labels"].tolist() == [*rows(30, 0).labels.tolist()[-10:], *plain.labels.tolist()]
    assert state.training["replay.weights"].tolist() == pytest.approx([1.0] * 10 + counts.tolist())


def test_a_kept_row_counts_as_much_as_when_it_was_new() -> None:
    kept = {"rows": torch.zeros(2, 4), "labels": torch.ones(2), "weights": torch.tensor([1.0, 3.0])}
    table = Table.of(kept, torch.zeros(1, 4), rows(1, 0))
    _, _, weights = table.taken(torch.tensor([2, 1, 0]))
    assert weights is not None
    assert weights.tolist() == [1.0, 3.0, 1.0]
    alike = Table.of(kept | {"weights": torch.ones(2)}, torch.zeros(1, 4), rows(1, 0))
    assert alike.weights is None
