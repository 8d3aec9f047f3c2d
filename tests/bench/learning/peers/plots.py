"""Draws lines: `python -m … PLOT.json` with `{path, columns, panels: [{title, x, y, lines: [{name, x, y, bold}]}]}`."""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt


def main(path: str) -> None:
    plot: dict[str, Any] = json.loads(Path(path).read_text())
    columns = plot["columns"]
    rows = -(-len(plot["panels"]) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(5.2 * columns, 3.2 * rows), squeeze=False)
    for axis in axes.flat[len(plot["panels"]) :]:
        axis.set_visible(False)
    names: list[str] = list(dict.fromkeys(line["name"] for panel in plot["panels"] for line in panel["lines"]))
    handles: dict[str, Any] = {}
    for axis, panel in zip(axes.flat, plot["panels"], strict=False):
        for line in panel["lines"]:
            style = {"color": f"C{names.index(line['name'])}", "linewidth": 2.2 if line["bold"] else 1.0}
            (handles[line["name"]],) = axis.plot(line["x"], line["y"], zorder=3 if line["bold"] else 2, **style)
        axis.set(title=panel["title"], xlabel=panel["x"], ylabel=panel["y"])
        axis.grid(alpha=0.3)
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    figure.legend(handles.values(), handles.keys(), loc="lower center", ncols=len(handles), frameon=False)
    figure.savefig(plot["path"], dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main(sys.argv[1])
