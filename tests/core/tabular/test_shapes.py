"""What `Tabular` does with streams of an awkward shape: defined, and better than knowing nothing."""

import math

import pytest
import torch
from torch import Generator, Tensor

from stream_trainer.features import FeatureSpec
from stream_trainer.learner import Batch
from stream_trainer.learners.tabular import Tabular
from tests.core.tabular.streams import blocks, prequential, spec_of


def noise(rows: int, width: int, seed: int = 1) -> Tensor:
    return torch.randn(rows, width, generator=Generator().manual_seed(seed), dtype=torch.float64)


def outputs(spec: FeatureSpec, features: Tensor, labels: Tensor, size: int = 200) -> Tensor:
    learner = Tabular()
    return prequential(learner, learner.init(spec, 1), blocks(Batch(features=features, labels=labels), size))[1]


def test_one_positive_in_200_is_ranked_and_priced_better_than_by_the_majority() -> None:
    features = noise(6_000, 6)
    score = features[:, 0] + features[:, 1]
    labels = (score > score.quantile(1.0 - 1.0 / 200.0)).double()
    found = outputs(spec_of(6), features, labels)[2_000:].double()
    truth = labels[2_000:]
    rate = float(labels.mean())
    majority = -(rate * math.log(rate) + (1.0 - rate) * math.log(1.0 - rate))
    assert float(torch.nn.functional.binary_cross_entropy(found, truth)) < 0.8 * majority
    positive, negative = found[truth > 0], found[truth == 0]
    assert float((positive[:, None] > negative).double().mean()) > 0.95


def test_a_category_that_appears_late_is_learned_and_costs_the_others_nothing() -> None:
    columns = ("word=a", "word=b", "word=*", "x")
    spec = FeatureSpec(columns=columns, scaled=(False, False, False, True), task="binary", outputs=1)
    words = torch.randint(2, (3_000,), generator=Generator().manual_seed(2))
    words = torch.where((torch.arange(3_000) >= 1_500) & (torch.arange(3_000) % 3 == 0), 2, words)
    features = torch.cat([torch.eye(3, dtype=torch.float64)[words], noise(3_000, 1)], 1)
    # In a word of its own the sign is turned.
    labels = ((features[:, 3] > 0) ^ (words == 2)).double()
    found = outputs(spec, features, labels)
    right = ((found > 0.5) == labels.bool()).double()
    late = torch.arange(3_000) >= 2_200
    assert float(right[late & (words == 2)].mean()) > 0.8
    assert float(right[late & (words < 2)].mean()) > 0.9


@pytest.mark.parametrize("value", [0.0, 7.0, 1e12])
def test_a_constant_column_is_as_none(value: float) -> None:
    features = noise(1_500, 3)
    labels = (features[:, 0] > 0).double()
    constant = torch.full((1_500, 1), value, dtype=torch.float64)
    found = outputs(spec_of(4), torch.cat([features, constant], 1), labels)
    assert float(((found > 0.5) == labels.bool()).double()[600:].mean()) > 0.9


def test_a_feature_that_vanishes_is_missed_and_what_is_left_goes_on() -> None:
    features = noise(4_000, 3)
    labels = (features[:, 0] + 0.7 * features[:, 1] > 0).double()
    features[2_000:, 0] = torch.nan
    found = outputs(spec_of(3), features, labels)
    right = ((found > 0.5) == labels.bool()).double()
    # Without the first column the second alone is right in 69 of 100.
    assert float(right[1_000:2_000].mean()) > 0.9
    assert float(right[3_000:].mean()) > 0.64
    chance = found[3_000:].double()
    assert float(torch.nn.functional.binary_cross_entropy(chance, labels[3_000:])) < math.log(2.0)


def test_200_columns_of_which_few_matter() -> None:
    features = noise(3_000, 200)
    labels = (features[:, 7] - features[:, 90] > 0).double()
    found = outputs(spec_of(200), features, labels, size=300)
    assert float(((found > 0.5) == labels.bool()).double()[1_500:].mean()) > 0.78


def test_a_curved_number_is_forecast_better_than_by_its_mean() -> None:
    features = noise(3_000, 4)
    labels = 50.0 + 10.0 * features[:, 0] * features[:, 1] + 5.0 * features[:, 2]
    found = outputs(spec_of(4, task="regression"), features, labels).double()
    error = (found - labels)[1_500:].square().mean()
    assert float(error) < 0.35 * float(labels[1_500:].var())
