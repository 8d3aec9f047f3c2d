"""A large block is learned in pieces, is told of as one, and makes forecasts of rows far ahead less sure where it must."""

from dataclasses import replace

import torch
from hypothesis import given
from hypothesis import strategies as st

from stream_trainer.learner import answer
from stream_trainer.learners.tabular import Passes, Sureness, Tabular
from stream_trainer.learners.tabular.replay import Rows
from tests.core.tabular.streams import blocks, prequential, rows_of, same, spec_of


@given(st.integers(1, 300), st.integers(1, 3_000))
def test_pieces_tile_a_block_and_none_is_small_beside_others(block: int, rows: int) -> None:
    pieces = list(Passes(block=block).pieces(rows))
    assert [row for piece in pieces for row in range(rows)[piece]] == list(range(rows))
    assert len(pieces) == 1 or all(piece.stop - piece.start >= block for piece in pieces)
    assert all(piece.stop - piece.start < 2 * block for piece in pieces)


@given(st.integers(0, 9), st.integers(1, 9), st.data())
def test_rows_without_some_keep_the_order_and_know_what_is_old(old: int, new: int, data: st.DataObject) -> None:
    total = old + new
    start = data.draw(st.integers(0, total))
    stop = data.draw(st.integers(start, total))
    numbers = torch.arange(total, dtype=torch.float32)
    rows = Rows(inputs=numbers[:, None], codes=numbers[:, None], weights=numbers, old=old)
    left = [i for i in range(total) if not start <= total - 1 - i < stop]
    found = rows.without(start, stop)
    assert found.weights.tolist() == found.inputs[:, 0].tolist() == found.codes[:, 0].tolist() == left
    assert found.old == sum(i < old for i in left)


def test_a_large_block_teaches_the_nets_what_its_pieces_do() -> None:
    spec, learner = spec_of(), Tabular()
    batch = rows_of(spec, 1_024)
    whole, report = learner.learn(learner.init(spec, 1), batch)
    assert (report.rows, report.finite) == (1_024, True)
    assert report.steps == sum(16 * Passes().over(seen) for seen in (256, 512, 768, 1_024))
    # The first piece knows no label either way; without the label memory all of them are alike.
    blind = Tabular(memory=None)
    whole, _ = blind.learn(blind.init(spec, 1), batch)
    parts, _, _ = prequential(blind, blind.init(spec, 1), blocks(batch, 256))
    unlike = {"memory.block"}
    assert all(torch.equal(tensor, parts.serving[name]) for name, tensor in whole.serving.items() if name not in unlike)
    assert float(whole.serving["memory.block"]) == 1_024.0


def test_weights_of_a_large_block_go_to_its_pieces() -> None:
    spec, learner = spec_of(), Tabular()
    batch, more = rows_of(spec, 600), rows_of(spec, 100, seed=2)
    ones = replace(batch, weights=torch.ones(600, dtype=torch.float64))
    assert same(learner.learn(learner.init(spec, 1), batch)[0], learner.learn(learner.init(spec, 1), ones)[0])
    joined = replace(
        batch,
        features=torch.cat([batch.features, more.features]),
        labels=torch.cat([batch.labels, more.labels]),
        weights=torch.cat([torch.ones(600), torch.zeros(100)]).double(),
    )
    assert same(learner.learn(learner.init(spec, 1), joined)[0], learner.learn(learner.init(spec, 1), batch)[0])


def test_small_blocks_know_nothing_of_sureness() -> None:
    spec, learner = spec_of(), Tabular()
    state, _, _ = prequential(learner, learner.init(spec, 1), blocks(rows_of(spec, 1_024), 256))
    assert not any(name.startswith("sureness") for name in (*state.serving, *state.training))


def test_the_far_rows_of_a_block_that_is_one_piece_teach_sureness_too() -> None:
    spec, learner = spec_of(), Tabular()
    batch = rows_of(spec, 900)
    state, _, _ = prequential(learner, learner.init(spec, 1), blocks(batch, 300))
    assert float(state.serving["sureness.power"]) == 1.0
    assert state.training["sureness.losses"].shape == (len(Sureness().powers),)


def test_what_a_fresh_learner_says_of_far_rows_is_cautious() -> None:
    spec, cautious, bold = spec_of(), Tabular(), Tabular(sureness=Sureness(first=1.0))
    state, _ = cautious.learn(cautious.init(spec, 1), rows_of(spec, 1_024))
    features = rows_of(spec, 512, seed=4).features
    found, sure = cautious.predict(state, features), bold.predict(state, features)
    assert torch.equal(found[:256], sure[:256])
    assert bool(((found[256:] - 0.5).abs() < (sure[256:] - 0.5).abs()).all())
    assert torch.equal(found[256:] > 0.5, sure[256:] > 0.5)


def test_numbers_have_no_sureness() -> None:
    spec = spec_of(task="regression")
    state, _, _ = prequential(Tabular(), Tabular().init(spec, 1), blocks(rows_of(spec, 2_048), 1_024))
    features = rows_of(spec, 512, seed=4).features
    bold = Tabular(sureness=Sureness(first=0.1))
    assert torch.equal(Tabular().predict(state, features), bold.predict(state, features))
    assert not any(name.startswith("sureness") for name in (*state.serving, *state.training))


def test_after_blocks_that_turned_the_far_rows_are_less_sure_and_the_near_ones_are_not() -> None:
    spec, learner = spec_of(), Tabular(drift=None)
    batch = rows_of(spec, 3_072)
    turned = batch.labels.bool() ^ (torch.arange(3_072) % 1_024 > 512)
    state, _, _ = prequential(learner, learner.init(spec, 1), blocks(replace(batch, labels=turned.double()), 1_024))
    power = float(state.serving["sureness.power"])
    assert power < 1.0
    bare = replace(state, serving={**state.serving, "sureness.power": torch.tensor(1.0)})
    features = rows_of(spec, 512, seed=4).features
    sure, found = learner.predict(bare, features), learner.predict(state, features)
    assert torch.equal(sure[:256], found[:256])
    assert bool(((found[256:] - 0.5).abs() < (sure[256:] - 0.5).abs()).all())
    answers = answer(learner, state, features)
    assert bool(((answers - 0.5).abs() < (answer(learner, bare, features) - 0.5).abs()).all())
    steady, _, _ = prequential(learner, learner.init(spec, 1), blocks(batch, 1_024))
    assert float(steady.serving["sureness.power"]) == 1.0


def test_far_losses_fade() -> None:
    sureness = Sureness(powers=(1.0, 0.5), age=2, half_life=4.0)
    right, wrong = torch.tensor([[-0.1, -2.35]]).expand(4, 2), torch.tensor([[-2.35, -0.1]]).expand(4, 2)
    codes, counts = torch.eye(2)[torch.zeros(4, dtype=torch.long)], torch.ones(4)
    first = sureness.learned(None, wrong, codes, counts)
    assert float(first["power"]) == 0.5
    known = first["losses"]
    for _ in range(8):
        known = sureness.learned(known, right, codes, counts)["losses"]
    assert float(sureness.learned(known, right, codes, counts)["power"]) == 1.0
