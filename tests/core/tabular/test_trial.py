"""A response to drift is made when it helps, and costs nothing when it would not."""

import torch
from torch import Generator, Tensor

from stream_trainer.learner import Batch
from stream_trainer.learners.tabular import Drift, Tabular, Trial
from stream_trainer.learners.tabular.heads import Classes
from stream_trainer.learners.tabular.replay import Rows
from tests.core.tabular.streams import blocks, prequential, same, spec_of

HEAD = Classes(2, binary=True)


def labelled(ones: Tensor) -> Rows:
    codes = torch.eye(2)[ones.long()]
    return Rows(inputs=torch.zeros(len(ones), 1), codes=codes, weights=torch.ones(len(ones)), old=0)


def won(trial: Trial, rows: Rows, responding: list[float], usual: list[float]) -> bool:
    """Forecasts of 1 by turns, the same for both ways."""

    def always(chances: list[float]) -> Tensor:
        return torch.tensor([[1.0 - chance, chance] for chance in chances]).log()

    def way(chances: list[float]) -> "object":
        def after(_part: Rows, inputs: Tensor) -> Tensor:
            times = -(-len(inputs) // len(chances))
            return always(chances).repeat(times, 1)[: len(inputs)][None]

        return after

    return trial.won(rows, rows, responding=way(responding), usual=way(usual), losses=HEAD.losses)  # type: ignore[arg-type]


ALTERNATING = labelled(torch.arange(104) % 2)


def test_a_response_that_tells_rows_apart_wins() -> None:
    # The judges are twice 34 rows: the first of them are 36 and 70, of class 0.
    assert won(Trial(), ALTERNATING, [0.1, 0.9], [0.5])
    assert won(Trial(), ALTERNATING, [0.1, 0.9], [0.9, 0.1])
    assert not won(Trial(), ALTERNATING, [0.5], [0.1, 0.9])


def test_being_less_sure_is_no_reason_to_forget() -> None:
    noisy = labelled((torch.arange(104) % 2).where(torch.arange(104) % 3 > 0, torch.tensor(1)))
    assert not won(Trial(), noisy, [0.4, 0.6], [0.001, 0.999])


def test_a_shift_of_all_rows_is_no_reason_to_forget() -> None:
    assert not won(Trial(), labelled(torch.arange(100) % 10 > 0), [0.9], [0.1])


def test_few_rows_decide_nothing() -> None:
    assert not won(Trial(), labelled(torch.arange(40) % 2), [0.9, 0.1], [0.1, 0.9])


def stream(flips: Tensor) -> Batch:
    """The label is the sign of the first column, turned where `flips` says so."""
    features = torch.randn(len(flips), 4, generator=Generator().manual_seed(1), dtype=torch.float64)
    return Batch(features=features, labels=((features[:, 0] > 0) ^ flips).double())


def test_a_real_drift_is_answered_as_without_a_trial() -> None:
    batches = blocks(stream(torch.arange(2_800) >= 2_100), 200)
    spec = spec_of()
    errors = []
    for drift in (Drift(), Drift(trial=None), None):
        learner = Tabular(drift=drift)
        _, found, _ = prequential(learner, learner.init(spec, 1), batches)
        truth = torch.cat([batch.labels for batch in batches])
        errors.append(float(((found > 0.5) != truth.bool()).double()[2_200:].mean()))
    assert errors[0] == errors[1] < errors[2] - 0.1


def test_a_burst_of_noise_is_learned_as_if_no_drift_was_looked_for() -> None:
    noise = torch.rand(2_800, generator=Generator().manual_seed(2)) < 0.35
    batches = blocks(stream(noise & (torch.arange(2_800) >= 2_000)), 200)
    spec = spec_of()
    alarmed = Drift(trial=None)
    states = []
    for drift in (Drift(), None, alarmed):
        learner = Tabular(drift=drift)
        states.append(prequential(learner, learner.init(spec, 1), batches)[0])
    watched, careless, jumpy = states
    without = {name: tensor for name, tensor in watched.training.items() if not name.startswith("drift.")}
    assert all(torch.equal(tensor, careless.serving[name]) for name, tensor in watched.serving.items())
    assert all(torch.equal(tensor, careless.training[name]) for name, tensor in without.items())
    assert not same(watched, jumpy)
    assert len(jumpy.serving["recent.rows"]) < len(watched.serving["recent.rows"])
