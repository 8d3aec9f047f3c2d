"""The report as one HTML page that needs nothing else: plotly.js, the data and the styles are in it.

It never asks the network for anything, and its content policy forbids it to. What comes from the data is text, never
markup: values of segments are whatever producers sent.
"""

import base64
import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.resources import files
from string import Template
from typing import Any

import msgspec

from stream_trainer.evaluation.scores import FORECASTERS, WINDOW
from stream_trainer.evaluation.table import SERVED, TRAINED
from stream_trainer.reporting.curves import Evaluation
from stream_trainer.reporting.plots import (
    NAMES,
    SHORT,
    Curves,
    Diagram,
    curves,
    diagrams,
    label,
    number,
    segment_rows,
    summary,
)

_FORECASTS = {TRAINED: "trained", SERVED: "served"}


def page(found: Evaluation, made_at: datetime) -> str:
    """The page.

    Args:
        found: what it tells.
        made_at: when it is made, UTC.
    """
    shown_curves, shown_diagrams = curves(found), diagrams(found)
    plotly = (files("plotly") / "package_data" / "plotly.min.js").read_text("utf-8")
    script = _part("page.js")
    newest = found.newest
    return Template(_part("page.html")).substitute(
        policy=f"script-src {_hash(plotly)} {_hash(script)}",
        css=_part("page.css"),
        pipeline=html.escape(label(found.pipeline)),
        version=newest.version,
        events=f"{newest.events:,}",
        created=f"{newest.created_at:%Y-%m-%d %H:%M:%S} UTC",
        made=f"{made_at:%Y-%m-%d %H:%M} UTC",
        window=f"{WINDOW:,}",
        summary=_summary(found),
        curves="".join(_curve_section(curve, i) for i, curve in enumerate(shown_curves)),
        calibration=_calibration_section(shown_diagrams),
        segments=_segments(found),
        marks=_marks(found),
        data=_embedded({"curves": shown_curves, "diagrams": shown_diagrams}),
        plotly=plotly,
        script=script,
    )


def _part(name: str) -> str:
    return (files("stream_trainer.reporting") / name).read_text("utf-8")


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _embedded(value: Any) -> str:
    """JSON that cannot end the element it stands in."""
    text = json.dumps(msgspec.to_builtins(value), allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("&", "\\u0026")


def _summary(found: Evaluation) -> str:
    rows = [
        [_FORECASTS[row["forecast"]], NAMES[row["forecaster"]], f"{row['rows']:,}"]
        + [number(row[metric]) for metric in found.metrics]
        for row in summary(found)
    ]
    return _table(["forecast", "forecaster", "rows", *(SHORT.get(m, m) for m in found.metrics)], rows, words=2)


def _curve_section(curve: Curves, place: int) -> str:
    divs = "".join(_plot(f"curve-{place}-{i}", panel.title) for i, panel in enumerate(curve.panels))
    return f'<section><h2>{curve.title} <small>{curve.better}</small></h2><div class="panels">{divs}</div></section>'


def _plot(name: str, title: str, kind: str = "plot") -> str:
    return f'<figure><figcaption>{html.escape(title)}</figcaption><div class="{kind}" id="{name}"></div></figure>'


def _calibration_section(shown: Sequence[Diagram]) -> str:
    if not shown:
        return ""
    divs = "".join(_plot(f"diagram-{i}", f"{d.title}; ECE {d.ece:.4f}", "plot tall") for i, d in enumerate(shown))
    return (
        "<section><h2>Calibration <small>of what was forecast, how much came true; bars count rows</small></h2>"
        f'<div class="panels">{divs}</div></section>'
    )


def _segments(found: Evaluation) -> str:
    rows = segment_rows(found)
    if not rows:
        return ""
    heads = ["segment", "value", "forecast", "rows"]
    heads += [f"{SHORT.get(m, m)}, {NAMES[f]}" for m in found.metrics for f in FORECASTERS]
    body = []
    for row in rows:
        scores = [row.scores.get(f, {}).get(m) for m in found.metrics for f in FORECASTERS]
        names = [label(row.segment), label(row.value), _FORECASTS.get(row.forecast, "")]
        body.append([*names, f"{row.rows:,}", *(number(score) for score in scores)])
    return (
        "<section><h2>Per segment <small>the most frequent values with enough rows in the window</small></h2>"
        f"{_table(heads, body, words=3)}</section>"
    )


def _marks(found: Evaluation) -> str:
    if not found.marks:
        return ""
    rows = [[label(mark.text), f"{mark.events:,}"] for mark in found.marks]
    return (
        "<section><h2>Champions <small>decisions, by the rows learned when they were made</small></h2>"
        f"{_table(['decision', 'rows learned'], rows, words=1)}</section>"
    )


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, words: int) -> str:
    """The first `words` columns are text, the others numbers."""

    def cells(tag: str, values: Sequence[str]) -> str:
        kinds: Mapping[bool, str] = {True: "", False: ' class="number"'}
        return "".join(f"<{tag}{kinds[i < words]}>{html.escape(v)}</{tag}>" for i, v in enumerate(values))

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{cells("th", heads)}</tr></thead><tbody>{body}</tbody></table></div>'
