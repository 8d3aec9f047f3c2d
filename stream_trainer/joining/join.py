"""`Join`: what a pipeline says about labels that come after the prediction. Light, and without Kafka or Spark."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import msgspec

from stream_trainer.contract import BinaryLabel, Contract
from stream_trainer.errors import UsageError
from stream_trainer.schema import label_type

On = Literal["key", "prediction_id"]

RESERVED = ("prediction_id", "label", "time")


def milliseconds(length: timedelta) -> int:
    """Whole ones."""
    return length // timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """How labels find their predictions.

    Attributes:
        on: what a label names: the `prediction_id` that `POST /predict` returned, or the contract's business key.
        horizon: a label and its prediction are joined when they were appended to Kafka at most so long apart.
        on_timeout: the label to teach when none has come within the horizon (the "no click" case); None drops.
        remember: a prediction that is over is remembered for so long, so that a label that comes too late is
            known to be late; None takes the horizon.
        patience: a topic in which nothing is left to read counts as read until so long ago. It has to cover by how much
            the clocks of joiner and broker differ and how long a record takes to be replicated; None takes a 64th of
            the horizon, at most a minute.
        negative_rate: the share of false labels that are taught; serving corrects the log-odds for it.
        late_share: the share of true labels that come after the horizon, after false was taught. With it, examples
            carry importance weights, and a late true label is taught. None: late labels are only reported.
    """

    on: On
    horizon: timedelta
    on_timeout: Any = None
    remember: timedelta | None = None
    patience: timedelta | None = None
    negative_rate: float = 1.0
    late_share: float | None = None

    def __post_init__(self) -> None:
        if self.on not in ("key", "prediction_id"):
            raise UsageError(f"join on {self.on!r}: use 'key' or 'prediction_id'")
        if self.horizon <= timedelta(0) or self.kept < timedelta(0) or self.slack < timedelta(0):
            raise UsageError("join: horizon must be positive; remember and patience must not be negative")
        if not 0 < self.negative_rate <= 1:
            raise UsageError(f"join: negative_rate {self.negative_rate} must be above 0 and at most 1")
        if self.late_share is not None and not (0 < self.late_share <= 1 and self.on_timeout is False):
            raise UsageError("join: late_share is above 0 and at most 1, and needs on_timeout=False")

    @property
    def kept(self) -> timedelta:
        """How long a prediction that is over is remembered."""
        return self.horizon if self.remember is None else self.remember

    @property
    def slack(self) -> timedelta:
        """`patience`, or what stands for it."""
        return min(self.horizon / 64, timedelta(minutes=1)) if self.patience is None else self.patience

    @property
    def span(self) -> timedelta:
        """How far back in the log a state reaches from what is settled: what is remembered, the labels before it, timers."""
        return 2 * self.horizon + self.kept + self.firing

    @property
    def firing(self) -> timedelta:
        """How long after it was read, and after its instant by the log, a timer may go off: four of the slots they share."""
        return self.horizon / 16 + 2 * self.slack

    @property
    def settle(self) -> timedelta:
        """For how long a state that has read all again may still give out what is there.

        Until its timers have gone off. By key a label may have gone to another prediction; until that one's horizon ends.
        """
        return self.firing + (self.horizon if self.on == "key" else timedelta(0))

    def doubt(self, retention: timedelta) -> str | None:
        """What is wrong with topics that keep their records for so long, if anything is."""
        if retention >= self.span:
            return None
        return (
            f"topics keep {retention}, but a joiner that loses its checkpoint reads the last {self.span} again (two horizons, "
            "remember and a little): raise kafka.retention_hours and retention.ms of the topics, or labels may be taught twice"
        )

    def check(self, contract: Contract) -> None:
        """Whether this join suits a contract.

        Raises:
            UsageError: it does not.
        """
        if contract.key in RESERVED:
            raise UsageError(f"join: the key {contract.key!r} is a name that records of P.labels use themselves")
        if self.on_timeout is not None:
            try:
                msgspec.convert(self.on_timeout, label_type(contract.label))
            except msgspec.ValidationError as error:
                raise UsageError(f"join: on_timeout is no value of label {contract.label.name!r}: {error}") from error
        if not isinstance(contract.label, BinaryLabel) and (self.negative_rate < 1 or self.late_share is not None):
            raise UsageError("join: negative_rate and late_share are for a BinaryLabel")
