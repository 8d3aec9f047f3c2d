"""The learners that come with the project."""

from stream_trainer.learners.sgd import Sgd, mlp

__all__ = ["Sgd", "mlp"]
