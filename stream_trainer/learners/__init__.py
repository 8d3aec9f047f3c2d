"""The learners that come with the project."""

from stream_trainer.learners.sgd import Sgd, mlp
from stream_trainer.learners.tabular import Tabular

__all__ = ["Sgd", "Tabular", "mlp"]
