"""`models report`: how good the forecasts were, on the terminal, as PNG files and as one HTML page."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stream_trainer.commands.output import AsJson, print_json, print_table
from stream_trainer.errors import Corrupt, StoreDamaged, UsageError
from stream_trainer.loading import load_pipeline
from stream_trainer.settings import Settings
from stream_trainer.store import open_store
from stream_trainer.topics import is_name

if TYPE_CHECKING:
    from stream_trainer.reporting.curves import Evaluation

PAGE = "report.html"

Named = Annotated[
    str,
    typer.Argument(
        metavar="PIPELINE|NAME",
        help="module:attribute, or only the pipeline's name, as its folder in the store is called",
    ),
]


def report(
    pipeline: Named,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FOLDER", help="Write report.html and a PNG file a plot here.", file_okay=False),
    ] = None,
    points: Annotated[
        int, typer.Option(help="At most so many versions are points of a curve, evenly spread.", min=2)
    ] = 500,
    as_json: AsJson = False,
) -> None:
    """Show how good the forecasts were, trained and served, beside both baselines; with --out also as plots."""
    from stream_trainer.reporting import curves  # noqa: PLC0415 - it needs torch

    store = open_store(Settings(), _name(pipeline))
    try:
        found = curves.read(store, most=points)
    except Corrupt as error:
        raise StoreDamaged(f"{error}; `stream-trainer models verify` says what else is damaged") from error
    written = [] if out is None else _write(found, out)
    if as_json:
        print_json(_described(found, written))
    else:
        _print(found, written)


def _name(pipeline: str) -> str:
    if ":" in pipeline:
        return load_pipeline(pipeline).name
    if not is_name(pipeline):
        raise UsageError(f"{pipeline!r} is neither module:attribute nor a pipeline's name")
    return pipeline


def _write(found: "Evaluation", out: Path) -> list[Path]:
    from stream_trainer.reporting.page import page  # noqa: PLC0415 - drawing is for those who ask for it
    from stream_trainer.reporting.png import images  # noqa: PLC0415

    out.mkdir(parents=True, exist_ok=True)
    written = []
    for name, data in {PAGE: page(found, datetime.now(UTC)).encode(), **images(found)}.items():
        (out / name).write_bytes(data)
        written.append(out / name)
    return written


def _described(found: "Evaluation", written: list[Path]) -> dict[str, Any]:
    from stream_trainer.evaluation.scores import WINDOW  # noqa: PLC0415
    from stream_trainer.reporting.plots import summary  # noqa: PLC0415

    newest = found.newest
    return {
        "pipeline": found.pipeline,
        "version": newest.version,
        "events": newest.events,
        "task": found.task,
        "window": WINDOW,
        "summary": summary(found),
        "scores": found.scores,
        "calibration": found.calibration,
        "points": found.points,
        "champions": found.marks,
        "files": [str(path) for path in written],
    }


def _print(found: "Evaluation", written: list[Path]) -> None:
    from stream_trainer.reporting.plots import NAMES, SHORT, label, number, segment_rows, summary  # noqa: PLC0415

    newest = found.newest
    typer.echo(f"{found.pipeline} through version {newest.version}, {newest.events:,} labelled rows learned")
    print_table(
        ("forecast", "forecaster", "rows", *(SHORT.get(m, m) for m in found.metrics)),
        [
            (row["forecast"], NAMES[row["forecaster"]], row["rows"], *(number(row[m]) for m in found.metrics))
            for row in summary(found)
        ],
    )
    loss = found.metrics[0]
    rows = [
        (label(r.segment), label(r.value), r.forecast, r.rows, *(number(r.scores.get(f, {}).get(loss)) for f in NAMES))
        for r in segment_rows(found)
    ]
    if rows:
        typer.echo(f"\n{SHORT.get(loss, loss)} per segment")
        print_table(("segment", "value", "forecast", "rows", *NAMES.values()), rows)
    for path in written:
        typer.echo(f"wrote {path}")
