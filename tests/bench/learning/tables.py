"""The sections of `docs/learning-benchmarks.md`, as Markdown tables."""

from collections.abc import Iterable, Sequence

import numpy as np

from tests.bench.learning.contestants import OURS
from tests.bench.learning.intervals import Interval
from tests.bench.learning.panels import Syncs
from tests.bench.learning.results import Measure, Results
from tests.bench.learning.syncing import FROZEN

_MEASURES: tuple[Measure, Measure] = ("first", "second")


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (headings, ["---"] * len(headings), *rows))


def streams(results: Results) -> str:
    """What was learned from."""
    rows = [
        [
            name,
            "real" if head.real else "generator",
            f"{head.rows:,}",
            str(head.features),
            "number" if head.numeric else f"{head.classes} classes",
            "" if head.numeric else f"{head.rarest:.1%}",
        ]
        for name, head in results.heads.items()
    ]
    return table(("stream", "kind", "rows", "features", "label", "rarest class"), rows)


def quality(results: Results, size: int, *, numeric: bool) -> str:
    """A row a stream, a column a learner: mean over seeds, its standard deviation over seeds behind ±."""
    names = [name for name in results.streams(size) if results.heads[name].numeric == numeric]
    return table(
        ("stream", *results.learners),
        [[name, *(_quality(results, name, who, size) for who in results.learners)] for name in names],
    )


def _quality(results: Results, stream: str, who: str, size: int) -> str:
    if (stream, who, size) not in results.cells:
        return ""
    found = [results.values(stream, who, size, measure) for measure in _MEASURES]
    if found[0] is None or found[1] is None:
        return _unfinished(results, stream, who, size)
    if results.heads[stream].numeric:
        return f"{_spread(found[0], '.3f')} / {_spread(found[1], '.3f')}"
    return f"{_spread([100 * v for v in found[0]], '.1f')} / {_spread(found[1], '.3f')}"


def _unfinished(results: Results, stream: str, who: str, size: int) -> str:
    cells = results.cells[stream, who, size].values()
    return f"did not finish ({min(c.scored for c in cells):,} of {max(c.rows for c in cells):,} rows)"


def _spread(values: Sequence[float], form: str) -> str:
    mean = f"{np.mean(values):{form}}"
    return f"{mean} ±{np.std(values, ddof=1):{form}}" if len(values) > 1 else mean


def ranks(results: Results) -> str:
    """Mean ranks of each block size, by kind of stream."""
    rows = []
    for size in results.sizes:
        here = list(results.streams(size))
        classes = [name for name in here if not results.heads[name].numeric]
        groups = {
            "real": [name for name in classes if results.heads[name].real],
            "generators": [name for name in classes if not results.heads[name].real],
            "all": classes,
            "numbers": [name for name in here if results.heads[name].numeric],
        }
        for group, names in groups.items():
            if names:
                first, second = (results.mean_ranks(size, measure, names) for measure in _MEASURES)
                shown = [f"{first[w]:.2f} / {second[w]:.2f}" if w in first else "" for w in results.learners]
                rows.append([f"{size:,}", f"{group} ({len(names)})", *shown])
    return table(("M", "streams", *results.learners), rows)


def verdicts(results: Results) -> str:
    """Wins, ties and losses of ours against each other one."""
    others = [who for who in results.learners if who != OURS]
    rows = []
    for size in results.sizes:
        for measure, what in zip(_MEASURES, ("accuracy, MAE", "log loss, MSE"), strict=True):
            counts = [_count(results, who, size, measure) for who in others]
            rows.append([f"{size:,}", what, *counts])
    return table(("M", "by", *others), rows)


def _count(results: Results, other: str, size: int, measure: Measure) -> str:
    found = [_judged(results, name, other, size, measure)[1] for name in results.streams(size)]
    return " / ".join(str(found.count(verdict)) for verdict in ("win", "tie", "loss"))


def _judged(results: Results, stream: str, other: str, size: int, measure: Measure) -> tuple[Interval | None, str]:
    interval = results.difference(stream, OURS, other, size, measure)
    if interval is None or not np.isfinite(interval.low):
        return interval, ""
    higher = measure == "first" and not results.heads[stream].numeric
    return interval, interval.verdict(higher_is_better=higher)


def differences(results: Results, size: int, measure: Measure) -> str:
    """Every paired difference with its interval, ours less theirs; accuracy in points."""
    others = [who for who in results.learners if who != OURS]
    names = list(results.streams(size))
    return table(
        ("stream", *others), [[n, *(_difference(results, n, w, size, measure) for w in others)] for n in names]
    )


def _difference(results: Results, stream: str, other: str, size: int, measure: Measure) -> str:
    interval, verdict = _judged(results, stream, other, size, measure)
    if interval is None:
        return ""
    points = measure == "first" and not results.heads[stream].numeric
    scale, form = (100.0, "+.1f") if points else (1.0, "+.3f")
    mean, low, high = (f"{scale * v:{form}}" for v in (interval.mean, interval.low, interval.high))
    if not np.isfinite(interval.low):
        return f"{mean} (too short)"
    return f"{verdict} {mean} [{low}, {high}]"


def speed(results: Results) -> str:
    """Seconds a stream and rows a second, forecasting and learning, medians over streams and seeds."""
    rows = []
    for size in results.sizes:
        shown = []
        for who in results.learners:
            cells = [
                c for (_, name, m), them in results.cells.items() if (name, m) == (who, size) for c in them.values()
            ]
            done = [cell for cell in cells if cell.finished and sum(cell.seconds) > 0.0]
            spent = [sum(cell.seconds) for cell in done]
            rate = [cell.rows / sum(cell.seconds) for cell in done]
            shown.append(f"{np.median(spent):,.1f} s, {np.median(rate):,.0f}" if done else "")
        rows.append([f"{size:,}", *shown])
    return table(("M", *results.learners), rows)


def rare(results: Results, below: float = 0.05) -> str:
    """Area under the ROC curve of streams with a rare class, where accuracy says little; empty without one."""
    names = [n for n, head in results.heads.items() if head.classes == 2 and head.rarest < below]
    rows = [
        [name, f"{size:,}", *(_auc(results, name, who, size) for who in results.learners)]
        for name in names
        for size in results.sizes
        if any((name, who, size) in results.cells for who in results.learners)
    ]
    return table(("stream", "M", *results.learners), rows) if rows else ""


def _auc(results: Results, stream: str, who: str, size: int) -> str:
    cells = results.cells.get((stream, who, size), {}).values()
    found = [cell.auc for cell in cells if cell.finished and cell.auc is not None]
    return f"{np.mean(found):.3f}" if found else ""


def syncs(found: Syncs) -> str:
    """AUC, log loss and accuracy for each number of shards, means over seeds."""
    rows = []
    for (stream, shards), by_seed in found.items():
        cells = list(by_seed.values())
        auc = [cell.auc for cell in cells if cell.auc is not None]
        rows.append(
            [
                stream,
                "frozen" if shards == FROZEN else str(shards),
                f"{cells[0].rows if shards == FROZEN else cells[0].rows / shards:,.0f}",
                _spread(auc, ".4f") if auc else "",
                _spread([sum(cell.second) / cell.rows for cell in cells], ".4f"),
                _spread([100 * sum(cell.first) / cell.rows for cell in cells], ".2f"),
            ]
        )
    return table(("stream", "shards", "rows between syncs", "AUC", "log loss", "accuracy %"), rows)
