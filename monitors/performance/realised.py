"""Realised loss of a window against what is usual: a permutation test whose error is bounded, not approximated.

See `bounds` for the test. It holds for any number of rows and any tail, for rows that are exchangeable: a loss that moves
with the hour of the day is a change.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from monitors.findings import Effect, Finding
from monitors.performance.bounds import p_larger
from monitors.performance.tally import Losses, Tally

Floats = NDArray[np.float64]
_CAPPED_SHARE = 0.99
_OCTAVE = 4  # sizes an octave


def loss_findings(now: Tally, past: Tally, *, alpha: float, min_rows: int) -> list[Finding]:
    """Kind `loss`, against `learned`: all rows together, then each segment of the window, by name.

    Args:
        now: the window.
        past: what is usual, without the window.
        alpha: chance of any `drift` in it while nothing changes; half is for all rows together, half for the segments.
        min_rows: with fewer rows, in the window or in the past, there is no verdict.

    `statistic` is the rise of the mean loss as a share of the usual one, `effect.psi` that of the distribution of losses
    over octaves.
    """
    pairs = {"": (now.losses, past.losses)}
    pairs |= {key: (losses, past.segments.get(key, Losses())) for key, losses in now.segments.items()}
    judged = sum(min(a.rows, b.rows) >= min_rows for key, (a, b) in pairs.items() if key)
    return [
        _finding(key, window, before, alpha / 2 if not key else alpha / 2 / max(judged, 1), min_rows, now)
        for key, (window, before) in pairs.items()
    ]


def _finding(segment: str, now: Losses, past: Losses, threshold: float, min_rows: int, tally: Tally) -> Finding:
    enough = min(now.rows, past.rows) >= min_rows
    if not enough:
        return Finding(
            kind="loss",
            feature="",
            segment=segment,
            against="learned",
            state="not enough data",
            rows=now.rows,
            reference_rows=past.rows,
            detail=f"{now.rows} rows with a label, {past.rows} before; {min_rows} are needed",
        )
    p = p_worse(now, past, squared=tally.task == "regression")
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
        detail=f"mean {'squared error' if tally.task == 'regression' else 'log loss'} {after:.4g}, usually {before:.4g}",
    )


def p_worse(now: Losses, past: Losses, *, squared: bool) -> float:
    """At most how often chance alone gives the window losses as large, if its rows and the past's are alike; in (0, 1].

    Each row counts with the middle of its size (`Losses.sizes`); errors beyond the 99th percentile of all rows
    together count as that, so that one row decides nothing.

    Args:
        now: the window's rows, at least 1.
        past: rows it is compared with, at least 1.
        squared: sizes are of absolute errors, and their squares are compared.
    """
    sizes = np.array(sorted({*now.sizes, *past.sizes}), dtype=np.float64)
    window, before = _counts(now.sizes, sizes), _counts(past.sizes, sizes)
    if squared:
        share = np.cumsum(window + before) / (now.rows + past.rows)
        sizes = np.minimum(sizes, sizes[np.searchsorted(share, _CAPPED_SHARE)])
    octaves = (sizes + 0.5) / _OCTAVE * (2.0 if squared else 1.0)
    scores = np.exp2(octaves - octaves.max())
    return p_larger(scores, window, before)


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
