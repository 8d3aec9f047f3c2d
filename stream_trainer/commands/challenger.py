"""`models challenge|withdraw`: a person puts a second fixed version beside the champion, or takes it away.

Each appends one entry to the alias `challenger`, and tells serving at once when a broker can be reached.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from stream_trainer import championing
from stream_trainer.commands import champion
from stream_trainer.commands.champion import Number, Reason
from stream_trainer.commands.output import AsJson, PipelineAddress, print_json
from stream_trainer.deciding import append
from stream_trainer.errors import Corrupt, NoVersion, UsageError
from stream_trainer.loading import load_pipeline
from stream_trainer.settings import Settings
from stream_trainer.store import ModelStore, Version, open_store
from stream_trainer.store.aliases import Alias
from stream_trainer.store.challenges import CHALLENGER, Challenge, ChallengeEntry

if TYPE_CHECKING:
    from stream_trainer.pipeline import Pipeline

Shadow = Annotated[
    bool, typer.Option("--shadow", help="It predicts beside the champion and never answers; the default.")
]
Canary = Annotated[
    float | None,
    typer.Option(metavar="SHARE", help="It answers this share of the keys, above 0 and at most 1.", min=0, max=1),
]
Manual = Annotated[bool, typer.Option("--manual", help="Only measure: neither promote nor withdraw it by the test.")]


def challenge(
    pipeline: PipelineAddress,
    version: Number,
    shadow: Shadow = False,
    canary: Canary = None,
    manual: Manual = False,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Compare a version with the champion on labelled rows that neither has learned from.

    Serving promotes it once it is shown to be better, and withdraws it once it is shown to be worse, or no better in
    the end; with --manual it only says so. A champion that is held is never replaced. Another challenger is replaced.
    """
    if shadow and canary is not None:
        raise UsageError("--shadow and --canary exclude each other: a shadow never answers")
    if canary == 0:
        raise UsageError("--canary 0 would answer nothing: give a share above 0, or --shadow")
    found = load_pipeline(pipeline)
    store = open_store(Settings(), found.name)
    alias = _contested(store, version)
    challenger = _fitting(found, store, version)
    wanted = Challenge(
        version=version,
        mode="shadow" if canary is None else "canary",
        share=canary or 0.0,
        reason=reason or "challenges",
        by=champion.who(),
        at=datetime.now(UTC),
        decide="manual" if manual else "auto",
    )
    entry = _append(store, lambda _: wanted)
    _report(store, challenger, entry, as_json, held=alias.hold)


def withdraw(pipeline: PipelineAddress, reason: Reason = "", as_json: AsJson = False) -> None:
    """End a challenge: only the champion answers and is logged."""
    store = champion.store_of(pipeline)

    def decide(before: Challenge | None) -> Challenge:
        if before is None or before.version is None:
            raise UsageError(f"{store.describe()}: nobody challenges, so there is nothing to withdraw")
        return Challenge(version=None, reason=reason or "withdrawn", by=champion.who(), at=datetime.now(UTC))

    _report(store, None, _append(store, decide), as_json)


_EXAMPLE = "Example: stream-trainer models {0} examples.flights.pipeline:pipeline{1}"
_COMMANDS: dict[Callable[..., None], str] = {
    challenge: " 42 --canary 0.1 --reason 'wider net'",
    withdraw: " --reason 'not needed any more'",
}


def add_to(app: typer.Typer) -> None:
    """Make these commands of the group `models`."""
    for command, arguments in _COMMANDS.items():
        app.command(command.__name__, epilog=_EXAMPLE.format(command.__name__, arguments))(command)


def roles(store: ModelStore) -> dict[int, str]:
    """Who is champion and who challenges, by number; what cannot be read is left out with a warning."""
    found: dict[int, str] = {}
    try:
        entry = store.challenges.newest()
        if entry.challenge is not None and entry.version is not None:
            found[entry.version] = _role(entry.challenge)
    except Corrupt as error:
        typer.echo(f"warning: {error}", err=True)
    try:
        serving = store.champion()
        if serving is not None:
            found[serving.number] = "champion"
    except (Corrupt, NoVersion) as error:
        typer.echo(f"warning: {error}", err=True)
    return found


def _role(challenge: Challenge) -> str:
    return "challenger (shadow)" if challenge.mode == "shadow" else f"challenger (canary, {challenge.share:.4g})"


def _contested(store: ModelStore, version: int) -> Alias:
    """The champion's entry, after making sure that there is a fixed champion, and another one.

    Raises:
        UsageError: there is none, or the newest version is always champion.
    """
    _, alias = championing.newest_entry(store)
    if alias is None or alias.follows:
        raise UsageError(
            f"the champion of {store.describe()} is whatever version passed its gates last, so there is none to compare "
            "with: fix it with `models pin`, or train with --promotion manual or gated"
        )
    if alias.version is None:
        raise UsageError(f"{store.describe()} has no champion yet: `models promote` makes one")
    if alias.version == version:
        raise UsageError(f"version {version} of {store.describe()} is the champion: another one has to challenge it")
    return alias


def _fitting(pipeline: "Pipeline", store: ModelStore, number: int) -> Version:
    """The version, after making sure that it may be served by this pipeline file."""
    version = championing.usable(store, number)
    if version.manifest.contract != pipeline.contract.fingerprint:
        raise UsageError(
            f"version {number} of {store.describe()} was learned under another contract than {pipeline.name!r} has now"
        )
    return version


def _newest(store: ModelStore) -> ChallengeEntry:
    """The newest entry; a damaged one counts as nobody, with a warning: it must not keep a person from deciding."""
    try:
        return store.challenges.newest()
    except Corrupt as error:
        typer.echo(f"warning: {error}", err=True)
        return ChallengeEntry(store.challenges.newest_number(), None)


def _append(store: ModelStore, decide: Callable[[Challenge | None], Challenge]) -> ChallengeEntry:
    what = f"the challenger of {store.describe()}"
    return ChallengeEntry(*append(what, lambda: _newest(store), decide, store.challenges.append))


def _report(
    store: ModelStore, challenger: Version | None, entry: ChallengeEntry, as_json: bool, *, held: bool = False
) -> None:
    problem = champion.tell(store.pipeline, CHALLENGER, challenger, entry.number)
    said: dict[str, Any] = msgspec.to_builtins(entry.challenge)
    if as_json:
        print_json({**said, "alias": entry.number, "champion_held": held, "announced": problem is None})
        return
    if challenger is None:
        typer.echo(f"nobody challenges the champion of {store.describe()}")
    else:
        how = "never answers" if said["mode"] == "shadow" else f"answers {said['share']:.4g} of the keys"
        typer.echo(f"version {challenger.number} of {store.describe()} challenges: it {how}")
        typer.echo(_ending(said["decide"], held=held))
    typer.echo("serving was told" if problem is None else f"serving follows at its next look at the store: {problem}")


def _ending(decide: str, *, held: bool) -> str:
    if decide == "manual":
        return "it stays until `models promote` or `models withdraw`"
    if held:
        return "the champion is held: if the trial finds it better, it says so and changes nothing; `models release` ends the hold"
    return "it is promoted or withdrawn by the trial's test"
