"""Learn in the driver, on one thread: two threads are slower for small nets, and one order gives one result."""

import torch

from stream_trainer.learner import Batch, Learner, LearnReport, State

NAME = "local"
WORLD_SIZE = 1
THREADS = 1


def prepare() -> None:
    """Fix the number of threads for everything that this process computes: forecasts must repeat to the bit, too."""
    torch.set_num_threads(THREADS)


def learn(learner: Learner, state: State, batch: Batch) -> tuple[State, LearnReport]:
    """One pass over the micro-batch."""
    prepare()
    return learner.learn(state, batch)
