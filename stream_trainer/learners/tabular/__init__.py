"""The default learner for tables, and its parts."""

from stream_trainer.learners.tabular.drift import Drift
from stream_trainer.learners.tabular.learner import Tabular
from stream_trainer.learners.tabular.linear import Linear
from stream_trainer.learners.tabular.memory import LabelMemory
from stream_trainer.learners.tabular.mixer import Mixer
from stream_trainer.learners.tabular.neighbours import Neighbours
from stream_trainer.learners.tabular.nets import Nets
from stream_trainer.learners.tabular.passes import Passes
from stream_trainer.learners.tabular.replay import Replay
from stream_trainer.learners.tabular.sureness import Sureness
from stream_trainer.learners.tabular.trial import Trial

__all__ = [
    "Drift",
    "LabelMemory",
    "Linear",
    "Mixer",
    "Neighbours",
    "Nets",
    "Passes",
    "Replay",
    "Sureness",
    "Tabular",
    "Trial",
]
