"""How commands print: one JSON document with `--json`, else a table."""

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

_PLAIN_WIDTH = 160

PipelineAddress = Annotated[
    str, typer.Argument(metavar="PIPELINE", help="module:attribute, such as examples.flights.pipeline:pipeline")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    typer.echo(msgspec.json.encode(msgspec.to_builtins(value, str_keys=True)).decode())


def print_table(headings: Sequence[str], rows: Sequence[Sequence[Any]], *, cut: str | None = None) -> None:
    """Rows under headings, folded to the terminal; into a file or a pipe they may be wide. The column `cut` is one line."""
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    _print(table, rows, cut=None if cut is None else headings.index(cut))


def print_fields(rows: Sequence[tuple[str, Any]]) -> None:
    """A name and a value a line, without headings."""
    table = Table.grid("name", "value", padding=(0, 2))
    table.columns[1].overflow = "fold"
    _print(table, rows)


def _print(table: Table, rows: Sequence[Sequence[Any]], *, cut: int | None = None) -> None:
    for row in rows:
        # As `Text`, because a value with brackets is no markup.
        cells = [Text("" if cell is None else str(cell)) for cell in row]
        if cut is not None:
            cells[cut].no_wrap, cells[cut].overflow = True, "ellipsis"
        table.add_row(*cells)
    Console(width=None if sys.stdout.isatty() else _PLAIN_WIDTH).print(table)
