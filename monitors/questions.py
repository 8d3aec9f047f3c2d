"""What is asked about a window: each feature, in each segment, against what the version has learned and the baseline.

Also the curves that a page draws. Pure: from counts to questions; answering them is `deciding`.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from monitors.baseline import Baseline, Frozen
from monitors.content import MIXED, OLDER, PARTS, Content
from monitors.deciding import Question
from monitors.findings import VERSION, Against, Kind
from monitors.history import Curve
from stream_trainer.reference import LABEL, OUTPUT, PROJECTION, Bins, unpack
from stream_trainer.reference.counting import Cells

MOST_VERSIONS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What a window is compared with.

    Attributes:
        frozen: the bins in use; None: not frozen yet.
        served: what the version that answered most of the window has learned from; None: no such version can be read.
        versions: of a window that several answered, what those with the most rows have learned from.
    """

    frozen: Frozen | None
    served: Baseline | None
    versions: Mapping[int, Baseline] = field(default_factory=dict)

    def unanswerable(self, content: Content, against: Against) -> str:
        """Why a window cannot be compared, "" when it can."""
        if self.frozen is None or content.digest is None:
            return "no bins are frozen yet"
        if content.digest == MIXED:
            return "its rows were counted with different bins"
        if content.digest != self.frozen.digest:
            return "it was counted with other bins than those of the reference"
        if against == "learned" and self.served is None:
            return "no version that answered in it can be read"
        if against == "learned" and self.served is not None and self.served.frozen.digest != content.digest:
            return f"version {self.served.version} was learned with other bins"
        return ""


def asked_of_predictions(content: Content, compared: Compared, unwatched: Collection[str] = ()) -> list[Question]:
    """All features, the answers and the random projections; segments and versions against what was learned only.

    Where several versions answered, the rows of each are compared with what that version has learned from. What a model answered before it had learned anything says nothing, so answers have no baseline. Nothing is asked of
    the features that are `unwatched`.
    """
    asked = [*_questions(content, compared, labels=False), *_by_version(content, compared)]
    return [question for question in asked if question.feature not in unwatched]


def asked_of_examples(content: Content, compared: Compared) -> list[Question]:
    """The label alone, by segment."""
    return list(_questions(content, compared, labels=True))


def curves(content: Content, compared: Compared) -> list[Curve]:
    """Counts in few bins, of the window and of both references; none where they cannot be compared."""
    if compared.frozen is None or compared.unanswerable(content, "baseline"):
        return []
    reference = compared.frozen.reference
    cells = content.cells(reference)
    learned = compared.served.learned if not compared.unanswerable(content, "learned") and compared.served else None
    found = []
    for bins in reference.bins:
        place = reference.places[bins.feature, ""]
        if not cells[place].any():
            continue
        found.append(
            Curve(
                feature=bins.feature,
                bins=list(bins.coarse_names),
                window=_coarse(bins, cells[place]),
                baseline=_coarse(bins, compared.frozen.counts(bins.feature)),
                learned=_coarse(bins, np.zeros(bins.size, np.int64) if learned is None else learned[place]),
            )
        )
    return found


def outputs(content: Content, compared: Compared) -> list[int]:
    """Rows by the probability that was answered, in 100 equal bins; empty for numbers, or without bins."""
    if compared.frozen is None or compared.unanswerable(content, "baseline"):
        return []
    reference = compared.frozen.reference
    for bins in reversed([b for b in reference.bins if b.feature.startswith(OUTPUT)]):
        if bins.kind == "number" and bins.ordinary == 100 and (bins.low, bins.high) == (0.0, 1.0):
            found: list[int] = content.cells(reference)[reference.places[bins.feature, ""]][:100].tolist()
            return found
    return []


def _questions(content: Content, compared: Compared, *, labels: bool) -> Iterator[Question]:
    if compared.frozen is None:
        return
    reference = compared.frozen.reference
    nothing = np.zeros(reference.cells, np.int64)
    cells = nothing if compared.unanswerable(content, "baseline") else content.cells(reference)
    learned = (
        nothing if compared.served is None or compared.unanswerable(content, "learned") else compared.served.learned
    )
    for (feature, segment), place in reference.places.items():
        bins = reference.of(feature)
        if (feature == LABEL) != labels:
            continue
        if segment and not cells[place].any():
            continue
        why = compared.unanswerable(content, "learned")
        yield _question(bins, segment, "learned", cells[place], learned[place], why)
        if not segment and not feature.startswith(OUTPUT):
            why = compared.unanswerable(content, "baseline")
            yield _question(bins, segment, "baseline", cells[place], compared.frozen.counts(feature), why)


def told_apart(content: Content, min_rows: int) -> list[int]:
    """The versions whose rows are compared by themselves: those with the most rows of two or more that have enough.

    Only versions that answered side by side, all through the window: the rows of one that followed another are of
    another part of its time, and differ for that.
    """
    beside = _side_by_side(content)
    rows = {v: n for v, n in content.versions.items() if v in content.by_version and v in beside and n >= min_rows}
    return sorted(sorted(rows, key=lambda v: (-rows[v], -v))[:MOST_VERSIONS]) if len(rows) > 1 else []


def _side_by_side(content: Content) -> set[int]:
    """Versions that have, in each part of the window in which five of their rows would be, at least a quarter of them."""
    versions = [version for version in content.parts if version != OLDER]
    parts = np.array([content.parts[version] for version in versions], np.float64).reshape(-1, PARTS)
    every = np.array(list(content.parts.values()), np.float64).reshape(-1, PARTS)
    expected = parts.sum(axis=1, keepdims=True) * every.sum(axis=0) / max(1.0, every.sum())
    through = ((parts >= expected / 4) | (expected < 5)).all(axis=1)
    return {version for version, kept in zip(versions, through.tolist(), strict=True) if kept}


def _by_version(content: Content, compared: Compared) -> Iterator[Question]:
    if compared.frozen is None or compared.unanswerable(content, "baseline"):
        return
    reference = compared.frozen.reference
    for version, served in compared.versions.items():
        if version not in content.by_version or served.frozen.digest != content.digest:
            continue
        window = unpack(content.by_version[version], reference.coarse_cells)
        learned = np.zeros(reference.coarse_cells, np.int64)
        inside = reference.coarse_of >= 0
        np.add.at(learned, reference.coarse_of[inside], served.learned[: reference.fine_cells][inside])
        for feature, place in reference.coarse_places.items():
            if feature != LABEL:
                segment = f"{VERSION}{version}"
                yield _question(reference.of(feature), segment, "learned", window[place], learned[place], "")


def _question(bins: Bins, segment: str, against: Against, window: Cells, reference: Cells, why: str) -> Question:
    quality = [bins.place(end) for end in bins.ends if end != "other"]
    if segment:
        quality = [int(bins.coarse[place]) for place in quality]
    if bins.feature.startswith(PROJECTION):  # what is missing or far out is said by the features themselves
        window, reference, quality = window[: bins.ordinary], reference[: bins.ordinary], []
    return Question(
        kind=_kind(bins.feature),
        feature=bins.feature,
        segment=segment,
        against=against,
        window=window,
        reference=reference,
        names=(bins.coarse_names if segment else bins.names)[: len(window)],
        ordered=not bins.categorical,
        quality=quality,
        places=None if bins.categorical else _axis(bins, coarse=bool(segment)),
        unanswerable=why,
    )


def _kind(feature: str) -> Kind:
    if feature.startswith(PROJECTION):
        return "multivariate"
    if feature.startswith(OUTPUT):
        return "prediction"
    return "label" if feature == LABEL else "drift"


def _axis(bins: Bins, *, coarse: bool) -> NDArray[np.float64]:
    """The middle of each ordinary bin, in deviations of the reference; of an open one, its only edge."""
    edges = np.asarray(bins.edges)
    middle = np.concatenate([edges[:1], (edges[:-1] + edges[1:]) / 2, edges[-1:]])
    if coarse:
        groups = bins.coarse[: bins.ordinary]
        middle = np.bincount(groups, middle) / np.bincount(groups)
    return (middle - bins.centre) / bins.spread


def _coarse(bins: Bins, counts: Cells) -> list[int]:
    found: list[int] = np.bincount(bins.coarse, counts, bins.coarse_size).astype(int).tolist()
    return found
