"""`Sgd` without options learns as it did before it had any: bit for bit, by digests and by a loop written out."""

import hashlib
import json
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from stream_trainer.features import FeatureSpec, Standardiser
from stream_trainer.learner import Batch, State
from stream_trainer.learners import Sgd, mlp
from stream_trainer.store.tensors import to_bytes
from tests.core.test_sgd import BINARY, CLASSES, MOMENTUM, NUMBERS, rows, with_batch_norm, with_dropout

# Taken before there were options. The order in which a processor adds is its own: elsewhere the loop has to do.
DIGESTS = {
    "default": "2b7d41d972c770e034937ee4de465297",
    "dropout, classes, momentum": "62ac715e3c7941cfb3f6e1a56c07181c",
    "batch norm, numbers, small steps": "e24f83e4b2cbba9a594b349f488bc153",
}
TAKEN_WITH = ("2.15.0+cu132", "AVX512")


def weighted(batch: Batch) -> Batch:
    weights = torch.linspace(0.0, 3.0, batch.rows, dtype=torch.float64)
    return Batch(features=batch.features, labels=batch.labels, weights=weights)


CASES: dict[str, tuple[Any, FeatureSpec]] = {
    "default": (Sgd, BINARY),
    "dropout, classes, momentum": (partial(Sgd, with_dropout, MOMENTUM), CLASSES),
    "batch norm, numbers, small steps": (partial(Sgd, with_batch_norm, rows_per_step=10, clip_norm=1.0), NUMBERS),
}


def digest(name: str) -> str:
    """Of all states, forecasts and reports on the way."""
    make, spec = CASES[name]
    learner = make()
    state = learner.init(spec, 5)
    found = hashlib.sha256(json.dumps(learner.hyperparameters(), sort_keys=True).encode())
    for seed, count in enumerate((100, 70, 1, 0, 64)):
        batch = rows(count, seed, spec)
        if count == 1 and "norm" in name:
            continue
        found.update(learner.predict(state, batch.features).numpy().tobytes())
        state, report = learner.learn(state, weighted(batch) if seed == 1 else batch)
        told = repr(report).replace(", answered=False, new_concept=False", "")
        found.update(to_bytes(state.serving) + to_bytes(state.training) + told.encode())
    return found.hexdigest()[:32]


@pytest.mark.parametrize("name", CASES)
def test_states_forecasts_and_reports_are_those_of_before(name: str) -> None:
    here = (torch.__version__, torch.backends.cpu.get_cpu_capability())
    if here != TAKEN_WITH:
        pytest.skip(f"the digests were taken with {TAKEN_WITH}, this is {here}")
    torch.set_num_threads(1)
    assert digest(name) == DIGESTS[name]


def looped(batches: list[Batch]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What `Sgd()` does, written out for one net that is never stored: weights and first moments."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        net = mlp(BINARY)
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-3, fused=True)
    scaler = Standardiser.fresh(BINARY.width)
    for batch in batches:
        scaler = scaler.update(batch.features)
        scaled, labels = scaler.scale(batch.features, BINARY.scaled), batch.labels.float()
        for start in range(0, batch.rows, 32):
            piece = slice(start, start + 32)
            optimizer.zero_grad()
            loss = functional.binary_cross_entropy_with_logits(net(scaled[piece])[:, 0], labels[piece])
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(net.parameters(), 5.0)
            optimizer.step()
    moments = {str(at): one["exp_avg"] for at, one in optimizer.state_dict()["state"].items()}
    return dict(net.named_parameters()), moments


def test_without_options_it_is_a_plain_loop() -> None:
    batches = [rows(100, 0), rows(70, 1), rows(1, 2)]
    learner = Sgd()
    state: State = learner.init(BINARY, 5)
    for batch in batches:
        state, _ = learner.learn(state, batch)
    weights, moments = looped(batches)
    assert all(torch.equal(state.serving[f"net.{name}"], tensor) for name, tensor in weights.items())
    assert all(torch.equal(state.training[f"optimizer.{at}.exp_avg"], tensor) for at, tensor in moments.items())
