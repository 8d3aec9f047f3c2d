import hashlib
import json
import secrets
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stream_trainer.errors import Corrupt, Fenced, NoVersion, StoreDamaged, StoreUnavailable
from stream_trainer.settings import Settings, StoreSettings
from stream_trainer.store import FileEntry, Manifest, ModelStore, Rows, Span, Version, open_store, tensors
from stream_trainer.store import manifest as manifests
from stream_trainer.store.disk import Disk
from stream_trainer.store.manifest import Verdict
from stream_trainer.store.storage import LocalStorage, Storage, open_storage
from stream_trainer.store.store import TRAINER, WEIGHTS, Intent
from stream_trainer.testing.disk import LostAnswers
from tests.core.worlds import NOW, TOPIC


class Unsynced(Disk):
    """A disk for tests that need no power cut."""

    def sync(self, handle: int) -> None:
        pass

    def sync_folder(self, path: Path) -> None:
        pass


FILES = {WEIGHTS: tensors.to_bytes({"w": torch.ones(3)}), TRAINER: tensors.to_bytes({"rng": torch.zeros(2)})}

GOLDEN_MANIFEST = (
    b'{"append_time":null,"attempt":"00ff","contract":"ccccccccccccccccccccccccccccccccccccccccccccccccccc'
    b'ccccccccccccc","covered_at":null,"cpu_capability":"DEFAULT","created_at":"2026-01-01T12:00:02Z","cut'
    b's":[{"flights.examples":{"0":[10,20]}}],"event_time":{"max":"2026-01-01T12:00:00Z","min":"2026-01-01'
    b'T12:00:00Z"},"files":{"w":{"sha256":"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb'
    b'b","size":3}},"format_version":1,"gates":[{"detail":"","gate":"finite","passed":true}],"hyperparamet'
    b'ers":{"learner":"sgd"},"libraries":{"torch":"2"},"lost":[],"metrics":{"accuracy":0.5,"rows":9},"next_offsets":'
    b'{"flights.examples":{"0":20,"10":5,"2":7}},"parent":1,"parent_sha256":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaa'
    b'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","partition_order":["flights.examples-0"],"pipeline":"flights","'
    b'previous":1,"quarantined":[],"ranges":{"flights.examples":{"0":[10,20]}},"reference":null,"rows":{"quarantined":0,"re'
    b'jected":1,"seen":10,"skipped":0,"trained":9},"run_id":"run","seed":0,"strategy":"local","threads":1,'
    b'"topic_ids":{"flights.examples":"11111111-2222-3333-4444-555555555555"},"total":{"quarantined":0,"re'
    b'jected":2,"seen":20,"skipped":0,"trained":18},"trained_through":"2026-01-01T12:00:00Z","unknown_fiel'
    b'ds":0,"version":2,"world_size":1}'
)


@pytest.fixture
def store(storage: Storage) -> ModelStore:
    return ModelStore(storage, "flights")


def digest_of(store: ModelStore, number: int) -> str | None:
    try:
        return store.read(number).sha256
    except (Corrupt, NoVersion):
        return None


def manifest(store: ModelStore, number: int, **fields: Any) -> Manifest:
    attempt = store.new_attempt()
    made = Manifest(
        pipeline=store.pipeline,
        contract="c" * 64,
        version=number,
        previous=number - 1 or None,
        parent=number - 1 or None,
        parent_sha256=digest_of(store, number - 1),
        run_id="run",
        attempt=attempt,
        created_at=NOW + timedelta(seconds=number),
        files=store.write_files(number, attempt, FILES),
        next_offsets={TOPIC: {0: 10 * number, 10: 5, 2: 7}},
        ranges={TOPIC: {0: (10 * number - 10, 10 * number)}},
        cuts=[{TOPIC: {0: (10 * number - 10, 10 * number)}}],
        topic_ids={TOPIC: "11111111-2222-3333-4444-555555555555"},
        rows=Rows(seen=10, trained=9, rejected=1),
        total=Rows(seen=10 * number, trained=9 * number, rejected=number),
        unknown_fields=0,
        event_time=Span(min=NOW, max=NOW),
        append_time=None,
        trained_through=NOW,
        covered_at=None,
        metrics={"rows": 9, "accuracy": 0.5},
        gates=[Verdict(gate="finite", passed=True, detail="")],
        strategy="local",
        world_size=1,
        partition_order=[f"{TOPIC}-0"],
        seed=0,
        hyperparameters={"learner": "sgd"},
        libraries={"torch": "2"},
        threads=1,
        cpu_capability="DEFAULT",
        reference=None,
    )
    return msgspec.structs.replace(made, **fields)


def commit(store: ModelStore, number: int, **fields: Any) -> Version:
    return store.commit(manifest(store, number, **fields))


def path_of(version: Version, name: str = "manifest.json") -> str:
    folder = f"flights/versions/{version.number:020d}"
    return f"{folder}/{name}" if name == "manifest.json" else f"{folder}/{version.manifest.attempt}/{name}"


def test_an_empty_store_has_no_versions(store: ModelStore) -> None:
    assert (store.highest(), store.numbers(), store.head(), store.champion()) == (0, [], None, None)
    with pytest.raises(NoVersion, match="no version 1"):
        store.read(1)


def test_what_was_committed_is_what_is_read(store: ModelStore) -> None:
    versions = [commit(store, n) for n in (1, 2, 3)]
    assert store.numbers() == [1, 2, 3]
    assert store.highest() == 3
    assert store.read(2) == versions[1]
    assert store.head() == versions[2] == store.verify(3)
    assert store.file(versions[0], WEIGHTS) == FILES[WEIGHTS]


def test_a_writer_that_dies_before_the_manifest_leaves_nothing_to_see(store: ModelStore) -> None:
    commit(store, 1)
    manifest(store, 2)
    assert (store.highest(), store.numbers()) == (1, [1])
    assert commit(store, 2).number == 2


def test_a_lost_answer_is_told_from_a_lost_race(store: ModelStore) -> None:
    mine = manifest(store, 1)
    first = store.commit(mine)
    assert store.commit(mine) == first
    with pytest.raises(Fenced, match="another trainer"):
        commit(store, 1, run_id="other")
    assert store.read(1) == first


@pytest.mark.parametrize("bad", [b"", b"{", b"{}", b"\xff\xfe\x00", b"[1]", b"null"])
def test_over_a_damaged_manifest_the_previous_version_is_head_and_the_number_is_taken(
    store: ModelStore, bad: bytes
) -> None:
    commit(store, 1)
    second = commit(store, 2)
    store.storage.put(path_of(second), bad)
    head = store.head()
    assert head is not None
    assert (head.number, store.highest()) == (1, 2)
    with pytest.raises(Corrupt, match="is not a manifest"):
        store.read(2)
    assert commit(store, 3, previous=2, parent=1).number == 3
    champion = store.champion()
    assert champion is not None
    assert champion.number == 3


@pytest.mark.parametrize("name", [WEIGHTS, TRAINER])
@pytest.mark.parametrize("damage", ["flip", "cut", "grow", "gone"])
def test_a_damaged_file_is_named_and_the_previous_version_is_head(store: ModelStore, name: str, damage: str) -> None:
    commit(store, 1)
    second = commit(store, 2)
    path, data = path_of(second, name), FILES[name]
    if damage == "gone":
        store.storage.delete(path)
    else:
        changed = {"flip": bytes([data[0] ^ 1]) + data[1:], "cut": data[:-1], "grow": data + b"\0"}[damage]
        store.storage.put(path, changed)
    with pytest.raises(Corrupt, match=name):
        store.verify(2)
    head = store.head()
    assert head is not None
    assert head.number == 1


def test_when_nothing_verifies_the_store_is_damaged_not_empty(store: ModelStore) -> None:
    for n in (1, 2):
        store.storage.put(path_of(commit(store, n)), b"{}")
    with pytest.raises(StoreDamaged, match="none of the 2 versions"):
        store.head()


def test_a_manifest_in_another_ones_place_is_refused(store: ModelStore) -> None:
    first, second = commit(store, 1), commit(store, 2)
    store.storage.put(path_of(second), store.storage.get(path_of(first)))
    with pytest.raises(Corrupt, match="says it is version 1"):
        store.read(2)
    store.storage.put(path_of(second), manifests.encode(manifest(store, 2, pipeline="other")))
    with pytest.raises(Corrupt, match="'other'"):
        store.read(2)


def test_a_manifest_of_a_newer_format_asks_for_an_upgrade(store: ModelStore) -> None:
    commit(store, 1, format_version=manifests.FORMAT + 1)
    with pytest.raises(Corrupt, match="upgrade"):
        store.read(1)


@pytest.mark.parametrize(
    "hint",
    [
        None,
        b"",
        b"garbage",
        b"\xff\xfe",
        b'{"\xff":1}',
        b"[]",
        b"{}",
        b'{"version":1}',
        b'{"version":0}',
        b'{"version":-5}',
        b'{"version":999}',
        b'{"version":"2"}',
        b'{"version":99999999999999999999999}',
    ],
)
def test_the_hint_is_never_believed(store: ModelStore, hint: bytes | None) -> None:
    for n in (1, 2, 3):
        commit(store, n)
    if hint is None:
        store.storage.delete("flights/CURRENT")
    else:
        store.storage.put("flights/CURRENT", hint)
    assert store.highest() == 3
    assert commit(store, 4).number == store.highest() == 4


def test_a_hint_that_cannot_be_written_does_not_undo_the_commit(store: ModelStore) -> None:
    class NoHint:
        def __getattr__(self, name: str) -> Any:
            return getattr(store.storage, name)

        def put(self, path: str, data: bytes) -> None:
            raise StoreUnavailable("no answer")

    broken = ModelStore(NoHint(), "flights")  # type: ignore[arg-type]
    with pytest.raises(StoreUnavailable):
        commit(broken, 1)
    assert store.highest() == 1
    assert store.head() is not None


def intent(cut: int, run_id: str, end: int = 5) -> Intent:
    return Intent(version=1, cut=cut, ranges={TOPIC: {0: (0, end)}}, strategy="local", seed=0, run_id=run_id)


def test_the_first_intent_of_a_cut_counts_whoever_asks(store: ModelStore) -> None:
    first = store.fix_cut(intent(0, "a", end=5))
    assert store.fix_cut(intent(0, "b", end=9)) == first == store.fix_cut(first)
    store.fix_cut(intent(10, "a"))
    store.fix_cut(intent(2, "a"))
    assert [i.cut for i in store.intents(1)] == [0, 2, 10]
    assert store.intents(2) == []


def test_a_damaged_intent_is_corrupt(store: ModelStore) -> None:
    store.storage.put("flights/intents/00000000000000000001/0.json", b"{")
    with pytest.raises(Corrupt, match=r"intents/0+1/0\.json"):
        store.intents(1)
    with pytest.raises(Corrupt, match=r"intents/0+1/0\.json"):
        store.fix_cut(intent(0, "a"))


def put_alias(store: ModelStore, n: int, version: int, *, hold: bool) -> None:
    entry = {"version": version, "reason": "r", "by": "b", "at": NOW, "hold": hold}
    store.storage.put(f"flights/aliases/champion/{n}.json", manifests.canonical_json(entry))


def test_the_alias_with_the_highest_number_counts(store: ModelStore) -> None:
    for n in range(1, 13):
        put_alias(store, n, version=n, hold=False)
    found = store.alias("champion")
    assert found is not None
    assert found.version == 12
    assert store.alias("none") is None


def test_a_held_alias_is_the_champion_until_it_is_released(store: ModelStore) -> None:
    for n in (1, 2, 3):
        commit(store, n)
    put_alias(store, 1, 1, hold=True)
    assert store.champion() == store.read(1)
    put_alias(store, 2, 1, hold=False)
    assert store.champion() == store.read(3)


def test_a_damaged_alias_is_corrupt(store: ModelStore) -> None:
    store.storage.put("flights/aliases/champion/1.json", b"nonsense")
    with pytest.raises(Corrupt, match=r"aliases/champion/1\.json"):
        store.champion()


def test_a_version_that_failed_a_gate_is_head_but_not_champion(store: ModelStore) -> None:
    commit(store, 1)
    failed = [Verdict(gate="finite", passed=False, detail="nan")]
    commit(store, 2, gates=failed, rows=Rows(seen=10, quarantined=10))
    head, champion = store.head(), store.champion()
    assert head is not None
    assert champion is not None
    assert (head.number, champion.number) == (2, 1)


def test_a_reference_is_named_by_its_digest_and_checked(store: ModelStore) -> None:
    digest = store.put_reference(b"bins")
    assert store.put_reference(b"bins") == digest == manifests.sha256(b"bins")
    assert store.reference(digest) == b"bins"
    commit(store, 1, reference=digest)
    store.verify(1)
    store.storage.put(f"flights/references/{digest}.arrow", b"other")
    with pytest.raises(Corrupt, match="not what its name says"):
        store.verify(1)
    store.storage.delete(f"flights/references/{digest}.arrow")
    with pytest.raises(Corrupt, match="is gone"):
        store.verify(1)


def test_a_file_that_the_manifest_does_not_name_is_refused(store: ModelStore) -> None:
    version = commit(store, 1)
    with pytest.raises(Corrupt, match=r"has no other\.bin"):
        store.file(version, "other.bin")


def test_two_pipelines_of_one_storage_do_not_meet(store: ModelStore, storage: Storage) -> None:
    commit(store, 1)
    other = ModelStore(storage, "flights2")
    assert other.highest() == 0
    assert other.head() is None


def test_what_is_not_a_version_folder_is_overlooked(store: ModelStore) -> None:
    commit(store, 1)
    store.storage.put("flights/versions/notes.txt", b"")
    store.storage.put("flights/versions/lost+found/x", b"")
    store.storage.delete("flights/CURRENT")
    assert store.numbers() == [1]
    assert store.highest() == 1


def test_the_canonical_bytes_of_a_manifest_are_what_they_always_were(tmp_path: Path) -> None:
    store = open_store(Settings(store=StoreSettings(url=str(tmp_path))), "flights")
    made = manifest(store, 2, parent_sha256="a" * 64, attempt="00ff", files={"w": FileEntry(size=3, sha256="b" * 64)})
    data = manifests.encode(made)
    seal = hashlib.sha256(GOLDEN_MANIFEST).hexdigest()
    assert data == GOLDEN_MANIFEST.replace(b'"contract"', b'"checksum":"%s","contract"' % seal.encode())
    assert json.loads(data)["next_offsets"][TOPIC] == {"0": 20, "2": 7, "10": 5}
    assert manifests.decode(data, "test") == manifests.sealed(made)
    assert manifests.encode(manifests.decode(data, "test")) == data


def test_a_manifest_from_before_the_checksum_still_opens_and_is_read_as_it_stands(store: ModelStore) -> None:
    fields = json.loads(manifests.encode(manifest(store, 1)))
    del fields["checksum"]
    old = manifests.canonical_json(fields)
    store.storage.put("flights/versions/00000000000000000001/manifest.json", old)
    found = store.read(1)
    assert found.sha256 == hashlib.sha256(old).hexdigest()
    assert found.manifest.checksum is msgspec.UNSET
    assert commit(store, 2).manifest.parent_sha256 == found.sha256
    head = store.head()
    assert head is not None
    assert head.number == 2


def test_a_field_of_a_later_program_is_covered_by_the_checksum_and_needs_one(store: ModelStore) -> None:
    fields = {**json.loads(manifests.encode(manifest(store, 1))), "later": 1}
    bare = {name: value for name, value in fields.items() if name != "checksum"}
    sealed = {**bare, "checksum": hashlib.sha256(manifests.canonical_json(bare)).hexdigest()}
    assert manifests.decode(manifests.canonical_json(sealed), "here").version == 1
    for wrong in (fields, bare):
        with pytest.raises(Corrupt, match="here is not what was committed"):
            manifests.decode(manifests.canonical_json(wrong), "here")


def test_the_order_of_names_does_not_change_the_bytes() -> None:
    assert manifests.canonical_json({"b": {10: 1, 9: 2}, "a": "é"}) == '{"a":"é","b":{"10":1,"9":2}}'.encode()


@pytest.mark.parametrize("field", ["version", "files", "next_offsets", "contract", "rows"])
def test_a_manifest_that_lacks_a_field_is_corrupt(tmp_path: Path, field: str) -> None:
    store = open_store(Settings(store=StoreSettings(url=str(tmp_path))), "flights")
    fields = json.loads(manifests.encode(manifest(store, 1)))
    del fields[field]
    with pytest.raises(Corrupt, match=field):
        manifests.decode(json.dumps(fields).encode(), "here")


def test_rows_add_up_field_by_field() -> None:
    assert Rows(seen=3, trained=2, rejected=1) + Rows(seen=1, quarantined=1) == Rows(
        seen=4, trained=2, rejected=1, quarantined=1
    )


def test_a_span_covers_both() -> None:
    early, late = Span(min=NOW, max=NOW), Span(min=NOW + timedelta(1), max=NOW + timedelta(2))
    assert late.union(early) == early.union(late) == Span(min=NOW, max=NOW + timedelta(2))
    assert early.union(None) == early


Named = dict[str, torch.Tensor]


@pytest.mark.parametrize(
    "make",
    [
        lambda: {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(5), "c": torch.zeros(0)},
        lambda: {"t": torch.arange(6.0).reshape(2, 3).T, "n": torch.tensor([float("nan"), -0.0])},
        lambda: {"u": torch.tensor([1, 2], dtype=torch.uint8), "o": torch.tensor([True]), "d": torch.ones(2).double()},
        dict,
    ],
)
def test_tensors_survive_being_stored_and_their_order_does_not_matter(make: Callable[[], Named]) -> None:
    given = make()
    data = tensors.to_bytes(given)
    assert data == tensors.to_bytes(dict(reversed(given.items())))
    found = tensors.from_bytes(data, "test")
    assert found.keys() == given.keys()
    for name, tensor in given.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        assert found[name].numpy().tobytes() == tensor.contiguous().numpy().tobytes()


@pytest.mark.parametrize("data", [b"", b"x", b"\xff" * 64, FILES[WEIGHTS][:-1], b"\x08\0\0\0\0\0\0\0{}"])
def test_bytes_that_are_not_safetensors_are_corrupt(data: bytes) -> None:
    with pytest.raises(Corrupt, match="here is not safetensors"):
        tensors.from_bytes(data, "here")


class Looks(LostAnswers):
    """Counts what is asked of another storage, listed names included; loses nothing."""

    def __init__(self, storage: Storage) -> None:
        super().__init__(storage, 0)
        self.count = 0

    def exists(self, path: str) -> bool:
        self.count += 1
        return super().exists(path)

    def names(self, prefix: str, after: str = "") -> list[str]:
        found = super().names(prefix, after)
        self.count += 1 + len(found)
        return found


def bare(storage: Storage, numbers: Iterable[int], hint: int | None) -> ModelStore:
    """A store of manifests that nobody can read, for looking numbers up."""
    for number in numbers:
        storage.put(f"flights/versions/{number:020d}/manifest.json", b"")
    if hint is not None:
        storage.put("flights/CURRENT", manifests.canonical_json({"version": hint}))
    return ModelStore(storage, "flights")


@given(
    st.sets(st.integers(1, 60), max_size=25),
    st.integers(0, 70),
    st.sets(st.integers(1, 70), max_size=3),
)
def test_the_highest_is_found_whatever_was_deleted_and_whatever_the_hint_says(
    tmp_path_factory: pytest.TempPathFactory, deleted: set[int], hint: int, orphans: set[int]
) -> None:
    storage = LocalStorage(tmp_path_factory.mktemp("store"), Unsynced())
    there = set(range(1, 61)) - deleted
    store = bare(storage, there, hint)
    for number in orphans - there:
        storage.put(f"flights/versions/{number:020d}/attempt/weights.safetensors", b"")
    highest = max(there, default=0)
    found = store.highest()
    assert found <= highest
    if hint not in there or not any(set(range(n, n + 16)).isdisjoint(there) for n in range(hint + 1, highest)):
        assert found == highest
    with pytest.raises(StoreDamaged) if there else nullcontext():
        store.head()
    assert store.highest() == found
    assert set(store.numbers()) == {n for n in there | orphans if n <= highest}


@pytest.mark.parametrize("hint", [2000, 1999, 7, None, 5000])
def test_the_highest_of_thousands_is_found_in_a_few_looks(tmp_path: Path, hint: int | None) -> None:
    storage = Looks(LocalStorage(tmp_path, Unsynced()))
    store = bare(storage, range(1, 2001), hint)
    storage.count = 0
    assert store.highest() == 2000
    listing = {2000: 0, 1999: 0, 7: 1}.get(hint or 0, 2001)  # one, when no crash leaves such a hint
    assert storage.count - listing < (32 if hint == 2000 else 60)
    storage.count = 0
    assert store.highest() == 2000
    assert storage.count <= 32


@pytest.mark.parametrize("behind", [0, 1])
def test_the_head_of_thousands_is_found_without_a_listing(tmp_path: Path, behind: int) -> None:
    storage = Looks(LocalStorage(tmp_path, Unsynced()))
    store = bare(storage, range(1, 2000), None)
    commit(store, 2000)
    storage.put("flights/CURRENT", manifests.canonical_json({"version": 2000 - behind}))
    storage.count = 0
    head = ModelStore(storage, "flights").head()
    assert head is not None
    assert head.number == 2000
    assert storage.count < 40


@pytest.mark.parametrize("kept", [range(20, 51), range(33, 42), range(200, 400)])
def test_a_hint_far_behind_is_not_believed_across_a_long_gap(tmp_path: Path, kept: range) -> None:
    store = bare(LocalStorage(tmp_path, Unsynced()), [1, 2, 3, *kept], 3)
    assert store.highest() == kept[-1]


def test_in_a_bucket_a_gap_of_any_size_is_seen(s3: StoreSettings) -> None:
    store = bare(open_storage(f"s3://models/{secrets.token_hex(4)}", s3), [1, 2, 3, 50], 3)
    assert store.highest() == 50
    assert ModelStore(Looks(store.storage), "flights").highest() == 50


def test_what_is_damaged_above_the_head_is_listed(store: ModelStore) -> None:
    for n in (1, 2, 3, 4):
        commit(store, n)
    store.storage.put(path_of(store.read(3)), b"{")
    store.storage.delete(path_of(store.read(4), WEIGHTS))
    head = store.head()
    assert head is not None
    assert head.number == 2
    found = store.damaged_after(2)
    assert list(found) == [3, 4]
    assert "is not a manifest" in found[3]
    assert "weights.safetensors is gone" in found[4]
    assert store.damaged_after(4) == {}
