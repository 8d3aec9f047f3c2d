"""What a window is compared with: the frozen baseline, and what a version that served in it has learned from.

Read from the model store, each version once. What cannot be read is no reason to fail: then there is nothing to compare with.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from stream_trainer.errors import Corrupt, NoVersion
from stream_trainer.reference import Learned, Reference
from stream_trainer.reference.counting import Cells
from stream_trainer.store import ModelStore, Version
from stream_trainer.store.store import LEARNED

TRIED = 8
KEPT = 8
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Frozen:
    """A frozen reference and its digest."""

    digest: str
    reference: Reference

    def counts(self, feature: str) -> Cells:
        """What the baseline holds of a feature, in fine bins."""
        return np.asarray(self.reference.of(feature).counts, np.int64)


@dataclass(frozen=True, slots=True)
class Baseline:
    """What one version has learned from, over all time it keeps, as a row of cells of `frozen`."""

    version: int
    frozen: Frozen
    learned: Cells


class Baselines:
    """References and what was learned, each read once. Every method may raise `StoreUnavailable`.

    Args:
        store: of the pipeline.
        contract: the fingerprint of its contract. What was learned under another one is no baseline: its columns have other
            names or other meanings.
    """

    def __init__(self, store: ModelStore, contract: str) -> None:
        self._store = store
        self._contract = contract
        self._frozen: Frozen | None = None
        self._kept: dict[int, Baseline | None] = {}

    def frozen(self) -> Frozen | None:
        """The reference in use: the head's the first time, then that of the last baseline. None: not frozen yet."""
        if self._frozen is None and (highest := self._store.highest()):
            self._of(highest)
        return self._frozen

    def of(self, rows: Mapping[int, int]) -> Baseline | None:
        """The baseline of the version with the most rows that can be read, the highest of equals; its reference is then in use.

        None: none of the `TRIED` with the most rows can. Versions that were pruned, are damaged or had no frozen bins yet
        have none, nor have those that were learned under another contract.

        Args:
            rows: how many rows each version has answered.
        """
        for number in sorted(rows, key=lambda version: (-rows[version], -version))[:TRIED]:
            found = self._of(number)
            if found is not None:
                self._frozen = found.frozen
                return found
        return None

    def each(self, versions: Iterable[int]) -> dict[int, Baseline]:
        """The baselines of these versions, of those that can be read. Which reference is in use stays."""
        in_use = self._frozen
        found = {number: self._of(number) for number in sorted(versions)}
        self._frozen = in_use
        return {number: baseline for number, baseline in found.items() if baseline is not None}

    def _of(self, number: int) -> Baseline | None:
        if number in self._kept:
            return self._kept[number]
        try:
            found = self._read(self._store.read(number))
        except (Corrupt, NoVersion) as error:
            _log.warning("no baseline from version %d: %s", number, error)
            return None
        self._kept = {**dict(list(self._kept.items())[1 - KEPT :]), number: found}
        return found

    def _read(self, version: Version) -> Baseline | None:
        digest, contract = version.manifest.reference, version.manifest.contract
        if contract != self._contract:
            _log.warning(
                "no baseline from version %d: it was learned under contract %s, the pipeline now has %s; nothing is "
                "compared with it. Give the changed pipeline a new name, or restore the contract",
                version.number,
                contract[:12],
                self._contract[:12],
            )
            return None
        if digest is None:
            return None
        frozen = self._frozen
        if frozen is None or frozen.digest != digest:
            frozen = Frozen(digest, Reference.from_bytes(self._store.reference(digest)))
        learned = Learned.from_bytes(self._store.file(version, LEARNED), frozen.reference)
        self._frozen = frozen
        return Baseline(version.number, frozen, learned.total(frozen.reference))
