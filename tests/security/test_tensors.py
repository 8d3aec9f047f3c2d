"""S02: safetensors that lie about themselves are refused, at a cost that their size bounds."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from serving import model
from stream_trainer.errors import Corrupt
from stream_trainer.store import ModelStore, tensors
from stream_trainer.store.storage import LocalStorage
from stream_trainer.store.store import WEIGHTS
from tests.core.test_store import Unsynced
from tests.security.forgery import entry, file_path, forge, safetensors
from tests.security.measured import MIB, costs
from tests.serving.fixtures import PIPELINE, commit_version, learned_state

BODY = bytes(16)
STATE = learned_state()
VALID = tensors.to_bytes({"a": torch.arange(4.0), "b": torch.ones(2, 3), "c": torch.tensor([1, 2], dtype=torch.uint8)})
ABUSES = {
    "empty": b"",
    "too short": b"\x01\x02",
    "huge header length": safetensors(b"{}", length=2**63),
    "header beyond the file": safetensors(b"{}", length=3),
    "header of no length": safetensors(b"", BODY),
    "no object": safetensors(b"[]"),
    "not json": safetensors(b"{]"),
    "not utf8": safetensors(b'{"\xff\xfe": 1}'),
    "deep": safetensors(b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}"),
    "nan": safetensors(b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,16]}}', BODY),
    "long number": safetensors(b'{"a":{"dtype":"F32","shape":[' + b"9" * 5_000 + b'],"data_offsets":[0,16]}}', BODY),
    "overlap": safetensors({"a": entry(0, 12), "b": entry(8, 16)}, BODY),
    "the same bytes": safetensors({"a": entry(0, 16), "b": entry(0, 16)}, BODY),
    "hole": safetensors({"a": entry(0, 4), "b": entry(8, 16)}, BODY),
    "negative": safetensors({"a": entry(-16, 0, shape=[4])}, BODY),
    "backwards": safetensors({"a": entry(16, 0, shape=[4])}, BODY),
    "beyond": safetensors({"a": entry(0, 32)}, BODY),
    "rest": safetensors({"a": entry(0, 8)}, BODY),
    "dtype too small": safetensors({"a": entry(0, 16, dtype="F64", shape=[4])}, BODY),
    "unknown dtype": safetensors({"a": entry(0, 16, dtype="PICKLE", shape=[4])}, BODY),
    "negative shape": safetensors({"a": entry(0, 16, shape=[-2, -2])}, BODY),
    "overflowing shape": safetensors({"a": entry(0, 16, shape=[2**62, 4, 2**62])}, BODY),
    "true for one": safetensors({"a": entry(0, 4, shape=[True])}, BODY[:4]),
    "empty and huge": safetensors({"a": entry(0, 0, shape=[0, 2**64])}),
    "many dimensions": safetensors({"a": entry(0, 4, shape=[1] * 100_000)}, BODY[:4]),
    "a name twice": safetensors(
        b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}',
        BODY,
    ),
    "a field twice": safetensors(b'{"a":{"dtype":"F32","dtype":"I32","shape":[4],"data_offsets":[0,16]}}', BODY),
    "unknown field": safetensors({"a": entry(0, 16) | {"code": "x"}}, BODY),
    "metadata": safetensors({"__metadata__": {"a": "b"}, "a": entry(0, 16)}, BODY),
    "a million tensors": safetensors({f"t{i}": entry(0, 0) for i in range(1_000_000)}),
    "too many tensors": safetensors({f"t{i}": entry(0, 0) for i in range(30_000)}),
}


def test_s02_what_is_whole_is_read() -> None:
    assert set(tensors.from_bytes(VALID, "here")) == {"a", "b", "c"}
    assert set(tensors.from_bytes(safetensors({"a": entry(0, 16)}, BODY), "here")) == {"a"}


@pytest.mark.parametrize("name", ABUSES)
def test_s02_abused_safetensors_are_refused(name: str) -> None:
    with pytest.raises(Corrupt, match="is not safetensors"):
        tensors.from_bytes(ABUSES[name], "the file")


def test_s02_what_reading_costs_is_bounded_by_the_size(tmp_path: Path) -> None:
    big = tensors.to_bytes({"a": torch.ones(8 * 2**20)})
    cases = {**ABUSES, "a large honest file": big}
    for i, data in enumerate(cases.values()):
        (tmp_path / str(i)).write_bytes(data)
    found = costs("tensors", [tmp_path / str(i) for i in range(len(cases))])
    for (name, data), cost in zip(cases.items(), found, strict=True):
        assert cost.outcome.startswith("Corrupt" if name in ABUSES else "read 1"), (name, cost)
        # The header's objects take more than its text; it is bounded for itself.
        assert cost.grown <= 2 * len(data) + 24 * MIB, (name, cost)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    made = ModelStore(LocalStorage(tmp_path_factory.mktemp("models"), Unsynced()), PIPELINE.name)
    for _ in range(2):
        commit_version(made, PIPELINE, STATE)
    return made


SOUND = tensors.to_bytes(STATE.serving)
NAME = min(STATE.serving)
STRANGE = {
    **ABUSES,
    "extra": tensors.to_bytes({**STATE.serving, "net.more": torch.ones(2)}),
    "extra elsewhere": tensors.to_bytes({**STATE.serving, "other": torch.ones(2)}),
    "missing": tensors.to_bytes({k: v for k, v in STATE.serving.items() if k != NAME}),
    "other shape": tensors.to_bytes({**STATE.serving, NAME: torch.ones(7, 3)}),
    "other type": tensors.to_bytes({**STATE.serving, NAME: STATE.serving[NAME].double()}),
    "none": tensors.to_bytes({}),
}


@pytest.mark.parametrize("name", STRANGE)
def test_s02_the_service_refuses_tensors_that_are_not_its_models(store: ModelStore, name: str) -> None:
    forge(store, 2, {WEIGHTS: STRANGE[name]})
    with pytest.raises(model.Refused) as refused:
        model.load(store, PIPELINE, 2)
    assert refused.value.reason == ("damaged" if name in ABUSES else "model")


@given(st.integers(0, 8 * len(VALID) - 1))
def test_s02_a_flipped_bit_gives_tensors_or_corrupt(bit: int) -> None:
    flipped = bytearray(VALID)
    flipped[bit // 8] ^= 1 << (bit % 8)
    try:
        found = tensors.from_bytes(bytes(flipped), "here")
    except Corrupt:
        return
    assert sum(t.numel() * t.element_size() for t in found.values()) == 16 + 24 + 2


@given(st.binary(max_size=200))
def test_s02_any_bytes_are_tensors_or_corrupt(data: bytes) -> None:
    for text in (data, safetensors(data), safetensors({"a": entry(0, 4)}, data)):
        try:
            tensors.from_bytes(text, "here")
        except Corrupt:
            continue


@settings(max_examples=25)
@given(st.integers(0, 8 * len(SOUND) - 1))
def test_s02_with_its_digest_a_flipped_file_is_the_same_or_refused(store: ModelStore, bit: int) -> None:
    forge(store, 2, {WEIGHTS: SOUND})
    flipped = bytearray(SOUND)
    flipped[bit // 8] ^= 1 << (bit % 8)
    store.storage.put(file_path(store, store.read(2), WEIGHTS), bytes(flipped))
    with pytest.raises(model.Refused):
        model.load(store, PIPELINE, 2)
    store.storage.put(file_path(store, store.read(2), WEIGHTS), SOUND)
    assert model.load(store, PIPELINE, 2).state.serving.keys() == STATE.serving.keys()


@settings(max_examples=25)
@given(st.integers(0, 8 * len(SOUND) - 1))
def test_s02_a_flipped_file_under_its_own_digest_serves_or_is_refused(store: ModelStore, bit: int) -> None:
    flipped = bytearray(SOUND)
    flipped[bit // 8] ^= 1 << (bit % 8)
    forge(store, 2, {WEIGHTS: bytes(flipped)})
    try:
        served = model.load(store, PIPELINE, 2)
    except model.Refused:
        return
    assert served.state.serving.keys() == STATE.serving.keys()
