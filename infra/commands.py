"""The commands about this machine: `broker`, `setup` and `doctor`, mounted by the front door."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from infra import broker as local_broker
from infra.doctor import Check, examine
from infra.jars import ROOTS, ensure_jars, installed
from infra.java import find_java
from stream_trainer.errors import StreamTrainerError
from stream_trainer.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Commands about this machine.")
broker_app = typer.Typer(no_args_is_help=True, help="A local single-node Kafka for development.")
app.add_typer(broker_app, name="broker")

DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Folder of the broker's data.", show_default="per user")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@broker_app.command("start", epilog="Example: stream-trainer broker start --data-dir ./kafka")
def broker_start(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Start the local Kafka and wait until it works; if it runs already, say where."""
    settings = Settings()
    folder = data_dir or settings.broker_dir
    info = local_broker.status(folder)
    if info is None:
        java = find_java(settings.cache_dir)
        jars = ensure_jars(settings, "kafka", report=_progress)
        _progress(f"starting Kafka in {folder}")
        info = local_broker.start(folder, java, jars)
    _print_broker(info, as_json=as_json)


@broker_app.command("stop", epilog="Example: stream-trainer broker stop")
def broker_stop(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Stop the local Kafka; its data stays."""
    folder = data_dir or Settings().broker_dir
    stopped = local_broker.stop(folder)
    if as_json:
        typer.echo(json.dumps({"stopped": stopped}))
    else:
        typer.echo(f"stopped the broker of {folder}" if stopped else f"no broker runs on {folder}")


@broker_app.command("status", epilog="Example: stream-trainer broker status --json")
def broker_status(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Say whether the local Kafka runs, and where; exit code 1 when it does not."""
    folder = data_dir or Settings().broker_dir
    info = local_broker.status(folder)
    if info is None:
        missing = f"no broker runs on {folder}: start it with `stream-trainer broker start`"
        typer.echo(json.dumps({"running": False, "bootstrap_servers": None}) if as_json else missing)
        raise typer.Exit(1)
    _print_broker(info, as_json=as_json)


@app.command("setup", epilog="Example: stream-trainer setup")
def setup() -> None:
    """Find a Java and fetch the jars of Kafka and Spark; silent when all is there already."""
    settings = Settings()
    missing = [which for which in ROOTS if not installed(settings, which)]
    java = find_java(settings.cache_dir)
    if missing:
        _progress(f"Java {java.version} from {java.source}")
    for which in missing:
        ensure_jars(settings, which, report=_progress)
    if missing:
        _progress("ready: try `stream-trainer doctor`")


@app.command("doctor", epilog="Example: stream-trainer doctor --json")
def doctor(as_json: AsJson = False) -> None:
    """Show what this machine has, what is missing and how to get it; exit code 1 when something required is missing."""
    checks = examine(Settings())
    if as_json:
        typer.echo(json.dumps([asdict(check) for check in checks]))
    else:
        Console().print(_table(checks))
    if any(check.required and not check.ok for check in checks):
        raise typer.Exit(1)


def _table(checks: list[Check]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("", "what", "found", "how to get it"):
        table.add_column(heading, overflow="fold")
    for check in checks:
        mark = "[green]ok[/]" if check.ok else "[red]missing[/]" if check.required else "[yellow]optional[/]"
        table.add_row(mark, check.name, check.found, "" if check.ok else check.remedy)
    return table


def _print_broker(info: local_broker.BrokerInfo, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"running": True, **asdict(info)}, default=str))
    else:
        typer.echo(f"Kafka at {info.bootstrap_servers} (process {info.pid}, data in {info.folder}, log {info.log})")


def _progress(line: str) -> None:
    typer.echo(line, err=True)


if __name__ == "__main__":
    try:
        app()
    except StreamTrainerError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
