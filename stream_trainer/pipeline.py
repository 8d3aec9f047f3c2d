"""`Pipeline`: what the user writes, and how a command finds it."""

import importlib
import re
import sys
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from stream_trainer.contract import Contract
from stream_trainer.errors import UsageError
from stream_trainer.features import FeatureSpec, feature_spec
from stream_trainer.gates import Finite, Gate
from stream_trainer.learner import Learner
from stream_trainer.learners import Sgd
from stream_trainer.topics import Topics

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """One model that learns from one topic.

    Attributes:
        name: prefix of the topics and folder of the store: lower-case letters, digits, `_` and `-`.
        contract: what an example looks like.
        learner: what learns; the default is a small net trained with AdamW.
        gates: what a micro-batch must pass before its weights are committed.
        seed: where every random number of the lineage comes from.
        reference_rows: the drift reference's bins are frozen over the first so many learned rows.
        reference_hours: `learned.arrow` keeps so many hours of event time.
    """

    name: str
    contract: Contract
    learner: Learner = field(default_factory=Sgd)
    gates: tuple[Gate, ...] = (Finite(),)
    seed: int = 0
    reference_rows: int = 2_000
    reference_hours: int = 48

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise UsageError(
                f"pipeline name {self.name!r}: use lower-case letters, digits, '_' and '-', at most 64 characters"
            )

    @cached_property
    def topics(self) -> Topics:
        """The topics this pipeline reads and writes."""
        return Topics(self.name)

    @property
    def spec(self) -> FeatureSpec:
        """The columns of its feature tensors."""
        return feature_spec(self.contract)


def load_pipeline(address: str) -> Pipeline:
    """Import a pipeline as uvicorn imports an app: `package.module:attribute`, from the working directory too.

    Raises:
        UsageError: the address is not of that form, or nothing of that kind is there.
    """
    module_name, _, attribute = address.partition(":")
    if not module_name or not attribute:
        raise UsageError(
            f"{address!r}: name a pipeline as module:attribute, such as examples.flights.pipeline:pipeline"
        )
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except (ModuleNotFoundError, AttributeError) as error:
        raise UsageError(
            f"{address!r}: {error}; run from the folder that holds {module_name.split('.')[0]!r}"
        ) from error
    if not isinstance(found, Pipeline):
        raise UsageError(f"{address!r} is a {type(found).__name__}, not a Pipeline")
    return found
