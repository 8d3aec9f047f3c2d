"""S02 and S03: manifests that are none, that were changed, moved or replayed, or that nobody with the key has signed."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from serving import model
from stream_trainer.errors import Corrupt, NoVersion, StoreDamaged
from stream_trainer.settings import Settings, StoreSettings
from stream_trainer.store import ModelStore, open_store
from stream_trainer.store import manifest as manifests
from stream_trainer.store.signing import Signing
from stream_trainer.store.storage import LocalStorage
from stream_trainer.store.store import WEIGHTS
from tests.core.test_microbatch import PIPELINE as LEARNED_PIPELINE
from tests.core.test_microbatch import World, fill
from tests.core.test_schemas import check
from tests.core.test_store import GOLDEN_MANIFEST, Unsynced
from tests.security.forgery import file_path, forge, manifest_path
from tests.security.measured import MIB, costs
from tests.serving.fixtures import PIPELINE, commit_version, learned_state

KEY = b"k" * 32
STATE = learned_state()
Fields = dict[str, Any]


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return filled(ModelStore(LocalStorage(tmp_path, Unsynced()), PIPELINE.name))


def filled(store: ModelStore, versions: int = 3) -> ModelStore:
    """Versions that name their parents' digests, each of other weights."""
    for seed in range(versions):
        parent = store.read(seed).sha256 if seed else None
        commit_version(store, PIPELINE, learned_state(seed=seed), parent_sha256=parent)
    return store


def raw(store: ModelStore, number: int) -> bytes:
    return store.storage.get(manifest_path(store, number))


def put(store: ModelStore, number: int, data: bytes) -> None:
    store.storage.put(manifest_path(store, number), data)


def refused(store: ModelStore, number: int, reason: str = "damaged") -> None:
    """Neither the service nor the trainer takes it, nor what lists versions."""
    with pytest.raises(Corrupt):
        store.verify(number)
    with pytest.raises(model.Refused) as error:
        model.load(store, PIPELINE, number)
    assert error.value.reason == reason
    head = store.head()
    assert head is None or head.number < number


def changed(**fields: Any) -> Callable[[Fields], None]:
    return lambda manifest: manifest.update(fields)


STRANGE: dict[str, Callable[[Fields], None]] = {
    "version 0": changed(version=0),
    "version -1": changed(version=-1),
    "a huge version": changed(version=2**63),
    "a very long number": changed(seed=10**4000),
    "a text for a number": changed(version="3"),
    "a number for a text": changed(run_id=3),
    "no files": changed(files=None),
    "files of lists": changed(files=[]),
    "a negative size": lambda m: m["files"][WEIGHTS].update(size=-1),
    "a huge size": lambda m: m["files"][WEIGHTS].update(size=2**70),
    "a short digest": lambda m: m["files"][WEIGHTS].update(sha256="ab"),
    "an upper-case digest": lambda m: m["files"][WEIGHTS].update(sha256="A" * 64),
    "an instant without a zone": changed(created_at="2026-01-01T00:00:00"),
    "an instant that is none": changed(created_at="yesterday"),
    "a negative offset": changed(next_offsets={"t": {"0": -1}}),
    "a huge offset": changed(next_offsets={"t": {"0": 2**64}}),
    "a partition that is none": changed(next_offsets={"t": {"x": 1}}),
    "a negative partition": changed(next_offsets={"t": {"-1": 1}}),
    "a huge range": changed(ranges={"t": {"0": [0, 2**63]}}),
    "rows below none": lambda m: m["rows"].update(trained=-8),
    "its own parent": changed(parent=3),
    "a parent to come": changed(parent=4),
    "another pipeline": changed(pipeline="other"),
    "a field that is missing": lambda m: m.pop("gates"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_s02_a_strange_manifest_is_refused(store: ModelStore, name: str) -> None:
    fields: Fields = json.loads(raw(store, 3))
    STRANGE[name](fields)
    put(store, 3, json.dumps(fields, sort_keys=True, separators=(",", ":")).encode())
    head = store.head()
    assert head is not None
    assert head.number == 2
    with pytest.raises(model.Refused):
        model.load(store, PIPELINE, 3)


TEXTS: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda _: b"",
    "not utf8": lambda data: data.replace(b'"run"', b'"\xff"'),
    "deep": lambda data: data.replace(b'"metrics":{}', b'"metrics":{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "NaN": lambda data: data.replace(b'"metrics":{}', b'"metrics":{"a":NaN}'),
    "1e400": lambda data: data.replace(b'"metrics":{}', b'"metrics":{"a":1e400}'),
    "a name twice": lambda data: data.replace(b'"seed":0', b'"seed":0,"seed":0'),
    "another version twice": lambda data: data.replace(b'"version":3', b'"version":4,"version":3'),
    "a space": lambda data: data.replace(b'"seed":0', b'"seed": 0'),
    "more behind it": lambda data: data + b"{}",
    "a line": lambda data: data + b"\n",
    "other order": lambda data: data.replace(b'"seed":0,"strategy":"local"', b'"strategy":"local","seed":0'),
    "17 MiB": lambda data: data + b" " * (17 * MIB),
}


@pytest.mark.parametrize("name", TEXTS)
def test_s02_a_manifest_in_another_hand_is_refused(store: ModelStore, name: str) -> None:
    data = TEXTS[name](raw(store, 3))
    assert data != raw(store, 3)
    put(store, 3, data)
    refused(store, 3)


def test_s02_unknown_fields_of_a_later_program_are_passed_over(store: ModelStore) -> None:
    fields: Fields = json.loads(raw(store, 3)) | {"later": [1, {"a": 1.5}]}
    put(store, 3, manifests.canonical_json(fields))
    assert store.verify(3).number == 3


def test_s02_what_a_manifest_costs_is_bounded(tmp_path: Path, store: ModelStore) -> None:
    data = raw(store, 3)
    cases = {
        "deep": TEXTS["deep"](data),
        "a long list": data.replace(b'"metrics":{}', b'"metrics":{"a":[' + b"1," * 2**20 + b"1]}"),
        "a long text": data.replace(b'"run"', b'"' + b"r" * 8 * MIB + b'"'),
    }
    for i, case in enumerate(cases.values()):
        (tmp_path / str(i)).write_bytes(case)
    for (name, case), cost in zip(cases.items(), costs("manifest", [tmp_path / str(i) for i in range(3)]), strict=True):
        assert cost.outcome.startswith("Corrupt" if name == "deep" else "read"), cost
        assert cost.grown <= 12 * len(case) + 24 * MIB, (name, cost)


@settings(max_examples=300)
@given(st.data())
def test_s02_a_flipped_bit_is_a_manifest_or_corrupt(data: st.DataObject) -> None:
    flipped = bytearray(GOLDEN_MANIFEST)
    bit = data.draw(st.integers(0, 8 * len(flipped) - 1))
    flipped[bit // 8] ^= 1 << (bit % 8)
    try:
        manifests.decode(bytes(flipped), "here")
    except Corrupt:
        return


def test_s03_a_flipped_byte_of_the_weights_is_refused(store: ModelStore) -> None:
    path = file_path(store, store.read(3), WEIGHTS)
    data = bytearray(store.storage.get(path))
    data[-1] ^= 1
    store.storage.put(path, bytes(data))
    refused(store, 3)


def test_s03_two_manifests_that_changed_places_are_refused(store: ModelStore) -> None:
    second, third = raw(store, 2), raw(store, 3)
    put(store, 2, third)
    put(store, 3, second)
    refused(store, 2)
    refused(store, 3)


def test_s03_files_that_changed_places_are_refused(store: ModelStore) -> None:
    paths = [file_path(store, store.read(n), WEIGHTS) for n in (2, 3)]
    data = [store.storage.get(path) for path in paths]
    for path, other in zip(paths, reversed(data), strict=True):
        store.storage.put(path, other)
    refused(store, 2)
    refused(store, 3)


def test_s03_an_old_manifest_under_a_new_number_is_refused(store: ModelStore) -> None:
    put(store, 4, raw(store, 2))
    assert store.highest() == 4
    refused(store, 4)


def test_s03_an_announced_digest_must_be_the_manifests(store: ModelStore) -> None:
    announced = store.read(3).sha256
    forge(store, 3, seed=1)
    with pytest.raises(model.Refused) as error:
        model.load(store, PIPELINE, 3, sha256=announced)
    assert error.value.reason == "digest"


def test_s03_a_version_on_another_parent_is_refused(store: ModelStore) -> None:
    forge(store, 3, parent_sha256="0" * 64)
    with pytest.raises(Corrupt, match="one of the two was changed"):
        store.verify(3)
    with pytest.raises(model.Refused) as error:
        model.load(store, PIPELINE, 3)
    assert error.value.reason == "chain"


def test_s03_a_parent_that_was_changed_after_it_was_read_is_noticed(store: ModelStore) -> None:
    assert model.load(store, PIPELINE, 2).number == 2
    assert model.load(store, PIPELINE, 3).number == 3
    honest = store.read(2)
    forge(store, 2, seed=1)
    assert store.read(2) != honest
    with pytest.raises(model.Refused) as error:
        model.load(store, PIPELINE, 3)
    assert error.value.reason == "chain"


def test_s03_a_manifest_is_remembered_by_its_bytes_and_its_number(store: ModelStore) -> None:
    before = store.read(3)
    assert store.read(3) is before
    put(store, 3, raw(store, 2))
    with pytest.raises(Corrupt, match="says it is version 2"):
        store.read(3)
    put(store, 3, raw(store, 1)[:-1])
    refused(store, 3)
    store.storage.delete(f"{store.pipeline}/versions/{3:020d}/manifest.json")
    with pytest.raises(NoVersion):
        store.read(3)


def test_s03_when_parent_and_child_disagree_the_trainer_believes_neither(tmp_path: Path) -> None:
    world = World(LocalStorage(tmp_path, Unsynced()))
    for n in range(3):
        fill(world, 40 * n)
        world.learn()
    undisturbed = {n: world.store.read(n).manifest.files[WEIGHTS] for n in (1, 3)}
    forge(world.store, 2, seed=77)
    for number in (2, 3):
        with pytest.raises(Corrupt, match="one of the two was changed"):
            world.store.verify(number)
    world.restart()
    # Versions 2 and 3 were learned again, as one, on top of version 1.
    head = world.lineage.head
    assert head is not None
    assert (head.number, head.manifest.parent) == (4, 1)
    assert head.manifest.files[WEIGHTS] == undisturbed[3]


# Signatures.


@pytest.fixture
def signed(tmp_path: Path) -> ModelStore:
    return filled(ModelStore(LocalStorage(tmp_path / "signed", Unsynced()), PIPELINE.name, Signing(KEY)))


def read_with(store: ModelStore, *args: Any) -> ModelStore:
    return ModelStore(store.storage, store.pipeline, Signing(*args))


def test_s03_without_a_key_nothing_is_signed_and_everything_is_read(store: ModelStore, signed: ModelStore) -> None:
    assert b"signature" not in raw(store, 3)
    assert read_with(signed).verify(3) == signed.read(3)
    assert model.load(read_with(signed), PIPELINE, 3).number == 3


def test_s03_what_the_trainer_signs_is_read_with_its_key(tmp_path: Path) -> None:
    world = World(LocalStorage(tmp_path, Unsynced()))
    world.store = read_with(world.store, KEY)
    fill(world)
    world.learn()
    fields: Fields = json.loads(raw(world.store, 1))
    assert fields["signature"].startswith("hmac-sha256:")
    check("manifest", fields)
    assert world.store.head() == world.lineage.head
    assert model.load(read_with(world.store, KEY), LEARNED_PIPELINE, 1).number == 1


def test_s03_a_lost_answer_of_a_signed_commit_is_a_success(signed: ModelStore) -> None:
    manifest = signed.read(3).manifest
    assert signed.commit(msgspec.structs.replace(manifest, signature=msgspec.UNSET)).sha256 == signed.read(3).sha256


@pytest.mark.parametrize(
    "forgery",
    [
        lambda store: forge(store, 3, seed=1),
        lambda store: forge(store, 3, {WEIGHTS: store.storage.get(file_path(store, store.read(2), WEIGHTS))}),
        lambda store: forge(store, 3, signature=msgspec.UNSET),
        lambda store: forge(store, 3, signature=""),
        lambda store: forge(store, 3, signature="hmac-sha256:" + "0" * 64),
        lambda store: forge(store, 3, signature=store.read(2).manifest.signature),
        lambda store: forge(store, 3, signature="é" * 76),
        lambda store: put(store, 3, manifests.canonical_json(json.loads(raw(store, 3)) | {"later": 1})),
        lambda store: put(store, 3, manifests.canonical_json(json.loads(raw(store, 3)) | {"signature": None})),
        lambda store: put(store, 3, manifests.canonical_json(json.loads(raw(store, 3)) | {"signature": ["a"]})),
    ],
)
def test_s03_with_a_key_what_was_changed_or_not_signed_is_refused(
    signed: ModelStore, forgery: Callable[[ModelStore], object]
) -> None:
    forgery(read_with(signed))
    refused(signed, 3)
    head = signed.head()
    assert head is not None
    assert head.number == 2


def test_s03_an_old_signed_manifest_under_a_new_number_is_refused(signed: ModelStore) -> None:
    put(signed, 4, raw(signed, 2))
    refused(signed, 4)


def test_s03_another_key_is_not_believed_and_a_former_one_is(signed: ModelStore) -> None:
    with pytest.raises(StoreDamaged):
        read_with(signed, b"n" * 32).head()
    rotated = read_with(signed, b"n" * 32, (KEY,))
    assert rotated.verify(3).number == 3
    commit_version(rotated, PIPELINE, STATE)
    assert read_with(signed, b"n" * 32, (KEY,)).verify(4).number == 4
    with pytest.raises(Corrupt, match="another key"):
        signed.verify(4)


def test_s03_versions_older_than_the_key_are_read_when_the_settings_say_so(store: ModelStore) -> None:
    with pytest.raises(StoreDamaged):
        read_with(store, KEY).head()
    adopting = read_with(store, KEY, (), 3)
    commit_version(adopting, PIPELINE, STATE, parent_sha256=adopting.read(3).sha256)
    head = adopting.head()
    assert head is not None
    assert head.number == 4
    forge(read_with(store), 4, signature=msgspec.UNSET)
    refused(adopting, 4)


def test_s03_the_settings_hold_the_key_and_never_show_it(tmp_path: Path) -> None:
    key = "a canary that is long enough to be a key"
    chosen = Settings(store=StoreSettings(url=str(tmp_path), signing_key=SecretStr(key)))
    store = open_store(chosen, PIPELINE.name)
    commit_version(store, PIPELINE, STATE)
    assert b"hmac-sha256:" in raw(store, 1)
    assert key not in repr(chosen) + chosen.model_dump_json() + repr(store.__dict__) + raw(store, 1).decode()
    for short in ({"signing_key": "short"}, {"former_signing_keys": [key]}, {"unsigned_through": 3}):
        with pytest.raises(ValidationError):
            StoreSettings.model_validate(short)


def test_s03_signatures_do_not_depend_on_the_clock(signed: ModelStore) -> None:
    manifest = signed.read(3).manifest
    assert Signing(KEY).sign(manifest) == manifest
    moved = msgspec.structs.replace(manifest, created_at=datetime(2030, 1, 1, tzinfo=UTC))
    assert Signing(KEY).sign(moved).signature != manifest.signature
