"""Numbered entries under a name: each is put once, under the number after the one it was based on; the highest counts.

So of two who decide at the same time one learns that the other was faster. What an entry says is its reader's business.
"""

from typing import Any

from stream_trainer.store import manifest as manifests
from stream_trainer.store.storage import Storage

MAX_BYTES = 64 * 2**10


class Entries:
    """The entries of one folder: `<folder>/<name>/<n>.json`, n from 1 on."""

    def __init__(self, storage: Storage, folder: str) -> None:
        self._storage = storage
        self._folder = folder
        self._seen: dict[str, int] = {}

    def names(self) -> list[str]:
        """The names that have entries."""
        return self._storage.names(self._folder)

    def newest(self, name: str) -> int:
        """The highest number there is; 0 for none. Only the first call lists them all."""
        at = self._seen.get(name, 0)
        if not at or not self._has(name, at):
            listed = (n.removesuffix(".json") for n in self._storage.names(f"{self._folder}/{name}"))
            at = max((int(n) for n in listed if n.isascii() and n.isdigit()), default=0)
        while at and self._has(name, at + 1):
            at += 1
        self._seen[name] = at
        return at

    def get(self, name: str, number: int) -> bytes:
        """One entry as it was put.

        Raises:
            FileNotFoundError: there is none of this number.
            Corrupt: it is larger than an entry can be.
        """
        return self._storage.get(self._path(name, number), limit=MAX_BYTES)

    def append(self, name: str, value: Any, based_on: int) -> int | None:
        """Put an entry if the newest is still number `based_on` (0: none); its number, None when somebody was faster.

        An answer that was lost on the way is told from a lost race when the same value is put again.
        """
        path, data = self._path(name, based_on + 1), manifests.canonical_json(value)
        if self._storage.put_if_absent(path, data) or self._storage.get(path) == data:
            return based_on + 1
        return None

    def describe(self, name: str, number: int) -> str:
        """Where an entry is, for messages."""
        return f"{self._storage.url}/{self._path(name, number)}"

    def _has(self, name: str, number: int) -> bool:
        return self._storage.exists(self._path(name, number))

    def _path(self, name: str, number: int) -> str:
        return f"{self._folder}/{name}/{number}.json"
