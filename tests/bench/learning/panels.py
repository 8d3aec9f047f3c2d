"""What is drawn, as plain values: accuracy over time, and quality against the sync interval."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.bench.learning.protocol import Cell
from tests.bench.learning.results import Results
from tests.bench.learning.scores import CHUNK
from tests.bench.learning.syncing import FROZEN

_WINDOW = 8  # chunks
_SHOWN = ("electricity", "weather", "flights", "agrawal-abrupt", "rbf-drift", "stagger-abrupt", "hyperplane", "wide")
_MOST = 6

Syncs = Mapping[tuple[str, int], Mapping[int, Cell]]


def over_time(results: Results, size: int, bold: str) -> list[dict[str, Any]]:
    """Accuracy over a sliding window, mean over seeds; up to six streams, those of `_SHOWN` first."""
    here = [name for name in results.streams(size) if not results.heads[name].numeric]
    order = [*(n for n in _SHOWN if n in here), *(n for n in here if n not in _SHOWN)]
    return [
        {
            "title": f"{stream}, M = {size}",
            "x": "rows",
            "y": f"accuracy, last {_WINDOW * CHUNK:,} rows",
            "lines": [
                _line(results, stream, who, size) | {"bold": who == bold}
                for who in results.learners
                if results.values(stream, who, size, "first") is not None
            ],
        }
        for stream in order[:_MOST]
    ]


def _line(results: Results, stream: str, who: str, size: int) -> dict[str, Any]:
    cells = list(results.cells[stream, who, size].values())
    hits = np.mean([cell.first for cell in cells], axis=0)
    full = cells[0].rows // CHUNK
    total = np.concatenate([[0.0], np.cumsum(hits[:full])])
    ends = np.arange(1, full + 1)
    begins = np.maximum(ends - _WINDOW, 0)
    accuracy = (total[ends] - total[begins]) / ((ends - begins) * CHUNK)
    return {"name": who, "x": (ends * CHUNK).tolist(), "y": accuracy.tolist()}


def of_syncs(syncs: Syncs) -> list[dict[str, Any]]:
    """Log loss against the number of shards, beside weights that are never replaced."""
    found = []
    for stream in dict.fromkeys(name for name, _ in syncs):
        losses = {shards: _loss(cells) for (name, shards), cells in syncs.items() if name == stream}
        online = sorted(shards for shards in losses if shards != FROZEN)
        lines = [{"name": "online, synced", "x": online, "y": [losses[s] for s in online], "bold": True}]
        if FROZEN in losses:
            lines.append({"name": "frozen", "x": online, "y": [losses[FROZEN]] * len(online), "bold": False})
        found.append({"title": stream, "x": "shards (syncs)", "y": "log loss", "lines": lines})
    return found


def _loss(cells: Mapping[int, Cell]) -> float:
    return float(np.mean([sum(cell.second) / cell.rows for cell in cells.values()]))
