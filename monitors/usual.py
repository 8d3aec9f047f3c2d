"""How much windows usually differ: the dispersion by which a difference is judged where rows of a window go together.

Exact tests take the rows of a window for exchangeable with those of the reference. Where all rows of a day share the
day's weather each window differs surely, and always did. There a p-value is that of a window among windows: chi-squared
is divided by what it usually is (quasi-likelihood; Rao and Scott 1981). Pure: a function of the windows judged so far.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc, chdtri, fdtrc, fdtri

from monitors.comparing import Floats, Measures

MEMORY = 60
# Windows are taken to differ by more than rows by chance only where chance shows as much in one of so many streams.
SURE = 1e-3
# A round teaches no more than what one in a thousand shows.
MOST = 1e-3
# So many rounds are added in which chi-squared varied as with one degree of freedom.
_PRIOR = 4
Flags = NDArray[np.bool_]


class Past(msgspec.Struct, frozen=True, array_like=True):
    """What the rounds of one question have shown; `mean` and `square`: of chi-squared per degree of freedom, by measure.

    `lasting`: whether the newest round was called drift.
    """

    rounds: int = 0
    mean: tuple[float, ...] = ()
    square: tuple[float, ...] = ()
    lasting: bool = False


class Usual(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of all questions; msgspec can write it. `key` names the bins: with other ones it begins anew.

    `windows`: that were judged with these bins.
    """

    key: str = ""
    windows: int = 0
    past: dict[str, Past] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighed:
    """Questions in the light of what is usual, one entry each.

    Attributes:
        p_value: the exact one, or that of the window among windows, whichever is larger.
        dispersion: chi-squared per degree of freedom as it usually is; 1 where chance explains it.
        times: how many times what windows usually differ; 0 where the exact p-value counts.
        waits: rounds that were seen where too few were, -1 elsewhere.
        most: what a round may teach, `[questions, measures]`.
    """

    p_value: Floats
    dispersion: Floats
    times: Floats
    waits: NDArray[np.int64]
    most: Floats


def weigh(pasts: Sequence[Past], measures: Measures, shared: Floats, needed: int) -> Weighed:
    """Judge each question by what its windows usually show.

    Args:
        pasts: before this round.
        measures: of this round.
        shared: by question the rows of the window over those of window and reference together. The reference is the
            same in all rounds, so they are correlated by so much, and their sum varies by more.
        needed: so many rounds have to be known where windows differ by more than chance.
    """
    asked = measures.freedom > 0
    ratio = np.where(asked, measures.statistic / np.maximum(measures.freedom, 1), 0.0)
    rounds, mean, square = _arrays(pasts, ratio.shape[1])
    first = rounds == 0
    overdispersed = _surely(np.where(first[:, None], ratio, mean), np.maximum(rounds, 1), measures, shared)
    phi = np.maximum(1.0, mean)
    seen = np.maximum(rounds, 1.0)[:, None]
    freedom = _freedom(mean, square, seen, measures)
    of_windows = np.where(asked, fdtrc(freedom, seen, ratio / phi), 1.0)
    parts = np.where(
        overdispersed[:, None] & ~first[:, None], np.maximum(measures.p_value, of_windows), measures.p_value
    )
    best = parts.argmin(axis=1)[:, None]
    times = np.take_along_axis(ratio / phi, best, axis=1)[:, 0]
    of_rows_most = chdtri(np.maximum(measures.freedom, 1), MOST) / np.maximum(measures.freedom, 1)
    of_windows_most = phi * fdtri(freedom, seen, 1 - MOST)
    known = overdispersed & (rounds >= needed)
    return Weighed(
        p_value=np.minimum(1.0, parts.min(axis=1) * np.maximum(asked.sum(axis=1), 1)),
        dispersion=np.where(known, np.where(measures.summed, phi, 1.0).max(axis=1), 1.0),
        times=np.where(known, times, 0.0),
        waits=np.where(overdispersed & (rounds < needed), rounds, -1).astype(np.int64),
        most=np.where(first[:, None], np.inf, np.where(overdispersed[:, None], of_windows_most, of_rows_most)),
    )


def learn(pasts: Sequence[Past], measures: Measures, most: Floats, drifted: Sequence[bool]) -> list[Past]:
    """What is usual after a round.

    Of rounds in a row that were called drift only the first one teaches, and no more than `most`: a lasting change does
    not make itself usual, and windows that stand out now and then do become so.
    """
    found = []
    for past, statistic, freedom, limit, drift in zip(
        pasts, measures.statistic.tolist(), measures.freedom.tolist(), most.tolist(), drifted, strict=True
    ):
        if drift and past.lasting:
            found.append(past)
            continue
        weight = 1.0 / min(past.rounds + 1, MEMORY)
        old = list(zip(past.mean, past.square, strict=True)) or [(0.0, 0.0)] * len(freedom)
        new = [
            (m + weight * (x - m), s + weight * (x * x - s)) if f else (m, s)
            for (m, s), x, f in (
                (before, min(x / max(f, 1), at_most), f)
                for before, x, f, at_most in zip(old, statistic, freedom, limit, strict=True)
            )
        ]
        found.append(
            Past(min(past.rounds + 1, MEMORY), tuple(m for m, _ in new), tuple(s for _, s in new), lasting=drift)
        )
    return found


def _arrays(pasts: Sequence[Past], measures: int) -> tuple[Floats, Floats, Floats]:
    nothing = (0.0,) * measures
    rounds = np.array([past.rounds for past in pasts], np.float64)
    mean = np.array([past.mean or nothing for past in pasts]).reshape(len(pasts), measures)
    square = np.array([past.square or nothing for past in pasts]).reshape(len(pasts), measures)
    return rounds, mean, square


def _surely(mean: Floats, rounds: Floats, measures: Measures, shared: Floats) -> Flags:
    """Whether all rounds together differ by more than chance; the sum's variance is matched (Satterthwaite)."""
    inflation = (1 + (rounds - 1) * shared**2)[:, None]
    degrees = rounds[:, None] * measures.freedom / inflation
    tested = measures.summed & (measures.freedom > 0)
    p_value = np.where(tested, chdtrc(np.maximum(degrees, 1e-9), degrees * mean), 1.0)
    sure: Flags = p_value.min(axis=1) * np.maximum(tested.sum(axis=1), 1) < SURE
    return sure


def _freedom(mean: Floats, square: Floats, seen: Floats, measures: Measures) -> Floats:
    """By how many degrees of freedom chi-squared would vary as it does: rows that go together leave few."""
    varies = np.maximum(square - mean**2, 0.0) / np.maximum(mean, 1e-12) ** 2
    varies = (seen * varies + _PRIOR * 2.0) / (seen + _PRIOR)
    most = np.where(measures.summed, np.maximum(measures.freedom, 1), np.inf)
    found: Floats = np.clip(2.0 / np.maximum(varies, 1e-3), 0.5, most)
    return found
