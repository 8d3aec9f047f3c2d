"""What a window is compared with: the frozen bins, and what a version has learned from. Read from the model store."""

import logging
from dataclasses import dataclass

import pyarrow as pa

from stream_trainer.errors import Corrupt, NoVersion
from stream_trainer.reference import Reference, over_hours, table_from_bytes
from stream_trainer.store import ModelStore, Version
from stream_trainer.store.store import LEARNED

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Frozen:
    """A frozen reference and its digest."""

    digest: str
    reference: Reference


@dataclass(frozen=True, slots=True)
class Baseline:
    """What one version has learned from, over all hours it keeps, counted with the bins of `frozen`."""

    version: int
    frozen: Frozen
    learned: pa.Table


class Baselines:
    """References and learned histograms, each read once.

    Every method may raise `StoreUnavailable`; a damaged or pruned version is passed over for the newest one.
    """

    def __init__(self, store: ModelStore) -> None:
        self._store = store
        self._frozen: Frozen | None = None
        self._baseline: Baseline | None = None

    def frozen(self) -> Frozen | None:
        """The reference in use: the head's the first time, then that of the last baseline. None: not frozen yet."""
        if self._frozen is None and (highest := self._store.highest()):
            self._of(highest)
        return self._frozen

    def of(self, version: int | None) -> Baseline | None:
        """The baseline of a version, or of the newest one when there is no such version or it is damaged."""
        found = self._of(version) if version is not None else None
        return found if found is not None else self._of(self._store.highest())

    def _of(self, number: int) -> Baseline | None:
        if self._baseline is not None and self._baseline.version == number:
            return self._baseline
        try:
            self._baseline = self._read(self._store.read(number))
        except (Corrupt, NoVersion, pa.ArrowInvalid) as error:
            _log.warning("no baseline from version %d: %s", number, error)
            return None
        return self._baseline

    def _read(self, version: Version) -> Baseline | None:
        digest = version.manifest.reference
        if digest is None:
            return None
        if self._frozen is None or self._frozen.digest != digest:
            self._frozen = Frozen(digest, Reference.from_bytes(self._store.reference(digest)))
        learned = over_hours(table_from_bytes(self._store.file(version, LEARNED)))
        return Baseline(version.number, self._frozen, learned)
