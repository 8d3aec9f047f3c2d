"""Which columns of two samples a report can compare, and how they are made fit for it. Pure."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from monitors.gauges import label

MISSING = "(missing)"
_MARKUP = str.maketrans({"<": "\u2039", ">": "\u203a", "&": "\uff06", "`": "\u2019"})


def usable_columns(
    current: pd.DataFrame, reference: pd.DataFrame, *, first: Sequence[str] = (), most: int | None = None
) -> tuple[list[str], list[str]]:
    """Numeric and text columns that both sides have and that hold at least one known value on each.

    Args:
        current: the window's sample.
        reference: what it is compared with.
        first: columns that are wanted most.
        most: at most so many columns in all.
    """
    wanted = {name: place for place, name in enumerate(first)}
    names = sorted((n for n in reference.columns if n in current.columns), key=lambda n: wanted.get(n, len(wanted)))
    known = [n for n in names if not (current[n].isna().all() or reference[n].isna().all())][:most]
    numeric = [n for n in known if all(pd.api.types.is_numeric_dtype(frame[n]) for frame in (current, reference))]
    return numeric, [n for n in known if n not in numeric]


def cleaned(frame: pd.DataFrame, numeric: Sequence[str], texts: Sequence[str]) -> pd.DataFrame:
    """These columns alone: numbers without infinities, texts as `harmless` with a word for what is missing."""
    numbers = {n: frame[n].astype("float64").replace([np.inf, -np.inf], np.nan) for n in numeric}
    words = {
        n: frame[n].astype("object").where(frame[n].notna(), MISSING).map(lambda w: harmless(str(w))) for n in texts
    }
    return pd.DataFrame({**numbers, **words}, index=frame.index)


def harmless(text: str) -> str:
    """A text from data as it may stand in an HTML file that escapes nothing: no markup, one line, not long."""
    return label(text).translate(_MARKUP)
