"""`Pipeline`: what the user writes."""

from dataclasses import dataclass, field
from functools import cached_property

from stream_trainer.contract import Contract
from stream_trainer.errors import UsageError
from stream_trainer.features import FeatureSpec, feature_spec
from stream_trainer.gates import DEFAULT_GATES, Gate
from stream_trainer.joining.join import Join
from stream_trainer.learner import Learner
from stream_trainer.learners import Tabular
from stream_trainer.monitoring import Monitoring
from stream_trainer.topics import Topics, is_name


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """One model that learns from one topic.

    Attributes:
        name: prefix of the topics and folder of the store: lower-case letters, digits, `_` and `-`.
        contract: what an example looks like.
        learner: what learns; the default for tables is an ensemble that is mixed by how each has done lately.
        join: how labels that come later find their predictions; None: others write the examples.
        gates: what a micro-batch must pass before its weights are committed.
        seed: where every random number of the lineage comes from.
        monitoring: windows of the monitor, and how often it may cry wolf.
        reference_rows: the drift reference is frozen with the first so many learned rows: half of them choose the bins, the
            others are the baseline.
        reference_hours: `learned.arrow` keeps so many hours of event time.
    """

    name: str
    contract: Contract
    learner: Learner = field(default_factory=Tabular)
    join: Join | None = None
    gates: tuple[Gate, ...] = DEFAULT_GATES
    seed: int = 0
    monitoring: Monitoring = field(default_factory=Monitoring)
    reference_rows: int = 4_000
    reference_hours: int = 48

    def __post_init__(self) -> None:
        if not is_name(self.name):
            raise UsageError(
                f"pipeline name {self.name!r}: use lower-case letters, digits, '_' and '-', at most 64 characters"
            )
        if self.join is not None:
            self.join.check(self.contract)
        if unknown := set(self.monitoring.unwatched) - {f.name for f in self.contract.features}:
            raise UsageError(f"Monitoring.unwatched: the contract has no feature {sorted(unknown)}")

    @cached_property
    def topics(self) -> Topics:
        """The topics this pipeline reads and writes."""
        return Topics(self.name)

    @property
    def negative_rate(self) -> float:
        """The share of false labels that are taught."""
        return 1.0 if self.join is None else float(self.join.negative_rate)

    @property
    def spec(self) -> FeatureSpec:
        """The columns of its feature tensors."""
        return feature_spec(self.contract)
