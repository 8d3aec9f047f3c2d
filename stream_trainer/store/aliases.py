"""Aliases: which version is the champion, said by numbered entries of which the highest counts.

How entries are numbered and appended is `entries.Entries`'s; the alias `challenger` says more: `challenges`.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Literal, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from stream_trainer.errors import Corrupt
from stream_trainer.store.entries import Entries

Promotion = Literal["auto", "manual", "gated"]
CHAMPION = "champion"


class Alias(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of an alias: which version it names, why, and whether it holds against newer versions.

    `promotion` is how versions become champion: `auto`, the newest that passed its gates; `manual`, only by a person;
    `gated`, by the trainer when it does well enough. The trainer writes it when its mode differs from the newest
    entry's, and every later entry carries it over. `version` None: there is no champion yet, `manual` or `gated` only.
    `action` is the id of the action of `P.actions` that has decided; a person's entry has none.
    """

    version: int | None
    reason: str
    by: str
    at: datetime
    hold: bool = False
    promotion: Promotion = "auto"
    action: str | UnsetType = UNSET

    @property
    def follows(self) -> bool:
        """Whether the newest version that passed its gates is meant, whatever `version` says."""
        return self.promotion == "auto" and not self.hold


class Entry(NamedTuple):
    """The newest entry of an alias and its number; `(0, None)` when there is none."""

    number: int
    alias: Alias | None


def champion_of(alias: Alias | None, newest_passed: Callable[[], int | None]) -> int | None:
    """THE rule: the version to serve by the newest entry of the alias `champion`.

    Args:
        alias: the newest entry.
        newest_passed: the newest version that passed its gates; asked only when the rule needs it.
    """
    return newest_passed() if alias is None or alias.follows else alias.version


class Aliases:
    """The aliases of one pipeline in one storage, but for `challenger`."""

    def __init__(self, entries: Entries) -> None:
        self._entries = entries

    def names(self) -> list[str]:
        """The aliases that have entries, `challenger` included."""
        return self._entries.names()

    def newest(self, name: str) -> Entry:
        """The newest entry.

        Raises:
            Corrupt: it does not parse, or names no version although it must.
        """
        number = self.newest_number(name)
        return Entry(number, self.read(name, number) if number else None)

    def newest_number(self, name: str) -> int:
        """The highest number there is; 0 for none. Only the first call lists them all."""
        return self._entries.newest(name)

    def read(self, name: str, number: int) -> Alias:
        """One entry.

        Raises:
            Corrupt: it does not parse, or names no version although it must.
        """
        where = self._entries.describe(name, number)
        try:
            alias = msgspec.json.decode(self._entries.get(name, number), type=Alias)
        except (msgspec.MsgspecError, ValueError, RecursionError, FileNotFoundError) as error:
            raise Corrupt(f"{where} is not an alias: {error}") from error
        if alias.version is None and (alias.hold or alias.promotion == "auto"):
            raise Corrupt(f"{where} is not an alias: it has to name a version")
        return alias

    def append(self, name: str, alias: Alias, based_on: int) -> int | None:
        """See `ModelStore.set_alias`."""
        return self._entries.append(name, alias, based_on)
