"""What nobody needs any more in a store: found by one listing, deleted in an order that a crash cannot turn to damage.

Safe while a trainer runs: whatever belongs to a number above the highest version is being written and left alone, and
so is everything younger than the grace period.
"""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from stream_trainer.errors import Corrupt, NoVersion
from stream_trainer.settings import StoreSettings
from stream_trainer.store import retention
from stream_trainer.store.storage import Stored
from stream_trainer.store.store import ModelStore

Kind = Literal["attempt", "unfinished", "data", "intent"]
KINDS: dict[Kind, str] = {
    "attempt": "files of attempts that no manifest names",
    "unfinished": "half-written files of writers that died",
    "data": "data files of versions that the settings let go of",
    "intent": "intents of versions whose data is gone",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Garbage:
    """What `collect` would delete: loose objects by kind, and the versions to prune with what they hold."""

    loose: dict[Kind, list[Stored]]
    versions: dict[int, list[Stored]]

    def by_kind(self) -> dict[Kind, list[Stored]]:
        """Every object, by the reason for which it goes."""
        return self.loose | {"data": [item for items in self.versions.values() for item in items]}


def find(store: ModelStore, settings: StoreSettings, *, older_than: datetime) -> Garbage:
    """What can go. Reads the manifests of those versions only that hold something to decide about.

    Args:
        store: of which pipeline.
        settings: which versions keep their data.
        older_than: only what was last changed before this; a live writer must be done within the time since.

    Raises:
        Corrupt, NoVersion, StoreDamaged: see `retention.protected`; nothing can be told apart until that is mended.
    """
    highest = store.highest()  # before the listing: what is committed meanwhile is above it
    needed = retention.protected(store)
    marked: set[int] = set()
    attempts: dict[int, dict[str, list[Stored]]] = defaultdict(lambda: defaultdict(list))
    intents: dict[int, list[Stored]] = defaultdict(list)
    for item in store.storage.survey(store.pipeline):
        match item.path.split("/")[1:]:
            case ["versions", name, "pruned.json"] if _known(name, highest):
                marked.add(int(name))
            case ["versions", name, attempt, _] if _known(name, highest):
                attempts[int(name)][attempt].append(item)
            case ["intents", name, _] if _known(name, highest):
                intents[int(name)].append(item)
    versions: dict[int, list[Stored]] = {}
    orphans: list[Stored] = []
    for number, found in attempts.items():
        goes = number not in needed and (number in marked or retention.outlived(number, highest, settings))
        if len(found) == 1 and not goes:
            continue
        try:
            named = store.read(number).manifest.attempt
        except NoVersion:
            named = None
        except Corrupt:
            continue  # which attempt it named can no longer be told
        orphans += [item for attempt, items in found.items() if attempt != named for item in items]
        if goes and named in found:
            versions[number] = found[named]
    gone = marked | versions.keys()
    unfinished = [item for item in store.storage.leftovers(store.pipeline) if item.modified < older_than]
    return Garbage(
        loose={
            "attempt": [item for item in orphans if item.modified < older_than],
            "unfinished": unfinished,
            "intent": [item for number in sorted(gone & intents.keys()) for item in intents[number]],
        },
        versions=versions,
    )


def _known(name: str, highest: int) -> bool:
    return name.isascii() and name.isdigit() and int(name) <= highest


def collect(store: ModelStore, garbage: Garbage) -> None:
    """Delete it: versions through `ModelStore.prune`, which marks each before it loses anything; then what is loose."""
    needed = retention.protected(store)  # a person may have promoted one since it was found
    for number in garbage.versions.keys() - needed:
        store.prune(number)
    for items in garbage.loose.values():
        for item in items:
            store.storage.delete(item.path)
    for folder in sorted({item.path.rsplit("/", 1)[0] for items in garbage.loose.values() for item in items}):
        store.storage.tidy(folder)


def past(now: datetime, grace_hours: float) -> datetime:
    """The instant before which a change is old enough."""
    return now - timedelta(hours=grace_hours)
