"""A person decides which version serves: what the commands `models promote|rollback|pin|release` and the admin port do.

Each decision appends one entry to the alias `champion`, based on the newest one, and tells serving when a broker can be
reached. Nothing here prints or asks who may decide.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from stream_trainer.deciding import Undecidable, append
from stream_trainer.errors import Corrupt, NoVersion, StoreDamaged, UsageError
from stream_trainer.settings import KafkaSettings
from stream_trainer.store import ModelStore, Version
from stream_trainer.store.aliases import CHAMPION, Alias, Entry, Promotion, champion_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Decided:
    """An entry that was appended; `number` is its own."""

    number: int
    alias: Alias


def promote(store: ModelStore, version: int, *, by: str, reason: str = "", hold: bool = False) -> Decided:
    """Make a version the champion.

    With promotion auto it is held (until a release), unless it is the newest one that passed its gates anyway; with
    manual and gated it is not, unless `hold`: the trainer may then promote another.

    Raises:
        Undecidable: there is none of this number, it failed its gates, or its data is gone.
        StoreDamaged: it is not what was committed.
    """
    usable(store, version)

    def decide(alias: Alias | None) -> Alias:
        follows = _mode_of(alias) != "auto" or version == store.newest_passed()
        return _said(version, alias, by, reason or "promoted", hold=hold or not follows)

    return _append(store, decide)


def rollback(store: ModelStore, version: int | None, *, by: str, reason: str = "") -> Decided:
    """Serve an older version, None for the newest good one before the champion, and hold it until a release.

    Only what serves moves: the trainer goes on learning from its newest version.

    Raises:
        Undecidable: see `promote`; or there is nothing to roll back to.
        StoreDamaged: it is not what was committed.
    """
    if version is not None:
        usable(store, version)

    def decide(alias: Alias | None) -> Alias:
        chosen = version if version is not None else _before(store, alias)
        return _said(chosen, alias, by, reason or "rolled back", hold=True)

    return _append(store, decide)


def pin(store: ModelStore, version: int, *, by: str, reason: str = "") -> Decided:
    """Serve a version and hold it until a release, whatever is committed.

    Raises:
        Undecidable: see `promote`.
        StoreDamaged: it is not what was committed.
    """
    usable(store, version)
    return _append(store, lambda alias: _said(version, alias, by, reason or "pinned", hold=True))


def release(store: ModelStore, *, by: str, reason: str = "") -> Decided:
    """End a hold: versions become champion again as the trainer's promotion mode says.

    Raises:
        Undecidable: nothing is held.
    """

    def decide(alias: Alias | None) -> Alias:
        if alias is None or not alias.hold:
            raise Undecidable("nothing_held", f"{store.describe()}: nothing is held, so there is nothing to release")
        return _said(alias.version or store.newest_passed(), alias, by, reason or "released", hold=False)

    return _append(store, decide)


def outcome(store: ModelStore, decided: Decided, kafka: KafkaSettings | None) -> tuple[dict[str, Any], str | None]:
    """Tell serving, and what was decided as plain data: the entry, its number, the champion, until when, `announced`.

    The second is why serving could not be told, None when it was or there is no champion; it may name the broker.
    """
    champion = store.champion_by(decided.alias)
    problem = tell(kafka, store.pipeline, CHAMPION, champion, decided.number) if champion is not None else None
    told = {
        **msgspec.to_builtins(decided.alias),
        "alias": decided.number,
        "champion": champion.number if champion is not None else None,
        "until": _until(decided.alias),
        "announced": champion is not None and problem is None,
    }
    return told, problem


def tell(kafka: KafkaSettings | None, pipeline: str, alias: str, version: Version | None, entry: int) -> str | None:
    """Tell those who follow `P.models`; why that was not possible, None when it was. Never starts a broker."""
    if kafka is None:
        return "no Kafka is configured and the local one does not run"
    from stream_trainer.announcing import announce  # noqa: PLC0415 - a second, for those who need it

    return announce(kafka, pipeline, alias, version, entry, datetime.now(UTC))


def newest_entry(store: ModelStore) -> Entry:
    """The newest entry of the champion; a damaged one is passed over with a warning: it must not keep a person from deciding."""
    number = store.aliases.newest_number(CHAMPION)
    for older in range(number, 0, -1):
        try:
            return Entry(number, store.aliases.read(CHAMPION, older))
        except Corrupt as error:
            logger.warning("%s", error)
    return Entry(number, None)


def usable(store: ModelStore, number: int) -> Version:
    """The version, after making sure that it may be served.

    Raises:
        Undecidable: there is none of this number, it failed its gates, or retention has deleted its data.
        StoreDamaged: it is not what was committed.
    """
    where = f"version {number} of {store.describe()}"
    try:
        version = store.read(number)
        if not version.manifest.passed:
            failed = "; ".join(f"{v.gate}: {v.detail}" for v in version.manifest.gates if not v.passed)
            raise Undecidable("failed_gates", f"{where} did not pass its gates ({failed}): choose one that did")
        if store.pruned(number):
            raise Undecidable("pruned", f"{where} has no data any more: retention has deleted it; choose a newer one")
        return store.verify(number)
    except NoVersion as error:
        missing = f"{where} does not exist: `stream-trainer models list` shows which do"
        raise Undecidable("unknown_version", missing) from error
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
    nothing = f"{store.describe()} has no usable version before its champion: nothing to roll back to"
    raise Undecidable("nothing_before", nothing)


def _append(store: ModelStore, decide: Callable[[Alias | None], Alias]) -> Decided:
    def put(alias: Alias, after: int) -> int | None:
        return store.set_alias(CHAMPION, alias, after)

    return Decided(*append(f"the champion of {store.describe()}", lambda: newest_entry(store), decide, put))


def _said(version: int | None, alias: Alias | None, by: str, reason: str, *, hold: bool) -> Alias:
    mode = _mode_of(alias)
    return Alias(version=version, reason=reason, by=by, at=datetime.now(UTC), hold=hold, promotion=mode)


def _mode_of(alias: Alias | None) -> Promotion:
    return alias.promotion if alias is not None else "auto"


def _until(alias: Alias) -> str:
    if alias.hold:
        return "held until `models release` or another decision"
    return {
        "auto": "until the next version passes its gates",
        "manual": "until somebody promotes another one",
        "gated": "until the trainer finds a newer one that does well enough, or somebody promotes another one",
    }[alias.promotion]
