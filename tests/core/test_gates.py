from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stream_trainer.features import FeatureSpec
from stream_trainer.gates import Evidence, Finite, History, LossJump, NormJump, RejectedRate, worst
from stream_trainer.learner import LearnReport, State
from stream_trainer.store.manifest import Verdict

SPEC = FeatureSpec(columns=("a",), scaled=(True,), task="binary", outputs=1)
NUMBERS = replace(SPEC, task="regression")
FINE = LearnReport(rows=100, steps=1, loss=0.5, gradient_norm=1.0, update_norm=0.1, finite=True)


JUMPED = (Verdict(gate="loss_jump", passed=False, detail=""),)
FLOODED = (Verdict(gate="rejected_rate", passed=False, detail=""), Verdict(gate="loss_jump", passed=True, detail=""))


def state(spec: FeatureSpec = SPEC, **tensors: torch.Tensor) -> State:
    return State(spec=spec, serving=tensors, training={})


def settled(n: int = 30, loss: float = 0.5) -> History:
    history = History.fresh()
    for _ in range(n):
        history = history.add(FINE, loss)
    return history


def evidence(**changes: object) -> Evidence:
    calm = Evidence(before=state(), after=state(), report=FINE, seen=100, rejected=0, loss=0.5, history=settled())
    return replace(calm, **changes)  # type: ignore[arg-type]


def test_finite_tensors_pass() -> None:
    after = state(w=torch.ones(3), n=torch.tensor([2**40]))
    assert Finite().judge(evidence(after=after)).passed


def test_infinity_in_a_training_tensor_fails_by_name() -> None:
    after = State(spec=SPEC, serving={}, training={"optimizer.0.m": torch.tensor([1.0, float("inf")])})
    verdict = Finite().judge(evidence(after=after))
    assert (verdict.gate, verdict.passed) == ("finite", False)
    assert "optimizer.0.m" in verdict.detail


def test_what_was_there_before_is_not_judged() -> None:
    before = state(w=torch.tensor([float("nan")]))
    assert Finite().judge(evidence(before=before, after=state(w=torch.ones(1)))).passed


@pytest.mark.parametrize("field", ["gradient_norm", "update_norm"])
def test_a_norm_that_jumps_fails_and_says_by_how_much(field: str) -> None:
    usual = getattr(FINE, field)
    assert NormJump().judge(evidence(report=replace(FINE, **{field: 19 * usual}))).passed
    verdict = NormJump().judge(evidence(report=replace(FINE, **{field: 21 * usual})))
    assert not verdict.passed
    assert "over 20 times the usual" in verdict.detail


def test_the_weights_way_is_judged_a_step_so_that_a_large_batch_is_no_jump() -> None:
    large = replace(FINE, steps=500, update_norm=500 * FINE.update_norm)
    assert NormJump().judge(evidence(report=large)).passed


def test_a_loss_that_jumps_fails_and_squared_errors_may_jump_further() -> None:
    assert LossJump().judge(evidence(loss=1.4)).passed
    verdict = LossJump().judge(evidence(loss=1.6))
    assert (verdict.passed, verdict.detail) == (False, "loss 1.6 is over 3 times the usual 0.5")
    numbers = state(NUMBERS)
    assert LossJump().judge(evidence(before=numbers, loss=1.6)).passed
    assert not LossJump().judge(evidence(before=numbers, loss=5.1)).passed


def test_few_rows_or_a_short_past_say_nothing() -> None:
    few = replace(FINE, rows=99)
    assert LossJump().judge(evidence(loss=9.0, report=few)).passed
    assert LossJump().judge(evidence(loss=9.0, history=settled(19))).passed
    assert NormJump().judge(evidence(report=replace(FINE, gradient_norm=1e9), history=settled(19))).passed
    assert RejectedRate().judge(evidence(seen=99, rejected=99)).passed


def test_a_world_that_stays_changed_is_let_through_and_becomes_what_is_usual() -> None:
    history = settled()
    verdicts = []
    for _ in range(6):
        found = evidence(loss=5.0, report=replace(FINE, gradient_norm=100.0), history=history)
        passed = LossJump().judge(found).passed and NormJump().judge(found).passed
        verdicts.append(passed)
        history = history.add(found.report, found.loss) if passed else history.fail(JUMPED)
    assert verdicts == [False, False, False, True, True, True]
    assert len(history.passed) == 3


def test_most_records_must_be_usable() -> None:
    assert RejectedRate().judge(evidence(seen=200, rejected=100)).passed
    verdict = RejectedRate().judge(evidence(seen=200, rejected=101))
    assert not verdict.passed
    assert "101 of 200 rows were rejected" in verdict.detail


def test_a_learner_without_norms_is_not_judged_by_them() -> None:
    none = replace(FINE, gradient_norm=0.0, update_norm=0.0, steps=0)
    history = History.fresh()
    for _ in range(30):
        history = history.add(none, 0.5)
    assert NormJump().judge(evidence(history=history)).passed


@given(st.lists(st.floats(0, 1e6) | st.none(), max_size=150))
def test_the_history_is_bounded_and_survives_being_stored(losses: list[float | None]) -> None:
    history = History.fresh()
    for loss in losses:
        history = history.fail(JUMPED) if loss is None else history.add(FINE, loss)
    again = History.from_tensors(history.tensors())
    assert torch.equal(again.passed, history.passed)
    assert again.failed_in_a_row == history.failed_in_a_row
    assert len(history.passed) <= 100
    kept: list[float] = []
    for loss in reversed(losses):
        if loss is None and kept:
            break
        if loss is not None:
            kept.append(loss)
    assert history.passed[:, 0].tolist() == kept[:100][::-1]


def test_over_several_micro_batches_a_failure_is_what_is_kept() -> None:
    good, bad = (Verdict(gate="g", passed=p, detail=d) for p, d in ((True, ""), (False, "x")))
    other = Verdict(gate="h", passed=True, detail="")
    assert worst((good,), (bad, other)) == (bad, other)
    assert worst((bad,), (good,)) == (bad,)
    assert worst((), (good,)) == (good,)


def test_a_flood_of_unusable_records_is_no_sign_of_a_changed_world() -> None:
    history = settled()
    for _ in range(5):
        history = history.fail(FLOODED)
    assert not LossJump().judge(evidence(loss=5.0, history=history)).passed
    assert not NormJump().judge(evidence(report=replace(FINE, gradient_norm=100.0), history=history)).passed
