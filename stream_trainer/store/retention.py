"""Which versions keep their data files: the newest so many, one in so many of the older ones, and whoever is needed."""

from functools import partial

from stream_trainer.errors import Corrupt, NoVersion
from stream_trainer.settings import StoreSettings
from stream_trainer.store.aliases import CHAMPION, champion_of
from stream_trainer.store.challenges import CHALLENGER
from stream_trainer.store.store import ModelStore

_NEWEST = 2


def protected(store: ModelStore, head: int | None = None) -> frozenset[int]:
    """The versions whose data is never deleted, whatever the settings say.

    These are the head and the newest older version that could take its place, the two highest numbers, the champion
    by the rule, and what the newest entry of every alias, the challenger's included, names.

    Args:
        store: of which pipeline.
        head: the head's number if the caller has just verified it; verified here otherwise.

    Raises:
        Corrupt: an alias does not parse: nothing may be deleted until it is mended or set again.
        NoVersion: an alias names a version that is not there.
        StoreDamaged: no version verifies.
    """
    if head is None:
        verified = store.head()
        head = verified.number if verified else 0
    highest = store.highest()
    needed = {head, *_kept_below(store, head, 1), *_kept_below(store, highest + 1, _NEWEST)}
    return frozenset((needed | _named(store, highest)) - {0})


def _named(store: ModelStore, highest: int) -> set[int]:
    needed: set[int | None] = {store.challenges.newest().version}
    for name in {CHAMPION, *store.aliases.names()} - {CHALLENGER}:
        alias = store.alias(name)
        needed.add(alias.version if alias is not None else None)
        if name == CHAMPION:
            needed.add(champion_of(alias, partial(store.newest_passed, highest + 1)))
    return {number for number in needed if number is not None}


def _kept_below(store: ModelStore, number: int, count: int) -> list[int]:
    """The newest versions below a number that are there and have not been pruned."""
    found: list[int] = []
    while number > 1 and len(found) < count:
        number -= 1
        try:
            store.read(number)
        except NoVersion:
            continue
        except Corrupt:
            pass
        if not store.pruned(number):
            found.append(number)
    return found


def outlived(number: int, highest: int, settings: StoreSettings) -> bool:
    """Whether the settings let go of a version's data; `protected` has the last word."""
    return (
        bool(settings.keep_versions)
        and number <= highest - settings.keep_versions
        and number % settings.keep_every != 0
    )


def forget(store: ModelStore, newest: int, settings: StoreSettings) -> int | None:
    """After a commit: delete the data of the one version that has just become too old; its number, None if none has.

    What it spares for a person's sake and nobody needs any more later goes with `models gc`.
    """
    number = newest - settings.keep_versions
    if number < 1 or not outlived(number, newest, settings):
        return None
    try:
        needed = {newest, *_kept_below(store, newest, 1), *_named(store, newest)}
        if number in needed or not store.prune(number):
            return None
    except (NoVersion, Corrupt):
        return None
    return number
