"""Modules draw from torch's one global generator: two learners in one process take turns, or neither would repeat."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

# Again by the one who has it: what is made within a turn is made from a copy of the generator.
_TURN = threading.RLock()


@contextmanager
def seeded(seed: int | None = None) -> Iterator[None]:
    """Run from a seed, or from wherever the generator is; it is left as it was."""
    with _TURN, torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.manual_seed(seed)
        yield


@contextmanager
def continued(state: Tensor) -> Iterator[list[Tensor]]:
    """Run under a given CPU generator's state; the list holds the state that it ended in."""
    after: list[Tensor] = []
    with _TURN, torch.random.fork_rng(devices=[]):
        torch.set_rng_state(state)
        yield after
        after.append(torch.get_rng_state())


@contextmanager
def aside() -> Iterator[None]:
    """What is drawn within `continued` is drawn again after it."""
    state = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(state)
