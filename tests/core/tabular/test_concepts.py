"""What the default gates make of a jump of the loss: another concept is learned at once, a poisoned block is held back."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Generator, Tensor

from stream_trainer.gates import DEFAULT_GATES, Evidence, History, LossJump, NormJump
from stream_trainer.learner import Batch
from stream_trainer.learners.tabular import Tabular
from stream_trainer.learners.tabular.heads import Classes
from stream_trainer.learners.tabular.renaming import is_new
from tests.core.tabular.streams import blocks, spec_of

HEAD = Classes(2, binary=True)
SETTLED = 25


class Gated:
    """A lineage's learner, state and history, as `learning.learn` keeps them."""

    def __init__(self, width: int) -> None:
        self.learner, self.history = Tabular(), History.fresh()
        self.state = self.learner.init(spec_of(width), 3)

    def learn(self, batch: Batch) -> list[str]:
        """The gates that failed; the batch is learned if there is none."""
        after, report = self.learner.learn(self.state, batch)
        evidence = Evidence(
            before=self.state,
            after=after,
            report=report,
            seen=batch.rows,
            rejected=0,
            loss=report.loss,
            history=self.history,
        )
        verdicts = [gate.judge(evidence) for gate in DEFAULT_GATES]
        failed = [verdict.gate for verdict in verdicts if not verdict.passed]
        if failed:
            self.history = self.history.fail(verdicts)
        else:
            self.state, self.history = after, self.history.add(report, report.loss)
        return failed


def stream(rows: int, seed: int, column: int = 0) -> Batch:
    """The label is the sign of a column, one in 50 is wrong."""
    generator = Generator().manual_seed(seed)
    features = torch.randn(rows, 4, generator=generator, dtype=torch.float64)
    wrong = torch.rand(rows, generator=generator) < 0.02
    return Batch(features=features, labels=((features[:, column] > 0) ^ wrong).double())


@pytest.fixture(scope="module")
def settled() -> Gated:
    gated = Gated(4)
    for batch in blocks(stream(SETTLED * 256, 0), 256):
        assert gated.learn(batch) == []
    return gated


def copy_of(gated: Gated) -> Gated:
    other = Gated(4)
    other.state, other.history = gated.state, gated.history
    return other


@pytest.mark.parametrize("size", [128, 256, 1_024])
@pytest.mark.parametrize("late", [0.0, 0.4])
def test_an_abrupt_change_of_concept_is_learned_and_nothing_is_quarantined(
    settled: Gated, size: int, late: float
) -> None:
    old, new = stream(4 * size, 5), stream(4 * size, 5, column=1)
    changed = torch.arange(4 * size) >= int(late * size)
    gated = copy_of(settled)
    for batch in blocks(Batch(features=new.features, labels=old.labels.where(~changed, new.labels)), size):
        assert gated.learn(batch) == []
    probe = stream(500, 6, column=1)
    right = (gated.learner.predict(gated.state, probe.features) > 0.5) == probe.labels.bool()
    assert float(right.double().mean()) > 0.9


POISONS: dict[str, Callable[[Batch], Batch]] = {
    "turned": lambda batch: replace(batch, labels=1.0 - batch.labels),
    "drawn by lot": lambda batch: replace(batch, labels=batch.labels[torch.randperm(batch.rows)]),
    "most turned": lambda batch: replace(
        batch, labels=(batch.labels.bool() ^ (torch.arange(batch.rows) % 5 > 0)).double()
    ),
    "one class": lambda batch: replace(batch, labels=torch.ones(batch.rows, dtype=torch.float64)),
    "absurd numbers": lambda batch: replace(batch, features=batch.features.roll(1, 0) * 1e15),
}


@pytest.mark.parametrize("poison", POISONS)
@pytest.mark.parametrize("size", [128, 256, 1_024])
def test_a_poisoned_block_is_held_back_and_the_next_one_is_learned(settled: Gated, poison: str, size: int) -> None:
    torch.manual_seed(0)
    gated = copy_of(settled)
    assert gated.learn(POISONS[poison](stream(size, 7))) == ["loss_jump"]
    assert gated.state is settled.state
    assert gated.learn(stream(size, 8)) == []


def test_labels_that_stay_turned_are_learned_after_three_blocks(settled: Gated) -> None:
    gated = copy_of(settled)
    turned = [POISONS["turned"](stream(256, seed)) for seed in range(10, 15)]
    assert [gated.learn(batch) for batch in turned] == [["loss_jump"]] * 3 + [[]] * 2


def test_a_learner_need_not_be_believed(settled: Gated) -> None:
    batch = stream(256, 9, column=1)
    after, report = settled.learner.learn(settled.state, batch)
    assert report.new_concept
    evidence = Evidence(
        before=settled.state,
        after=after,
        report=report,
        seen=256,
        rejected=0,
        loss=report.loss,
        history=settled.history,
    )
    assert LossJump().judge(evidence).passed
    assert not LossJump(believing=False).judge(evidence).passed
    assert len(settled.history.add(report, report.loss).passed) == 1
    answered = settled.history.add(replace(report, new_concept=False), 0.7)
    assert answered.usual(0, 20) == 0.7
    assert len(answered.passed) == len(settled.history.passed) + 1
    steep = replace(evidence, report=replace(report, gradient_norm=1e9))
    assert NormJump().judge(steep).passed
    assert not NormJump(believing=False).judge(steep).passed


def forecasts(classes: Tensor) -> Tensor:
    return HEAD.forecast(torch.eye(2)[classes] * 4.0)


def test_another_concept_is_one_that_no_names_explain() -> None:
    labels = torch.arange(90) % 2
    codes, known = torch.eye(2)[labels], HEAD.losses(forecasts(labels[60:]), torch.eye(2)[labels[60:]])
    other = torch.arange(90) // 2 % 2
    assert is_new(forecasts(other), codes, torch.ones(90), known, losses=HEAD.losses)
    assert not is_new(forecasts(1 - labels), codes, torch.ones(90), known, losses=HEAD.losses)
    assert not is_new(forecasts(labels), codes, torch.ones(90), known, losses=HEAD.losses)
