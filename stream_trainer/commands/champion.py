"""`models promote|rollback|pin|release`: what `championing` does, from the command line."""

import getpass
import os
import socket
from collections.abc import Callable
from typing import Annotated

import typer

from stream_trainer import championing
from stream_trainer.championing import Decided
from stream_trainer.commands.output import AsJson, PipelineAddress, print_json
from stream_trainer.loading import load_pipeline
from stream_trainer.settings import Settings
from stream_trainer.store import ModelStore, Version, open_store

# Settings that name a broker which runs already, None when there is none; set by the front door.
reachable: Callable[[Settings], Settings | None] = lambda settings: (  # noqa: E731
    settings if settings.kafka.bootstrap_servers is not None else None
)

Number = Annotated[int, typer.Argument(metavar="VERSION", help="A version's number.", min=1)]
Older = Annotated[
    int | None,
    typer.Argument(
        metavar="VERSION", help="A version's number; without, the newest good one before the champion.", min=1
    ),
]
Reason = Annotated[str, typer.Option(help="Kept with the decision.")]
Hold = Annotated[bool, typer.Option("--hold", help="Keep it whatever is committed or promoted by the trainer.")]


def promote(
    pipeline: PipelineAddress, version: Number, reason: Reason = "", hold: Hold = False, as_json: AsJson = False
) -> None:
    """Make a version the champion.

    With promotion auto it is held (until `models release`), unless it is the newest one that passed its gates anyway;
    with manual and gated it is not, unless --hold: the trainer may then promote another.
    """
    store = store_of(pipeline)
    _report(store, championing.promote(store, version, by=who(), reason=reason, hold=hold), as_json)


def rollback(pipeline: PipelineAddress, version: Older = None, reason: Reason = "", as_json: AsJson = False) -> None:
    """Serve an older version, and hold it until `models release`.

    Only what serves moves: the trainer goes on learning from its newest version.
    """
    store = store_of(pipeline)
    _report(store, championing.rollback(store, version, by=who(), reason=reason), as_json)


def pin(pipeline: PipelineAddress, version: Number, reason: Reason = "", as_json: AsJson = False) -> None:
    """Serve a version and hold it until `models release`, whatever is committed."""
    store = store_of(pipeline)
    _report(store, championing.pin(store, version, by=who(), reason=reason), as_json)


def release(pipeline: PipelineAddress, reason: Reason = "", as_json: AsJson = False) -> None:
    """End a hold: versions become champion again as the trainer's promotion mode says."""
    store = store_of(pipeline)
    _report(store, championing.release(store, by=who(), reason=reason), as_json)


_EXAMPLE = "Example: stream-trainer models {0} examples.flights.pipeline:pipeline{1}"
_COMMANDS: dict[Callable[..., None], str] = {
    promote: " 42 --reason 'better on the holdout'",
    rollback: " --reason 'answers look wrong'",
    pin: " 42",
    release: "",
}


def add_to(app: typer.Typer) -> None:
    """Make these commands of the group `models`."""
    for command, arguments in _COMMANDS.items():
        app.command(command.__name__, epilog=_EXAMPLE.format(command.__name__, arguments))(command)


def store_of(address: str) -> ModelStore:
    """The store of the pipeline at an address."""
    return open_store(Settings(), load_pipeline(address).name)


def who() -> str:
    """The person who runs this command, and where."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def tell(pipeline: str, alias: str, version: Version | None, entry: int) -> str | None:
    """See `championing.tell`, by the broker that is configured or runs."""
    settings = reachable(Settings())
    return championing.tell(None if settings is None else settings.kafka, pipeline, alias, version, entry)


def _report(store: ModelStore, decided: Decided, as_json: bool) -> None:
    settings = reachable(Settings())
    told, problem = championing.outcome(store, decided, None if settings is None else settings.kafka)
    if as_json:
        print_json(told)
        return
    if told["champion"] is None:
        typer.echo(f"no version of {store.describe()} is champion yet")
        return
    typer.echo(f"version {told['champion']} of {store.describe()} is champion, {told['until']}")
    typer.echo("serving was told" if problem is None else f"serving follows at its next look at the store: {problem}")
