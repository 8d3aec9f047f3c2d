"""Online learning in which a model is a pure function of the log.

Names are imported on first use: a command that needs no torch does not pay for it, nor does a Spark worker that
only decodes.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stream_trainer.contract import BinaryLabel, Categorical, ClassLabel, Contract, Numeric, NumericLabel, Vector
    from stream_trainer.joining.join import Join
    from stream_trainer.learners import Sgd, Tabular
    from stream_trainer.pipeline import Pipeline

__all__ = [
    "BinaryLabel",
    "Categorical",
    "ClassLabel",
    "Contract",
    "Join",
    "Numeric",
    "NumericLabel",
    "Pipeline",
    "Sgd",
    "Tabular",
    "Vector",
]

_HOMES = {
    "Join": "stream_trainer.joining.join",
    "Pipeline": "stream_trainer.pipeline",
    "Sgd": "stream_trainer.learners",
    "Tabular": "stream_trainer.learners",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES.get(name, "stream_trainer.contract")), name)
