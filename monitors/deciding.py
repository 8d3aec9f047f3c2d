"""All tests of one round become findings, and the round as a whole keeps its false-alarm budget.

A round is one block of windows with all features, segments and references. Benjamini and Hochberg (1995) decide over all of
its tests: while nothing changes, any alarm in the round is at most as probable as the budget; where something has
changed, at most that share of what is called drift is wrong. Pure; nothing is remembered between rounds.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monitors.comparing import Counts
from monitors.findings import Against, Finding, Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One comparison to be made: a feature in a segment against a reference.

    Attributes:
        kind: what a difference in values is; "drift", "prediction", "label" or "multivariate".
        window: counts in the frozen bins, `[bins]`, the bins of quality included.
        reference: the same of the reference.
        names: a readable name for each bin.
        ordered: whether bins are ranges of numbers.
        quality: which bins hold no proper value (missing, NaN, infinite, out of range, unseen); they are compared on
            their own, and the result is a finding of kind "quality".
        places: where each value bin is on the axis, for Wasserstein; None: bins are one apart.
        unanswerable: why nothing can be compared (another reference, no such column); "" when it can.
    """

    kind: Kind
    feature: str
    segment: str = ""
    against: Against
    window: Counts
    reference: Counts
    names: Sequence[str]
    ordered: bool = True
    quality: Sequence[int] = ()
    places: NDArray[np.float64] | None = None
    unanswerable: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What a round may do.

    Attributes:
        budget: the probability of any alarm while nothing has changed (`scales.budgets`, or a share of it).
        windows: how many windows are taken together.
        min_rows: with fewer known values on either side there is no verdict.
    """

    budget: float
    windows: int = 1
    min_rows: int = 50


def decide(questions: Sequence[Question], round_: Round, together: Iterable[Finding] = ()) -> list[Finding]:
    """Answer all questions, and call drift what stands out.

    Args:
        questions: in any order; each gives a finding of its kind and, when it has bins of quality, another one.
        round_: the budget and the least rows.
        together: findings of others with valid p-values of this round (state "quiet", or "not enough data"): they
            share the budget.

    Returns:
        The findings in the order of the questions, then those handed in; `threshold` is the round's.
    """
    raise NotImplementedError


def decide_alone(findings: Sequence[Finding], budget: float) -> list[Finding]:
    """Decide findings that carry a budget of their own, by the same rule and apart from all others."""
    raise NotImplementedError


def critical_p_value(p_values: NDArray[np.float64], budget: float) -> float:
    """Benjamini and Hochberg's: p-values up to this one are discoveries; when there are none, what one would have taken."""
    raise NotImplementedError
