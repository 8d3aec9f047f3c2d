"""The plots as PNG files, by matplotlib; the only file that imports it. No window, no state of its own between calls."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, MaxNLocator

from stream_trainer.evaluation.scores import FORECASTERS
from stream_trainer.reporting.curves import Evaluation
from stream_trainer.reporting.plots import (
    NAMES,
    PANELS,
    SHORT,
    Curves,
    Diagram,
    SegmentRow,
    curves,
    diagrams,
    label,
    segment_rows,
)

# Okabe and Ito's colours, which people with any colour vision tell apart.
COLOURS = {"model": "#0072B2", "no_change": "#E69F00", "majority": "#7A7A7A", "trained": "#0072B2"}
_WIDTHS = {"model": 2.0, "no_change": 1.3, "majority": 1.3, "trained": 1.2}
_STYLES = {"trained": ":"}
_MARKERS = {"model": "o", "no_change": "D", "majority": "s"}
_DPI = 150
_MOST_VALUES = 30
_SOFT = "#555555"


def images(found: Evaluation) -> dict[str, bytes]:
    """PNG files by name: a curve a score, `calibration` unless labels are numbers, `segments` if there are any."""
    with _any_letters():
        made = {curve.name: _png(_curves(found, curve)) for curve in curves(found)}
        if shown := diagrams(found):
            made["calibration"] = _png(_diagrams(found, shown))
        if rows := segment_rows(found):
            made["segments"] = _png(_segments(found, rows))
    return {f"{name}.png": data for name, data in made.items()}


def _curves(found: Evaluation, curve: Curves) -> Figure:
    figure, axes = _figure(found, f"{curve.title} ({curve.better})", len(curve.panels), height=4.2)
    for ax, panel in zip(axes, curve.panels, strict=True):
        for line in panel.lines:
            y = [float("nan") if value is None else value for value in line.y]
            marker = "o" if len(y) == 1 else None
            ax.plot(
                line.x,
                y,
                label=line.name,
                color=COLOURS[line.role],
                linewidth=_WIDTHS[line.role],
                linestyle=_STYLES.get(line.role, "-"),
                marker=marker,
            )
        ax.set_title(panel.title, fontsize=10, loc="left")
        ax.set_xlim(*curve.x_range)
        ax.set_ylim(*curve.y_range)
        ax.set_xlabel("labelled rows learned")
        ax.xaxis.set_major_formatter(EngFormatter(sep=""))
        ax.xaxis.set_major_locator(MaxNLocator(6))
        _mark(ax, curve)
    axes[0].set_ylabel(curve.title)
    handles, names = axes[-1].get_legend_handles_labels()
    version = Line2D([], [], color=_SOFT, marker="|", linestyle="", markersize=7)
    failed = Line2D([], [], color="#C0392B", marker="x", linestyle="", markersize=6)
    extra = [(version, "a version"), (failed, "failed its gates")][: 2 if curve.failed else 1]
    if curve.marks:
        extra.append((Line2D([], [], color=_SOFT, linestyle="--", linewidth=0.9), "champion decided"))
    figure.legend(
        [*reversed(handles), *(handle for handle, _ in extra)],
        [*reversed(names), *(name for _, name in extra)],
        loc="outside lower center",
        ncols=7,
        frameon=False,
        fontsize=9,
    )
    return figure


def _mark(ax: Axes, curve: Curves) -> None:
    """Versions as ticks along the bottom, decisions about the champion as lines with what they name."""
    low, high = curve.y_range
    ax.plot(curve.ticks, [low] * len(curve.ticks), "|", color=_SOFT, markersize=6, alpha=0.6, clip_on=False)
    if curve.failed:
        ax.plot(curve.failed, [low] * len(curve.failed), "x", color="#C0392B", markersize=6, clip_on=False)
    for mark in curve.marks:
        ax.axvline(mark.events, color=_SOFT, linestyle="--", linewidth=0.9, zorder=0)
        if mark.version is not None:
            ax.annotate(
                f"v{mark.version}",
                (mark.events, high),
                xytext=(2, -2),
                textcoords="offset points",
                fontsize=7,
                color=_SOFT,
                va="top",
            )


def _diagrams(found: Evaluation, shown: Sequence[Diagram]) -> Figure:
    figure, axes = _figure(found, "Calibration: of what was forecast, how much came true", len(shown), height=5.2)
    most = max(b.rows for diagram in shown for b in diagram.bins)
    for ax, diagram in zip(axes, shown, strict=True):
        x, y = [b.forecast for b in diagram.bins], [b.frequency for b in diagram.bins]
        ax.plot([0, 1], [0, 1], color=_SOFT, linestyle="--", linewidth=1, label="perfect")
        ax.plot(x, y, marker="o", color=COLOURS["model"], linewidth=1.8, label="model", zorder=3)
        ax.set_title(f"{diagram.title}\nECE {diagram.ece:.4f}", fontsize=10, loc="left")
        ax.set_xlim(-0.02, 1.02)
        ax.set_ylim(-0.02, 1.02)
        ax.set_xlabel("forecast probability")
        counts = ax.twinx()
        counts.set_zorder(-1)
        ax.patch.set_visible(False)
        for b in diagram.bins:
            counts.bar(b.low, b.rows, width=(b.high - b.low) * 0.92, align="edge", color="#C9DCEB")
        counts.set_ylim(0, most * 3)  # the lower third: the line is what is to be read
        counts.set_yticks([0, most])
        counts.tick_params(labelsize=8, colors=_SOFT)
        counts.set_ylabel("rows in the bin", fontsize=8, color=_SOFT, loc="bottom")
        for side in ("top", "right", "left"):
            counts.spines[side].set_visible(False)
        ax.legend(loc="upper left", frameon=False, fontsize=9)
    axes[0].set_ylabel("came true")
    return figure


def _segments(found: Evaluation, rows: Sequence[SegmentRow]) -> Figure:
    metric = found.metrics[0]
    shown = [f for f in found.forecasts if any(r.forecast == f for r in rows)]
    keys = list(dict.fromkeys((r.segment, r.value) for r in rows))[:_MOST_VALUES]
    counts = {(r.segment, r.value, r.forecast): r for r in rows}
    figure, axes = _figure(
        found, f"{SHORT.get(metric, metric)} per segment (lower is better)", len(shown), height=1.9 + 0.27 * len(keys)
    )
    for ax, forecast in zip(axes, shown, strict=True):
        for place, key in enumerate(keys):
            row = counts.get((*key, forecast))
            scores = {} if row is None else {f: row.scores.get(f, {}).get(metric) for f in FORECASTERS}
            there = {name: score for name, score in scores.items() if score is not None}
            if there:
                ax.plot(
                    [min(there.values()), max(there.values())], [place, place], color="#D0D0D0", linewidth=1.5, zorder=1
                )
            for name in reversed(FORECASTERS):
                if name in there:
                    ax.plot(there[name], place, _MARKERS[name], color=COLOURS[name], markersize=6, zorder=2)
        ax.set_title(PANELS[forecast], fontsize=10, loc="left")
        ax.set_ylim(len(keys) - 0.5, -0.5)
        ax.set_xlabel(SHORT.get(metric, metric))
    names = [f"{label(segment)} = {label(value)}" for segment, value in keys]
    axes[0].set_yticks(range(len(keys)), names, fontsize=8, parse_math=False)
    handles = [Line2D([], [], marker=_MARKERS[n], color=COLOURS[n], linestyle="", label=NAMES[n]) for n in FORECASTERS]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def _figure(found: Evaluation, title: str, panels: int, *, height: float) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(10.5 if panels > 1 else 7.0, height), dpi=_DPI, layout="constrained")
    axes: list[Axes] = list(figure.subplots(1, panels, squeeze=False, sharey=True)[0])
    figure.suptitle(
        f"{label(found.pipeline)}, version {found.newest.version}: {title}",
        fontsize=11,
        x=0.01,
        ha="left",
        parse_math=False,
    )
    for ax in axes:
        ax.sharex(axes[0])
        ax.grid(visible=True, color="#E6E6E6", linewidth=0.7)
        ax.set_axisbelow(True)
        for side in ("top", "right"):
            ax.spines[side].set_visible(False)
        ax.tick_params(labelsize=9)
    return figure, axes


def _png(figure: Figure) -> bytes:
    out = BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


@contextmanager
def _any_letters() -> Iterator[None]:
    """A segment's value may have letters that the font lacks: a box is drawn for them, and that is enough."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield
