"""A learner over any torch module, and what it can do beside learning each row once."""

from stream_trainer.learners.sgd.learner import Sgd
from stream_trainer.learners.sgd.nets import adamw, default_loss, mlp
from stream_trainer.learners.sgd.replay import Replay
from stream_trainer.learners.tabular.drift import Drift as DriftResponse
from stream_trainer.learners.tabular.mixer import Mixer
from stream_trainer.learners.tabular.trial import Trial

__all__ = ["DriftResponse", "Mixer", "Replay", "Sgd", "Trial", "adamw", "default_loss", "mlp"]
