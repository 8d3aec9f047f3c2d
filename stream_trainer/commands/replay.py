"""`replay`: rebuild a version from the log, and say whether it is bit for bit what was committed."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from stream_trainer.commands import connecting
from stream_trainer.commands.output import AsJson, PipelineAddress, print_fields, print_json
from stream_trainer.errors import NoVersion
from stream_trainer.loading import load_pipeline
from stream_trainer.settings import Settings
from stream_trainer.store import open_store

if TYPE_CHECKING:
    from stream_trainer.replay import Progress, Replay


def replay(
    pipeline: PipelineAddress,
    to: Annotated[
        int | None, typer.Option(metavar="VERSION", help="The version to rebuild; the newest without.", min=1)
    ] = None,
    start: Annotated[
        int | None,
        typer.Option("--from", metavar="VERSION", help="Begin with the stored state of this parent of it.", min=1),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Rebuild a version from the log, with its parents, and compare every byte with what was committed.

    Reads exactly the offsets that the manifests name; needs no Spark. Exit codes: 0 identical, 1 something differs,
    2 usage, 4 records are gone, 5 the store is damaged.
    """
    found = load_pipeline(pipeline)
    settings = connecting.connect(Settings())
    store = open_store(settings, found.name)
    number = to if to is not None else store.highest()
    if number == 0:
        raise NoVersion(f"{store.describe()} has no versions yet: `stream-trainer train {pipeline}` makes them")
    from stream_trainer.log_reader import LogReader  # noqa: PLC0415 - the front door imports no torch
    from stream_trainer.replay import replay as run  # noqa: PLC0415

    with LogReader(found.contract, settings.kafka) as reader, _shown() as progress:
        report = run(found, store, reader.read, to=number, start=start, check=reader.check, progress=progress)
    if as_json:
        print_json(report)
    else:
        _print(report)
    if not report.identical:
        raise typer.Exit(1)


@contextmanager
def _shown() -> "Iterator[Callable[[Progress], None]]":
    """A bar on standard error that goes away at the end."""
    console = Console(stderr=True)
    columns = (
        TextColumn("replaying version {task.fields[version]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rows]:,} rows"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None, version="…", rows=0)
        yield lambda p: bar.update(task, completed=p.done, total=p.of, version=p.version, rows=p.rows)


def _print(report: "Replay") -> None:
    difference = report.first_difference
    if difference is None:
        begun = f" from the state of version {report.start}" if report.start else ""
        count = report.versions - 1
        parents = f" and of {count} before it" if count else ""
        typer.echo(
            f"identical: every byte of version {report.to} of {report.pipeline}{parents} is what the log gives; rebuilt{begun} "
            f"from {report.rows:,} rows"
        )
        for change in report.environment:
            typer.echo(f"  although {change}")
        return
    before = f"; the {report.versions - 1} before it are identical" if report.versions > 1 else ""
    typer.echo(f"different: version {difference.version} of {report.pipeline} is not what the log gives{before}")
    print_fields(list(_rows_of(report)))


def _rows_of(report: "Replay") -> "Iterator[tuple[str, Any]]":
    difference = report.first_difference
    if difference is None:
        return
    for i, reason in enumerate(difference.reasons):
        yield ("because" if i == 0 else "", reason)
    for i, name in enumerate(difference.files):
        yield ("files" if i == 0 else "", name)
    tensor = difference.tensor
    if tensor is not None:
        count = "shape or type" if tensor.elements is None else f"{tensor.elements:,} of {tensor.of:,} elements"
        largest = "" if tensor.largest is None else f", by at most {tensor.largest:.3g}"
        yield "tensor", f"{tensor.name}: {count} differ{largest}"
    for field in difference.fields:
        if field.name != "metrics":
            yield field.name, f"committed {json.dumps(field.recorded)}, rebuilt {json.dumps(field.replayed)}"
