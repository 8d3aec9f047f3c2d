"""`ModelStore`: reading and committing the versions of one pipeline.

Nothing is modified in place and the manifest is written last, so a version either exists whole or does not exist.
`CURRENT` is a hint that saves a listing; it is never believed without looking.
"""

import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET, UnsetType

from stream_trainer.acts import Act, Read
from stream_trainer.crashpoints import crashpoint
from stream_trainer.errors import Corrupt, Fenced, NoVersion, StoreDamaged, UsageError
from stream_trainer.offsets import Ranges
from stream_trainer.settings import Settings
from stream_trainer.store import chain
from stream_trainer.store import manifest as manifests
from stream_trainer.store.aliases import CHAMPION, Alias, Aliases, Entry, champion_of
from stream_trainer.store.believing import Believing
from stream_trainer.store.chain import Version
from stream_trainer.store.challenges import Challenges
from stream_trainer.store.entries import Entries
from stream_trainer.store.manifest import FileEntry, Manifest
from stream_trainer.store.numbers import Numbers
from stream_trainer.store.signing import Signing
from stream_trainer.store.storage import Storage, open_storage

if TYPE_CHECKING:
    from stream_trainer.features import FeatureSpec
    from stream_trainer.learner import State

WEIGHTS = "weights.safetensors"
TRAINER = "trainer.safetensors"
LEARNED = "learned.arrow"
GOLDEN = "golden.arrow"
MAX_INTENT_BYTES = 4 * 2**20
MAX_REFERENCE_BYTES = 64 * 2**20
_MAX_HINT_BYTES = 4_096


class Intent(msgspec.Struct, frozen=True, kw_only=True):
    """What the n-th micro-batch of a version will learn, fixed before anything is learned.

    `actions` are carried out before it, `asked` is how far `P.actions` was read for them.
    """

    version: int
    cut: int
    ranges: Ranges
    strategy: str
    seed: int
    run_id: str
    actions: list[Act] = []
    asked: Read | UnsetType = UNSET


class ModelStore:
    """The versions, intents, references and aliases of one pipeline in one storage.

    `signing` signs what is committed and refuses, as Corrupt, what is not signed as it must be.
    """

    def __init__(self, storage: Storage, pipeline: str, signing: Signing | None = None) -> None:
        self.storage = storage
        self._signing = signing or Signing()
        self.pipeline = pipeline
        entries = Entries(storage, f"{pipeline}/aliases")
        self.aliases = Aliases(entries)
        self.challenges = Challenges(entries)
        self._numbers = Numbers(storage, f"{pipeline}/versions", "manifest.json")
        self._failed: set[int] = set()
        self._durable = 0
        self._believing = Believing(pipeline, self._signing)

    def describe(self) -> str:
        """Where this is, for messages."""
        return f"{self.storage.url}/{self.pipeline}"

    def highest(self) -> int:
        """The highest number that has a manifest, damaged or not; 0 when there is none.

        It costs the same however many versions there are, as long as `CURRENT` is right.
        """
        return self._numbers.highest(self._hint())

    def has(self, number: int) -> bool:
        """Whether there is a manifest of this number, damaged or not: one look."""
        return self._numbers.has(number)

    def numbers(self) -> list[int]:
        """Every number up to the highest that has a folder, ascending: one listing, however many there are.

        A person may have deleted one's manifest: `read` then says NoVersion.
        """
        return self._numbers.up_to_highest()

    def read(self, number: int) -> Version:
        """The manifest of a version, as it is in the storage now.

        Raises:
            NoVersion: there is no such version.
            Corrupt: the manifest does not parse, belongs elsewhere, or is not signed as it must be.
        """
        path = self._manifest_path(number)
        try:
            data = self.storage.get(path, limit=manifests.MAX_BYTES)
        except FileNotFoundError as error:
            raise NoVersion(f"{self.describe()} has no version {number}") from error
        return self._believing.version(number, data, f"{self.storage.url}/{path}")

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
            data = self.storage.get(path, limit=entry.size)
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
        """Read a version and every file it names, and look whether its neighbours agree that it is the one.

        Raises:
            Corrupt: something differs from what was committed, or is not of its format.
        """
        from stream_trainer.store import formats  # noqa: PLC0415 - who only reads manifests does not pay for Arrow

        version = self.read(number)
        for name in version.manifest.files:
            formats.check(name, self.file(version, name), f"version {number} of {self.describe()}: {name}")
        if version.manifest.reference is not None:
            self.reference(version.manifest.reference)
        self.check_parent(version)
        chain.check_child(self._readable(number + 1), version, self.describe())
        return version

    def check_parent(self, version: Version) -> None:
        """Nothing, if the version was committed on the parent that is there, or no readable one is.

        Raises:
            Corrupt: the parent is another one.
        """
        parent = version.manifest.parent
        chain.check_parent(version, None if parent is None else self._readable(parent), self.describe())

    def prune(self, number: int) -> int:
        """Delete the data files and intents of a version; its manifest stays for ever. How many were deleted.

        `pruned.json` goes first: from then on whatever is missing was deleted on purpose, however far this gets.
        The caller sees to it that nobody needs them: `retention.protected`.
        """
        attempt = f"{self._folder(number)}/{self.read(number).manifest.attempt}"
        doomed = [item.path for item in self.storage.survey(attempt)]
        if doomed:
            self.storage.put_if_absent(self._pruned_path(number), manifests.canonical_json({"version": number}))
        crashpoint("retention.marked")
        folder = self._intents(number)
        for path in [*doomed, *(f"{folder}/{name}" for name in self.storage.names(folder))]:
            self.storage.delete(path)
            crashpoint("retention.file_deleted")
        self.storage.tidy(attempt)
        self.storage.tidy(folder)
        return len(doomed)

    def pruned(self, version: Version | int) -> bool:
        """Whether a version's data was deleted on purpose, or is being deleted."""
        number = version if isinstance(version, int) else version.number
        return self.storage.exists(self._pruned_path(number))

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

    def damaged_after(self, head: int) -> dict[int, str]:
        """The numbers above a version up to the highest that do not verify, each with what is wrong, ascending."""
        found: dict[int, str] = {}
        for number in range(head + 1, self.highest() + 1):
            try:
                self.verify(number)
            except (Corrupt, NoVersion) as error:
                found[number] = str(error)
        return found

    def champion(self) -> Version | None:
        """The version to serve by the newest entry of the alias `champion`; manifest only. See `champion_of`.

        Raises:
            Corrupt: the entry or the version it names is damaged.
            NoVersion: the version that the entry names is not there.
        """
        return self.champion_by(self.aliases.newest(CHAMPION).alias)

    def champion_by(self, alias: Alias | None) -> Version | None:
        """The version to serve by this entry; see `champion`."""
        number = champion_of(alias, self.newest_passed)
        return None if number is None else self.read(number)

    def newest_passed(self, before: int | None = None) -> int | None:
        """The newest version, below `before` if given, that has a readable manifest and passed its gates.

        Those that failed are remembered: a call costs one manifest and those that are new, not all that failed.
        """
        for number in range(self.highest() if before is None else before - 1, 0, -1):
            if number in self._failed:
                continue
            try:
                if self.read(number).manifest.passed:
                    return number
            except (Corrupt, NoVersion):
                continue
            self._failed.add(number)
        return None

    def alias(self, name: str) -> Alias | None:
        """The newest entry of an alias.

        Raises:
            Corrupt: it does not parse.
        """
        return self.aliases.newest(name).alias

    def alias_entry(self, name: str) -> Entry:
        """The newest entry of an alias and its number, which `set_alias` is based on; raises as `alias` does."""
        return self.aliases.newest(name)

    def set_alias(self, name: str, alias: Alias, based_on: int) -> int | None:
        """Append an entry if the newest is still number `based_on` (0: none); the new one's number.

        None when somebody has set the alias since: nothing was written; look again and decide again. An answer that
        was lost on the way is told from a lost race when the same entry is set again.
        """
        return self.aliases.append(name, alias, based_on)

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
            data = self.storage.get(path, limit=MAX_REFERENCE_BYTES)
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
        fixed = intent if self.storage.put_if_absent(path, data) else self._intent(path)
        crashpoint("store.intent_fixed")
        return fixed

    def intents(self, version: int) -> list[Intent]:
        """The intents of a version in the order of their cuts.

        Raises:
            Corrupt: one does not parse.
        """
        folder = self._intents(version)
        found = [self._intent(f"{folder}/{name}") for name in self.storage.names(folder)]
        return sorted(found, key=lambda intent: intent.cut)

    def write_files(self, number: int, attempt: str, files: Mapping[str, bytes]) -> dict[str, FileEntry]:
        """Write data files under an attempt's own folder and say what was written."""
        folder = f"{self._folder(number)}/{attempt}"
        with self.storage.filling(folder):
            for name, data in files.items():
                self.storage.put_if_absent(f"{folder}/{name}", data)
                crashpoint("store.file_written")
        return {name: FileEntry(size=len(data), sha256=manifests.sha256(data)) for name, data in files.items()}

    def commit(self, manifest: Manifest) -> Version:
        """Put the manifest if none is there: the only commit point. A lost answer is told from a lost race.

        Raises:
            Fenced: another trainer has committed this number.
            StoreUnwritable, StoreUnavailable: not committed, or committed and only the hint is old: look at the head.
        """
        if manifest.previous is not None and manifest.previous != self._durable:
            # Whoever committed it may have died before its name was durable: it must not vanish under this one.
            self.storage.persist(self._manifest_path(manifest.previous))
        crashpoint("store.before_manifest")
        manifest = self._signing.sign(manifests.sealed(manifest))
        data = manifests.encode(manifest)
        if len(data) > manifests.MAX_BYTES:
            raise UsageError(
                f"the manifest of version {manifest.version} would be {len(data)} bytes, at most {manifests.MAX_BYTES} "
                "are read: let a version take in fewer micro-batches (trainer.commit_every_rows, …_seconds)"
            )
        version = Version(manifest, manifests.sha256(data))
        path = self._manifest_path(manifest.version)
        if not self.storage.put_if_absent(path, data):
            there = self.storage.get(path)
            if manifests.sha256(there) != version.sha256:
                raise Fenced(
                    f"version {manifest.version} of {self.describe()} was committed by another trainer: "
                    "this one stops and has changed nothing; check that only one runs"
                )
        self._durable = manifest.version
        crashpoint("store.manifest_published")
        self.storage.put(f"{self.pipeline}/CURRENT", manifests.canonical_json({"version": manifest.version}))
        crashpoint("store.current_written")
        return version

    @staticmethod
    def new_attempt() -> str:
        """A folder name no other attempt has."""
        return secrets.token_hex(8)

    def _hint(self) -> int:
        try:
            hint = msgspec.json.decode(self._hint_bytes(), type=dict[str, int])
        except (FileNotFoundError, msgspec.MsgspecError, ValueError, RecursionError, Corrupt):
            return 0
        return max(0, hint.get("version", 0))

    def _hint_bytes(self) -> bytes:
        return self.storage.get(f"{self.pipeline}/CURRENT", limit=_MAX_HINT_BYTES)

    def _readable(self, number: int) -> Version | None:
        try:
            return self.read(number)
        except (Corrupt, NoVersion):
            return None

    def _intent(self, path: str) -> Intent:
        try:
            return msgspec.json.decode(self.storage.get(path, limit=MAX_INTENT_BYTES), type=Intent)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise Corrupt(f"{self.storage.url}/{path} is not an intent: {error}") from error

    def _folder(self, number: int) -> str:
        return self._numbers.folder(number)

    def _manifest_path(self, number: int) -> str:
        return f"{self._folder(number)}/manifest.json"

    def _pruned_path(self, number: int) -> str:
        return f"{self._folder(number)}/pruned.json"

    def _intents(self, version: int) -> str:
        return f"{self.pipeline}/intents/{version:020d}"


def open_store(settings: Settings, pipeline: str) -> ModelStore:
    """The store that the settings name."""
    return ModelStore(open_storage(settings.store_url, settings.store), pipeline, Signing.of(settings.store))
