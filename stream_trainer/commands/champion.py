"""`models promote|rollback|pin|release`: a person decides which version serves.

Each appends one entry to the alias `champion`, and tells serving at once when a broker can be reached.
"""

import getpass
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import typer

from stream_trainer.commands.output import AsJson, PipelineAddress, print_json
from stream_trainer.errors import Corrupt, NoVersion, StoreDamaged, UsageError
from stream_trainer.loading import load_pipeline
from stream_trainer.settings import Settings
from stream_trainer.store import ModelStore, Version, open_store
from stream_trainer.store.aliases import CHAMPION, Alias, Entry, champion_of

TRIES = 5

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


@dataclass(frozen=True, slots=True)
class Decided:
    """An entry that was appended; `number` is its own."""

    number: int
    alias: Alias


def promote(
    pipeline: PipelineAddress, version: Number, reason: Reason = "", hold: Hold = False, as_json: AsJson = False
) -> None:
    """Make a version the champion.

    With promotion auto it is held (until `models release`), unless it is the newest one that passed its gates anyway;
    with manual and gated it is not, unless --hold: the trainer may then promote another.
    """
    store = store_of(pipeline)
    usable(store, version)

    def decide(alias: Alias | None) -> Alias:
        follows = _mode_of(alias) != "auto" or version == store.newest_passed()
        return _said(version, alias, reason or "promoted", hold=hold or not follows)

    _report(store, _append(store, decide), as_json)


def rollback(pipeline: PipelineAddress, version: Older = None, reason: Reason = "", as_json: AsJson = False) -> None:
    """Serve an older version, and hold it until `models release`.

    Only what serves moves: the trainer goes on learning from its newest version.
    """
    store = store_of(pipeline)
    if version is not None:
        usable(store, version)

    def decide(alias: Alias | None) -> Alias:
        chosen = version if version is not None else _before(store, alias)
        return _said(chosen, alias, reason or "rolled back", hold=True)

    _report(store, _append(store, decide), as_json)


def pin(pipeline: PipelineAddress, version: Number, reason: Reason = "", as_json: AsJson = False) -> None:
    """Serve a version and hold it until `models release`, whatever is committed."""
    store = store_of(pipeline)
    usable(store, version)
    decided = _append(store, lambda alias: _said(version, alias, reason or "pinned", hold=True))
    _report(store, decided, as_json)


def release(pipeline: PipelineAddress, reason: Reason = "", as_json: AsJson = False) -> None:
    """End a hold: versions become champion again as the trainer's promotion mode says."""
    store = store_of(pipeline)
    _, alias = newest_entry(store)
    if alias is None or not alias.hold:
        raise UsageError(f"{store.describe()}: nothing is held, so there is nothing to release")

    def decide(alias: Alias | None) -> Alias:
        kept = alias.version if alias is not None else None
        return _said(kept or store.newest_passed(), alias, reason or "released", hold=False)

    _report(store, _append(store, decide), as_json)


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


def usable(store: ModelStore, number: int) -> Version:
    """The version, after making sure that it may be served.

    Raises:
        UsageError: there is none of this number, it failed its gates, or retention has deleted its data.
        StoreDamaged: it is not what was committed.
    """
    where = f"version {number} of {store.describe()}"
    try:
        version = store.read(number)
        if not version.manifest.passed:
            failed = "; ".join(f"{v.gate}: {v.detail}" for v in version.manifest.gates if not v.passed)
            raise UsageError(f"{where} did not pass its gates ({failed}): choose one that did")
        if store.pruned(number):
            raise UsageError(f"{where} has no data any more: retention has deleted it; choose a newer one")
        return store.verify(number)
    except NoVersion as error:
        raise UsageError(f"{where} does not exist: `stream-trainer models list` shows which do") from error
    except Corrupt as error:
        raise StoreDamaged(f"{where} cannot be served: {error}; choose another version") from error


def _before(store: ModelStore, alias: Alias | None) -> int:
    """The newest version before the champion that may be served."""
    number = champion_of(alias, store.newest_passed)
    while number is not None:
        number = store.newest_passed(before=number)
        if number is None:
            break
        try:
            return usable(store, number).number
        except (UsageError, StoreDamaged):
            continue
    raise UsageError(f"{store.describe()} has no usable version before its champion: nothing to roll back to")


def newest_entry(store: ModelStore) -> Entry:
    """The newest entry of the champion; a damaged one is passed over with a warning: it must not keep a person from deciding."""
    number = store.aliases.newest_number(CHAMPION)
    for older in range(number, 0, -1):
        try:
            return Entry(number, store.aliases.read(CHAMPION, older))
        except Corrupt as error:
            typer.echo(f"warning: {error}", err=True)
    return Entry(number, None)


def _append(store: ModelStore, decide: Callable[[Alias | None], Alias]) -> Decided:
    """Decide on the newest entry, again when somebody else was faster."""
    for _ in range(TRIES):
        number, alias = newest_entry(store)
        wanted = decide(alias)
        appended = store.set_alias(CHAMPION, wanted, number)
        if appended is not None:
            return Decided(appended, wanted)
    raise UsageError(f"the champion of {store.describe()} is being set by others all the time: look, and try again")


def _said(version: int | None, alias: Alias | None, reason: str, *, hold: bool) -> Alias:
    return Alias(version=version, reason=reason, by=who(), at=datetime.now(UTC), hold=hold, promotion=_mode_of(alias))


def _mode_of(alias: Alias | None) -> Any:
    return alias.promotion if alias is not None else "auto"


def who() -> str:
    """The person who runs this command, and where."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def _report(store: ModelStore, decided: Decided, as_json: bool) -> None:
    champion = store.champion_by(decided.alias)
    problem = tell(store.pipeline, CHAMPION, champion, decided.number) if champion is not None else None
    if as_json:
        print_json(
            {
                **msgspec.to_builtins(decided.alias),
                "alias": decided.number,
                "champion": champion.number if champion is not None else None,
                "until": _until(decided.alias),
                "announced": champion is not None and problem is None,
            }
        )
        return
    if champion is None:
        typer.echo(f"no version of {store.describe()} is champion yet")
        return
    typer.echo(f"version {champion.number} of {store.describe()} is champion, {_until(decided.alias)}")
    typer.echo("serving was told" if problem is None else f"serving follows at its next look at the store: {problem}")


def _until(alias: Alias) -> str:
    if alias.hold:
        return "held until `models release` or another decision"
    return {
        "auto": "until the next version passes its gates",
        "manual": "until somebody promotes another one",
        "gated": "until the trainer finds a newer one that does well enough, or somebody promotes another one",
    }[alias.promotion]


def tell(pipeline: str, alias: str, version: Version | None, entry: int) -> str | None:
    """Tell those who follow `P.models`; why that was not possible, None when it was. Never starts a broker."""
    settings = reachable(Settings())
    if settings is None:
        return "no Kafka is configured and the local one does not run"
    from stream_trainer.announcing import announce  # noqa: PLC0415 - a second, for those who need it

    return announce(settings.kafka, pipeline, alias, version, entry, datetime.now(UTC))
