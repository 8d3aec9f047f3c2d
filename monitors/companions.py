"""Which columns go missing in the same rows: a source that fails takes several columns with it, and that is one change.

A window says itself which of its columns go together (`missing`). Nothing here decides whether anything is missing more
often. Pure.
"""

from collections.abc import Iterable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from monitors.deciding import Question
from monitors.findings import Finding
from stream_trainer.reference import unpack
from stream_trainer.reference.counting import Cells

# So much of what is missing in one column has to be missing in the other: a few rows of their own part no columns.
ALIKE = 0.9
_Flags = NDArray[np.bool_]


def companions(
    questions: Iterable[Question], findings: Sequence[Finding], both: bytes, names: Sequence[str]
) -> list[Finding]:
    """Findings, where those of columns that go missing in the same rows name each other in `together`.

    Where columns are missing more often than before, the window has to show nine in ten of the rows in common; so has
    a segment, by as many rows missing in each and the rarer one of all rows hardly ever without the other. Where they
    are missing less often, there is nothing to see in the window: then the same number of rows before, exactly, has to do.

    Args:
        questions: what was asked.
        findings: what was found; of kind "quality" and state "drift" those that are about missing values are looked at.
        both: `both_missing` of the windows that were judged.
        names: what it was counted for.
    """
    asked = {(q.feature, q.segment, q.against): q for q in questions}
    places = {name: i for i, name in enumerate(names)}
    counts = unpack(both, len(names) ** 2).reshape(len(names), len(names))
    groups: dict[tuple[str, str, bool], list[tuple[int, int, int]]] = {}
    for i, finding in enumerate(findings):
        question = asked.get((finding.feature, finding.segment, finding.against))
        if finding.kind != "quality" or finding.state != "drift" or question is None or finding.feature not in places:
            continue
        change = _change(question)
        if change is not None:
            rows, more = change
            groups.setdefault((finding.segment, finding.against, more), []).append((i, places[finding.feature], rows))
    found = list(findings)
    for (_, _, more), members in groups.items():
        at, missing = np.array([m[1] for m in members]), np.array([m[2] for m in members], np.int64)
        alike = _in_same_rows(counts, at, missing) if more else missing[:, None] == missing
        for together in _connected(alike):
            told = tuple(findings[members[i][0]].feature for i in sorted(together, key=lambda i: at[i]))
            for i in together:
                found[members[i][0]] = msgspec.structs.replace(findings[members[i][0]], together=told)
    return found


def _change(question: Question) -> tuple[int, bool] | None:
    """Rows missing where more are, and whether that is the window; None: it is something else that has changed most."""
    window, reference = np.asarray(question.window), np.asarray(question.reference)
    shares = window / max(1, window.sum()) - reference / max(1, reference.sum())
    moved = shares[list(question.quality)]
    if 2 * abs(moved[-1]) < np.abs(moved).sum():
        return None
    more = bool(moved[-1] > 0)
    return int((window if more else reference)[-1]), more


def _in_same_rows(counts: Cells, at: Cells, rows: Cells) -> _Flags:
    """By all rows the rarer one lies within the other, and here they are missing equally often."""
    common = (counts + np.triu(counts, 1).T)[np.ix_(at, at)]
    alone = np.diagonal(counts)[at]
    within = (common > 0) & (common >= ALIKE * np.minimum(alone[:, None], alone))
    as_often: _Flags = np.minimum(rows[:, None], rows) >= ALIKE * np.maximum(rows[:, None], rows)
    return within & as_often


def _connected(alike: _Flags) -> list[list[int]]:
    """Members that hang together, two or more."""
    many, labels = connected_components(csr_array(alike), directed=False)
    parts = [np.flatnonzero(labels == part).tolist() for part in range(many)]
    return [part for part in parts if len(part) > 1]
