"""What one look at the data has found, feature by feature: the words that deciding, alerts, history and page share.

A finding is a test that was made, whatever came of it: its p-value, how large the difference is, and what it was made
from. Which findings become alerts is decided elsewhere (`deciding`, `alerts`).
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import msgspec

from stream_trainer import acting
from stream_trainer.reference.pseudo import LABEL

Kind = acting.Kind
Against = Literal[
    "baseline",  # the pipeline's frozen reference
    "learned",  # what the version that served has learned from
    "limit",  # a stated bound, or the stream's own past
]
# Rows of one version are the segment `_version=N`.
VERSION = "_version="
State = Literal["drift", "quiet", "not enough data"]
Severity = acting.Severity
# The worst is 0.
RANKS: Mapping[str, int] = MappingProxyType({name: rank for rank, name in enumerate(reversed(acting.SEVERITIES))})


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """How large a difference is, whatever its p-value; None where it has no meaning.

    `psi`: population stability index, nats. `jensen_shannon`: divergence, bits, 0 to 1. Both over 16 groups of bins
    and less what chance alone adds. `kolmogorov_smirnov`: largest difference of the cumulative shares at the bins' edges.
    `wasserstein`: distance between the binned distributions, in standard deviations of the reference. The last two of
    numbers only.
    """

    psi: float | None = None
    jensen_shannon: float | None = None
    kolmogorov_smirnov: float | None = None
    wasserstein: float | None = None


def of_examples(kind: Kind, feature: str) -> bool:
    """Whether it is about windows of labelled examples, which come later than those of predictions."""
    return kind in ("label", "loss", "concept") or feature == LABEL


class Distinct(msgspec.Struct, frozen=True, kw_only=True):
    """An estimate of how many different values there were; `error`: its standard error, as a share of it."""

    values: float
    error: float


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One test over one window, or over several windows together.

    Attributes:
        feature: which one; "" for all together.
        segment: "" for all rows, else `name=value`; `_version=N` of the rows that version N answered.
        windows: how many windows were taken together.
        p_value: how often chance alone shows as much; 1 where nothing could be tested.
        threshold: p-values up to this one were called drift in this round.
        rows: known values in the window; `reference_rows`: those they were compared with.
        severity: of the alert that it may become; None: by the size of the effect.
        weight: how much of the change of the model's output is this feature's, 0 to 1; None until it is computed.
        dispersion: how many times as much as rows by chance windows usually differ; 1: no more than by chance.
        distinct: how many different values the window had; None where it is not known.
        together: the features that go missing in the same rows, this one among them; empty: no other does.
        detail: which bins moved, or why there is no verdict.
    """

    kind: Kind
    feature: str
    segment: str = ""
    against: Against
    state: State
    windows: int = 1
    statistic: float = 0.0
    p_value: float = 1.0
    threshold: float = 0.0
    effect: Effect = Effect()
    rows: int = 0
    reference_rows: int = 0
    severity: Severity | None = None
    weight: float | None = None
    dispersion: float = 1.0
    distinct: Distinct | None = None
    together: tuple[str, ...] = ()
    detail: str = ""
