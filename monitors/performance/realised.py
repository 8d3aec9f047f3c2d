"""Realised loss of a window against what is usual: among rows, and among windows. Both must say that it is higher.

Among rows: a permutation test whose error is bounded, not approximated (`bounds`); it holds for any number of rows and any tail.
Among windows: how much their losses usually differ (`levels`), because rows of a window share what makes them hard.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monitors.findings import Effect, Finding
from monitors.performance import levels
from monitors.performance.bounds import p_larger
from monitors.performance.levels import Level, Levels, Seen
from monitors.performance.tally import Losses, Tally

Floats = NDArray[np.float64]
_CAPPED_SHARE = 0.99
_OCTAVE = 4  # sizes an octave


@dataclass(frozen=True, slots=True)
class _Scores:
    """Rows by score, of the window and of the past; scores are losses over the largest one, `[sizes]`."""

    scores: Floats
    window: Floats
    before: Floats
    largest: float


def loss_findings(
    now: Tally, past: Tally, usual: Levels, *, alpha: float, min_rows: int
) -> tuple[list[Finding], Levels]:
    """Kind `loss`, against `learned`: all rows together, then each segment of the window, by name; and what is usual after it.

    Args:
        now: the window.
        past: what is usual, without the window.
        usual: how much windows differ, without the window.
        alpha: chance of any `drift` in it while nothing changes; half is for all rows together, half for the segments.
        min_rows: with fewer rows, in the window or in the past, there is no verdict; nor before `levels.LEAST` windows.

    `statistic` is the rise of the mean loss as a share of the usual one, `effect.psi` that of the distribution of losses
    over octaves.
    """
    pairs = {"": (now.losses, past.losses)}
    pairs |= {key: (losses, past.segments.get(key, Losses())) for key, losses in now.segments.items()}
    judged = [key for key, (a, b) in pairs.items() if min(a.rows, b.rows) >= min_rows]
    segments, as_one = max(sum(key != "" for key in judged), 1), usual.as_one
    found, seen = [], {}
    for key, (window, before) in pairs.items():
        if key not in judged:
            why = f"{window.rows} rows with a label, {before.rows} before; {min_rows} are needed"
            found.append(_untested(key, window, before, why))
            continue
        squared = now.task == "regression"
        seen[key] = _seen(_scores(window, before, squared=squared))
        level = usual.known.get(key, Level())
        if level.windows < levels.LEAST:
            why = f"how much windows usually differ is not known yet: {level.windows} of {levels.LEAST}"
            found.append(_untested(key, window, before, why))
            continue
        p = max(p_worse(window, before, squared=squared), levels.p_higher(level, seen[key], as_one))
        threshold = alpha / 2 if not key else alpha / 2 / segments
        found.append(_tested(key, window, before, p, threshold, squared=squared))
    return found, levels.taught(usual, seen, {"", *past.segments})


def p_worse(now: Losses, past: Losses, *, squared: bool) -> float:
    """At most how often chance alone gives the window losses as large, if its rows and the past's are alike; in (0, 1].

    Args:
        now: the window's rows, at least 1.
        past: rows it is compared with, at least 1.
        squared: sizes are of absolute errors, and their squares are compared.
    """
    found = _scores(now, past, squared=squared)
    return p_larger(found.scores, found.window, found.before)


def _untested(segment: str, now: Losses, past: Losses, why: str) -> Finding:
    return Finding(
        kind="loss",
        feature="",
        segment=segment,
        against="learned",
        state="not enough data",
        rows=now.rows,
        reference_rows=past.rows,
        detail=why,
    )


def _tested(segment: str, now: Losses, past: Losses, p: float, threshold: float, *, squared: bool) -> Finding:
    before, after = past.mean, now.mean
    return Finding(
        kind="loss",
        feature="",
        segment=segment,
        against="learned",
        state="drift" if p <= threshold else "quiet",
        statistic=(after - before) / before if before > 0.0 else 0.0,
        p_value=p,
        threshold=threshold,
        effect=Effect(psi=stability_index(now.sizes, past.sizes)),
        rows=now.rows,
        reference_rows=past.rows,
        detail=f"mean {'squared error' if squared else 'log loss'} {after:.4g}, usually {before:.4g}",
    )


def _scores(now: Losses, past: Losses, *, squared: bool) -> _Scores:
    """Each row counts with the middle of its size (`Losses.sizes`); `squared`: sizes are of absolute errors.

    Errors beyond the 99th percentile of all rows together count as that, so that one row decides nothing.
    """
    sizes = np.array(sorted({*now.sizes, *past.sizes}), dtype=np.float64)
    window, before = _counts(now.sizes, sizes), _counts(past.sizes, sizes)
    if squared:
        share = np.cumsum(window + before) / (now.rows + past.rows)
        sizes = np.minimum(sizes, sizes[np.searchsorted(share, _CAPPED_SHARE)])
    octaves = (sizes + 0.5) / _OCTAVE * (2.0 if squared else 1.0)
    return _Scores(np.exp2(octaves - octaves.max()), window, before, float(octaves.max()))


def _seen(found: _Scores) -> Seen:
    """The window's level in octaves; its noise by the variance of all rows together (delta method)."""
    every = found.window + found.before
    mean, square = found.scores @ every / every.sum(), found.scores**2 @ every / every.sum()
    rows = float(found.window.sum())
    level = found.largest + math.log2(float(found.scores @ found.window) / rows)
    return Seen(level, max(float(square / mean**2) - 1.0, 0.0) / rows / math.log(2.0) ** 2)


def stability_index(now: Mapping[int, int], past: Mapping[int, int]) -> float:
    """PSI in nats of two distributions of sizes, by whole octaves, half a row added to each; at least 0."""
    octaves = sorted({size // _OCTAVE for size in (*now, *past)})
    shares = []
    for sizes in (now, past):
        rows = np.full(len(octaves), 0.5)
        for size, count in sizes.items():
            rows[octaves.index(size // _OCTAVE)] += count
        shares.append(rows / rows.sum())
    return float(((shares[0] - shares[1]) * np.log(shares[0] / shares[1])).sum())


def _counts(rows: Mapping[int, int], sizes: Floats) -> Floats:
    return np.array([rows.get(int(size), 0) for size in sizes], dtype=np.float64)
