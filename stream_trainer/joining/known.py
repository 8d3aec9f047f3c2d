"""Which ids are in the output topics, as 16 bytes each: after a loss there may be millions of them.

Two names with one hash would leave a row out that is not there. At 128 bits that takes 10^19 of them for an even chance;
ten million known and ten million asked collide once in 10^24 starts.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

_BYTES = 16
_KIND = np.dtype((np.bytes_, _BYTES))


def _nothing() -> npt.NDArray[Any]:
    return np.empty(0, _KIND)


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """A set of names that does not change; `len` is how many hashes it holds."""

    _hashes: npt.NDArray[Any] = field(default_factory=_nothing)

    @classmethod
    def of(cls, names: Iterable[str]) -> "Known":
        """Those of an iterator, of which no two are held at a time."""
        packed = bytearray()
        for name in names:
            packed += _hash(name)
        hashes = np.frombuffer(packed, _KIND)
        hashes.sort()
        return cls(hashes)

    def holds(self, names: Sequence[str]) -> list[bool]:
        """Of each name whether it is there."""
        if not len(self):
            return [False] * len(names)
        asked = np.frombuffer(b"".join(map(_hash, names)), _KIND)
        at = np.minimum(np.searchsorted(self._hashes, asked), len(self) - 1)
        return [bool(found) for found in self._hashes[at] == asked]

    def __len__(self) -> int:
        return len(self._hashes)


def _hash(name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=_BYTES, person=b"joined").digest()
