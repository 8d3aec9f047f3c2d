"""The small parts: label memory, neighbours, linear experts, replay, drift, passes, heads."""

import math

import pytest
import torch
from torch import Generator, Tensor
from torch.nn import functional

from stream_trainer.learners.tabular.drift import Drift
from stream_trainer.learners.tabular.heads import Classes, Number
from stream_trainer.learners.tabular.linear import Linear
from stream_trainer.learners.tabular.memory import LabelMemory
from stream_trainer.learners.tabular.naming import joined, split
from stream_trainer.learners.tabular.neighbours import Neighbours
from stream_trainer.learners.tabular.passes import Passes
from stream_trainer.learners.tabular.replay import Replay, Rows

BINARY = Classes(2, binary=True)


def test_the_last_label_fades_by_half_each_so_many_rows() -> None:
    memory = LabelMemory(fades=(4.0,), half_lives=(), gain=2.0)
    known = memory.after(memory.fresh(2), torch.tensor([[-0.5, 0.5]]), torch.ones(1))
    found = memory.features(known, torch.tensor([4.0, 8.0]))
    assert torch.allclose(found, torch.tensor([[-0.5, 0.5], [-0.25, 0.25]]))


def test_running_means_are_the_same_however_the_rows_are_cut() -> None:
    memory = LabelMemory()
    codes = torch.randn(100, 3, generator=Generator().manual_seed(1))
    whole = memory.after(memory.fresh(3), codes, torch.ones(len(codes)))
    parts = memory.fresh(3)
    for piece in (codes[:1], codes[1:40], codes[40:]):
        parts = memory.after(parts, piece, torch.ones(len(piece)))
    assert torch.allclose(whole["means"], parts["means"], atol=1e-6)
    assert torch.equal(whole["last"], parts["last"])


def test_the_usual_age_is_the_middle_of_the_usual_block() -> None:
    memory = LabelMemory()
    known = memory.fresh(2)
    assert memory.usual(known, 2).tolist() == [1.0, 1.0]
    for _ in range(200):
        known = memory.after(known, torch.zeros(101, 2), torch.ones(101))
    assert memory.usual(known, 3).tolist() == [51.0, 51.0, 51.0]
    for _ in range(200):
        known = memory.after(known, torch.zeros(1, 2), torch.ones(1))
    assert float(memory.usual(known, 1)) == pytest.approx(1.0, abs=1e-3)


def test_neighbours_are_the_nearest_by_euclid() -> None:
    rows = torch.randn(200, 3, generator=Generator().manual_seed(1))
    codes = torch.randn(200, 1, generator=Generator().manual_seed(2))
    wanted = torch.randn(9, 3, generator=Generator().manual_seed(3))
    found = Neighbours(prior=0.0).forecast(rows, codes, torch.ones(len(codes)), wanted, classes=False)
    distances, which = torch.cdist(wanted, rows).topk(10, 1, largest=False)
    weights = torch.exp(-distances / distances.mean(1, keepdim=True))
    expected = (weights[:, :, None] * codes[which]).sum(1) / weights.sum(1, keepdim=True)
    assert torch.allclose(found, expected, atol=1e-4)


def test_neighbours_vote_and_leave_a_chance_to_others() -> None:
    rows = torch.cat([torch.zeros(20, 2), torch.ones(20, 2) * 3])
    codes = functional.one_hot(torch.arange(40) // 20, 3).float()
    found = (
        Neighbours()
        .forecast(rows, codes, torch.ones(len(codes)), torch.tensor([[0.1, 0.0], [3.0, 2.9]]), classes=True)
        .exp()
    )
    assert found.argmax(1).tolist() == [0, 1]
    assert torch.allclose(found.sum(1), torch.ones(2))
    assert float(found.min()) > 0.02


def test_without_rows_neighbours_know_nothing() -> None:
    nobody = torch.zeros(0, 2)
    found = Neighbours().forecast(nobody, torch.zeros(0, 4), torch.zeros(0), torch.zeros(3, 2), classes=True)
    assert torch.allclose(found.exp(), torch.full((3, 4), 0.25))
    assert not Neighbours().forecast(nobody, torch.zeros(0, 1), torch.zeros(0), torch.zeros(3, 2), classes=False).any()


def test_only_the_newest_rows_are_asked() -> None:
    rows, codes = torch.zeros(30, 1), torch.cat([torch.ones(20, 1), -torch.ones(10, 1)])
    found = Neighbours(rows=10, prior=0.0).forecast(
        rows, codes, torch.ones(len(codes)), torch.zeros(1, 1), classes=False
    )
    assert float(found) == pytest.approx(-1.0)


def test_linear_steps_are_gradient_descent_on_the_sum() -> None:
    linear = Linear(rates=(0.01, 0.05))
    rows = torch.randn(16, 3, generator=Generator().manual_seed(1))
    codes = functional.one_hot(torch.arange(16) % 2, 2).float()
    found = linear.learned(linear.fresh(3, 2)["weights"], rows, codes, torch.ones(len(rows)), BINARY, 16)
    for index, rate in enumerate(linear.rates):
        weights = torch.zeros(3, 2, requires_grad=True)
        functional.cross_entropy(rows @ weights, codes, reduction="sum").backward()  # type: ignore[no-untyped-call]
        assert weights.grad is not None
        assert torch.allclose(found[:, index], -rate * weights.grad, atol=1e-6)
    assert torch.allclose(linear.outputs(found, rows)[1], rows @ found[:, 1], atol=1e-6)


@pytest.mark.parametrize("head", [BINARY, Number(100)])
def test_linear_steps_do_not_overshoot_on_long_rows(head: Classes | Number) -> None:
    linear = Linear()
    weights = linear.fresh(400, head.size)["weights"]
    rows = torch.randn(64, 400, generator=Generator().manual_seed(1)) * 2
    codes = torch.eye(head.size)[torch.arange(64) % head.size]
    for _ in range(50):
        weights = linear.learned(weights, rows, codes, torch.ones(len(rows)), head, 16)
    losses = head.losses(head.forecast(linear.outputs(weights, rows)), codes).mean(1)
    assert bool((losses < 0.3).all())


def numbered(old: int, new: int) -> Rows:
    """Rows that hold their own number."""
    values = torch.arange(old + new, dtype=torch.float32)[:, None]
    return Rows(inputs=values.expand(-1, 3).contiguous(), codes=values.clone(), weights=torch.ones(old + new), old=old)


def test_a_pass_takes_every_new_row_once_and_in_order() -> None:
    steps = list(numbered(0, 37).steps(Replay(), 16, Generator(), again=False))
    assert [len(rows) for rows, _, _ in steps] == [16, 16, 5]
    assert torch.cat([codes for _, codes, _ in steps])[:, 0].tolist() == list(range(37))


def test_rows_are_replayed_from_before_the_step() -> None:
    generator = Generator().manual_seed(1)
    steps = list(numbered(50, 37).steps(Replay(kept=20, drawn=8), 16, generator, again=False))
    for index, (rows, codes, _) in enumerate(steps):
        start = 50 + 16 * index
        drawn = codes[-8:, 0]
        assert float(drawn.max()) < start
        assert float(drawn.min()) >= start - 20
        assert torch.equal(rows[:, 0], codes[:, 0])
    again = list(numbered(50, 37).steps(Replay(kept=20, drawn=200), 16, generator, again=True))
    assert {float(x) for _, codes, _ in again for x in codes[-200:, 0]} == set(range(67, 87))


def test_the_newest_rows_are_kept_apart() -> None:
    kept = numbered(5, 4).kept(Replay(kept=6), memory=1)
    assert kept["codes"][:, 0].tolist() == [3, 4, 5, 6, 7, 8]
    assert kept["memory"].shape == (6, 1)
    assert kept["rows"].shape == (6, 1)


def test_what_came_before_a_drift_is_dropped() -> None:
    rows = numbered(50, 20)
    assert rows.since(start=5, keep=0).codes[:, 0].tolist() == list(range(55, 70))
    assert rows.since(start=5, keep=0).old == 0
    assert rows.since(start=0, keep=3).codes[:, 0].tolist() == list(range(47, 70))
    assert rows.since(start=0, keep=3).old == 3
    assert rows.since(start=0, keep=99).old == 50


def misses(wrong: list[int], rows: int) -> Tensor:
    found = torch.zeros(rows)
    found[wrong] = 1.0
    return found


def test_a_drift_is_noticed_and_dated() -> None:
    drift = Drift()
    known = drift.fresh()
    for n in range(30):
        judged = drift.judged(known, misses(list(range(n % 3, 100, 10)), 100), torch.ones(100), 1.0, 100 * n)
        assert not judged.noticed
        known = judged.after
    turned = drift.judged(known, misses(list(range(40, 200)), 200), torch.ones(200), 1.0, 3_000)
    assert turned.noticed
    assert 35 <= turned.start <= 45
    assert turned.after["rates"][1] > known["rates"][1]


def test_noise_is_no_drift_nor_is_the_beginning() -> None:
    drift = Drift()
    known = drift.fresh()
    generator = Generator().manual_seed(1)
    for n in range(300):
        noise = (torch.rand(64, generator=generator) < 0.2).float()
        judged = drift.judged(known, noise, torch.ones(64), 1.0, 64 * n)
        assert not judged.noticed
        known = judged.after
    early = drift.judged(
        {"rates": torch.tensor([0.1, 0.1, 1.0, 999.0, 0.0, 0.0])}, torch.ones(200), torch.ones(200), 1.0, 500
    )
    assert not early.noticed


def test_passes_are_more_while_young() -> None:
    passes = Passes()
    assert passes.over(1) == passes.count + passes.most
    assert passes.over(700) == passes.count + 2
    assert passes.over(10_000) == passes.count


def test_forecasts_of_classes_are_floored() -> None:
    found = BINARY.forecast(torch.tensor([[50.0, -50.0]]))
    assert found.tolist()[0] == pytest.approx([0.0, -8.0])
    assert BINARY.losses(found, torch.tensor([[0.0, 1.0]])).tolist() == [8.0]


def test_numbers_go_and_come_back() -> None:
    head = Number(1_000)
    labels = torch.randn(500, generator=Generator().manual_seed(1), dtype=torch.float64) * 30 + 1_000
    known = head.update(head.fresh(), labels)
    codes = head.code(known, labels)
    assert abs(float(codes.mean())) < 1e-5
    assert float(codes.std()) == pytest.approx(1.0, abs=0.01)
    assert torch.allclose(head.outputs(known, codes), labels.float(), rtol=1e-5)


def test_heavy_labels_leave_the_scale_alone() -> None:
    head = Number(5_000)
    labels = torch.randn(4_000, generator=Generator().manual_seed(1), dtype=torch.float64)
    labels[::100] = 1e12
    known = head.fresh()
    for start in range(0, 4_000, 200):
        known = head.update(known, labels[start : start + 200])
    assert 0.5 < math.sqrt(float(known["m2"] / known["count"])) < 2.0


def test_names_are_joined_and_split() -> None:
    parts = {"net": {"first.weight": torch.ones(2)}, "mixer": {"bias": torch.zeros(1)}}
    flat = joined(parts)
    assert list(flat) == ["net.first.weight", "mixer.bias"]
    assert split(flat) == parts
