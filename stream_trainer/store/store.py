"""`ModelStore`: reading and committing the versions of one pipeline.

Nothing is modified in place and the manifest is written last, so a version either exists whole or does not exist.
`CURRENT` is a hint that saves a listing; it is never believed without looking.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

import msgspec

from stream_trainer.errors import Corrupt, Fenced, NoVersion, StoreDamaged
from stream_trainer.offsets import Ranges
from stream_trainer.settings import Settings
from stream_trainer.store import manifest as manifests
from stream_trainer.store.manifest import FileEntry, Manifest
from stream_trainer.store.storage import Storage, open_storage

if TYPE_CHECKING:
    from stream_trainer.features import FeatureSpec
    from stream_trainer.learner import State

WEIGHTS = "weights.safetensors"
TRAINER = "trainer.safetensors"
LEARNED = "learned.arrow"
GOLDEN = "golden.arrow"


class Intent(msgspec.Struct, frozen=True, kw_only=True):
    """What the n-th micro-batch of a version will learn, fixed before anything is learned."""

    version: int
    cut: int
    ranges: Ranges
    strategy: str
    seed: int
    run_id: str
    actions: list[str] = []


class Alias(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of an alias: which version it names, why, and whether it holds against newer versions."""

    version: int
    reason: str
    by: str
    at: datetime
    hold: bool = False


_Entry = TypeVar("_Entry", Intent, Alias)


@dataclass(frozen=True, slots=True)
class Version:
    """A manifest that was read, and the SHA-256 of its bytes."""

    manifest: Manifest
    sha256: str

    @property
    def number(self) -> int:
        """The version's number."""
        return self.manifest.version


class ModelStore:
    """The versions, intents, references and aliases of one pipeline in one storage."""

    def __init__(self, storage: Storage, pipeline: str) -> None:
        self.storage = storage
        self.pipeline = pipeline

    def describe(self) -> str:
        """Where this is, for messages."""
        return f"{self.storage.url}/{self.pipeline}"

    def highest(self) -> int:
        """The highest number that has a manifest, damaged or not; 0 when there is none."""
        at = self._hint()
        if at == 0 or not self._has(at):
            at = max((n for n in self._listed() if self._has(n)), default=0)
        while self._has(at + 1):
            at += 1
        return at

    def numbers(self) -> list[int]:
        """Every number that has a manifest, ascending."""
        return [n for n in self._listed() if self._has(n)]

    def read(self, number: int) -> Version:
        """The manifest of a version.

        Raises:
            NoVersion: there is no such version.
            Corrupt: the manifest does not parse or belongs elsewhere.
        """
        path = self._manifest_path(number)
        try:
            data = self.storage.get(path)
        except FileNotFoundError as error:
            raise NoVersion(f"{self.describe()} has no version {number}") from error
        manifest = manifests.decode(data, f"{self.storage.url}/{path}")
        if manifest.version != number or manifest.pipeline != self.pipeline:
            raise Corrupt(
                f"{self.storage.url}/{path} says it is version {manifest.version} of {manifest.pipeline!r}: "
                "it was moved or tampered with"
            )
        return Version(manifest, manifests.sha256(data))

    def file(self, version: Version, name: str) -> bytes:
        """A data file of a version, checked against its digest.

        Raises:
            Corrupt: the file is gone or differs from what was committed.
        """
        path = f"{self._folder(version.number)}/{version.manifest.attempt}/{name}"
        entry = version.manifest.files.get(name)
        if entry is None:
            raise Corrupt(f"version {version.number} of {self.describe()} has no {name}")
        try:
            data = self.storage.get(path)
        except FileNotFoundError as error:
            raise Corrupt(f"{self.storage.url}/{path} is gone") from error
        if len(data) != entry.size or manifests.sha256(data) != entry.sha256:
            raise Corrupt(f"{self.storage.url}/{path} is not what was committed: size or SHA-256 differs")
        return data

    def load(self, version: Version, spec: "FeatureSpec", *, training: bool) -> "State":
        """The state of a version; without `training` only what serving needs is read."""
        from stream_trainer.learner import State  # noqa: PLC0415 - who only reads manifests does not pay for torch
        from stream_trainer.store import tensors  # noqa: PLC0415

        where = f"version {version.number} of {self.describe()}"
        serving = tensors.from_bytes(self.file(version, WEIGHTS), f"{where}: {WEIGHTS}")
        kept = tensors.from_bytes(self.file(version, TRAINER), f"{where}: {TRAINER}") if training else {}
        return State(spec=spec, serving=serving, training=kept)

    def verify(self, number: int) -> Version:
        """Read a version and every file it names.

        Raises:
            Corrupt: something differs from what was committed.
        """
        version = self.read(number)
        for name in version.manifest.files:
            self.file(version, name)
        if version.manifest.reference is not None:
            self.reference(version.manifest.reference)
        return version

    def prune(self, number: int) -> int:
        """Delete the data files of a version; its manifest stays for ever. How many were deleted.

        The caller sees to it that nobody needs them: neither the head nor what is being served.
        """
        folder = f"{self._folder(number)}/{self.read(number).manifest.attempt}"
        names = self.storage.names(folder)
        for name in names:
            self.storage.delete(f"{folder}/{name}")
        return len(names)

    def pruned(self, version: Version) -> bool:
        """Whether the version's data files were all deleted, as `prune` does."""
        return not self.storage.names(f"{self._folder(version.number)}/{version.manifest.attempt}")

    def head(self) -> Version | None:
        """The newest version that verifies, None when nothing was ever committed.

        Raises:
            StoreDamaged: there are versions, and none verifies.
        """
        highest = self.highest()
        for number in range(highest, 0, -1):
            try:
                return self.verify(number)
            except (Corrupt, NoVersion):
                continue
        if highest:
            raise StoreDamaged(
                f"none of the {highest} versions of {self.describe()} passes its checks: restore the store from a copy"
            )
        return None

    def champion(self) -> Version | None:
        """The version to serve: the held alias, else the newest one that passed its gates; manifest only."""
        alias = self.alias("champion")
        if alias is not None and alias.hold:
            return self.read(alias.version)
        for number in range(self.highest(), 0, -1):
            try:
                version = self.read(number)
            except (Corrupt, NoVersion):
                continue
            if version.manifest.passed:
                return version
        return None

    def alias(self, name: str) -> Alias | None:
        """The newest entry of an alias.

        Raises:
            Corrupt: it does not parse.
        """
        entries = [n for n in self.storage.names(f"{self.pipeline}/aliases/{name}") if n.endswith(".json")]
        if not entries:
            return None
        newest = max(entries, key=lambda n: int(n.removesuffix(".json")))
        return self._parsed(f"{self.pipeline}/aliases/{name}/{newest}", Alias)

    def put_reference(self, data: bytes) -> str:
        """Keep a frozen drift reference; its name is its digest."""
        digest = manifests.sha256(data)
        self.storage.put_if_absent(f"{self.pipeline}/references/{digest}.arrow", data)
        return digest

    def reference(self, digest: str) -> bytes:
        """A frozen drift reference, checked.

        Raises:
            Corrupt: it is gone or differs from its digest.
        """
        path = f"{self.pipeline}/references/{digest}.arrow"
        try:
            data = self.storage.get(path)
        except FileNotFoundError as error:
            raise Corrupt(f"{self.storage.url}/{path} is gone") from error
        if manifests.sha256(data) != digest:
            raise Corrupt(f"{self.storage.url}/{path} is not what its name says")
        return data

    def fix_cut(self, intent: Intent) -> Intent:
        """Write an intent unless one is there; what is there counts, whoever wrote it.

        Raises:
            Corrupt: what is there does not parse.
        """
        path = f"{self._intents(intent.version)}/{intent.cut}.json"
        data = manifests.canonical_json(intent)
        if self.storage.put_if_absent(path, data):
            return intent
        return self._parsed(path, Intent)

    def intents(self, version: int) -> list[Intent]:
        """The intents of a version in the order of their cuts.

        Raises:
            Corrupt: one does not parse.
        """
        folder = self._intents(version)
        found = [self._parsed(f"{folder}/{name}", Intent) for name in self.storage.names(folder)]
        return sorted(found, key=lambda intent: intent.cut)

    def write_files(self, number: int, attempt: str, files: Mapping[str, bytes]) -> dict[str, FileEntry]:
        """Write data files under an attempt's own folder and say what was written."""
        for name, data in files.items():
            self.storage.put_if_absent(f"{self._folder(number)}/{attempt}/{name}", data)
        return {name: FileEntry(size=len(data), sha256=manifests.sha256(data)) for name, data in files.items()}

    def commit(self, manifest: Manifest) -> Version:
        """Put the manifest if none is there: the only commit point. A lost answer is told from a lost race.

        Raises:
            Fenced: another trainer has committed this number.
        """
        data = manifests.encode(manifest)
        version = Version(manifest, manifests.sha256(data))
        path = self._manifest_path(manifest.version)
        if not self.storage.put_if_absent(path, data):
            there = self.storage.get(path)
            if manifests.sha256(there) != version.sha256:
                raise Fenced(
                    f"version {manifest.version} of {self.describe()} was committed by another trainer: "
                    "this one stops and has changed nothing; check that only one runs"
                )
        self.storage.put(f"{self.pipeline}/CURRENT", manifests.canonical_json({"version": manifest.version}))
        return version

    @staticmethod
    def new_attempt() -> str:
        """A folder name no other attempt has."""
        return secrets.token_hex(8)

    def _hint(self) -> int:
        try:
            hint = msgspec.json.decode(self.storage.get(f"{self.pipeline}/CURRENT"), type=dict[str, int])
        except (FileNotFoundError, msgspec.MsgspecError, ValueError):
            return 0
        return max(0, hint.get("version", 0))

    def _parsed(self, path: str, kind: type[_Entry]) -> _Entry:
        try:
            return msgspec.json.decode(self.storage.get(path), type=kind)
        except (msgspec.MsgspecError, ValueError) as error:
            raise Corrupt(f"{self.storage.url}/{path} is not an {kind.__name__.lower()}: {error}") from error

    def _listed(self) -> list[int]:
        names = self.storage.names(f"{self.pipeline}/versions")
        return sorted(int(name) for name in names if name.isdigit())

    def _has(self, number: int) -> bool:
        return "manifest.json" in self.storage.names(self._folder(number))

    def _folder(self, number: int) -> str:
        return f"{self.pipeline}/versions/{number:020d}"

    def _manifest_path(self, number: int) -> str:
        return f"{self._folder(number)}/manifest.json"

    def _intents(self, version: int) -> str:
        return f"{self.pipeline}/intents/{version:020d}"


def open_store(settings: Settings, pipeline: str) -> ModelStore:
    """The store that the settings name."""
    return ModelStore(open_storage(settings.store_url, settings.store), pipeline)
