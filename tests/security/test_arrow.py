"""S02: Arrow bytes that claim or unpack to more than they may: in the files of a version, and in messages of producers."""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving import model
from stream_trainer import ipc
from stream_trainer.errors import Corrupt
from stream_trainer.reference import Reference, table_from_bytes, table_to_bytes
from stream_trainer.store import ModelStore
from stream_trainer.store.storage import LocalStorage
from stream_trainer.store.store import GOLDEN
from tests.core.test_store import Unsynced
from tests.core.worlds import arrow_bytes, code, flight, kafka_batch
from tests.security.forgery import forge
from tests.security.measured import MIB, costs
from tests.serving.fixtures import PIPELINE, commit_version, golden, learned_state

STATE = learned_state()
SMALL = ipc.Limits(unpacked=64 * MIB, cells=2**22)
GOOD_FILE = golden(PIPELINE, STATE)


def stream(columns: dict[str, pa.Array], codec: str | None = "zstd") -> bytes:
    """One record batch as a producer may send it."""
    batch = pa.record_batch(columns)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as writer:
        writer.write_batch(batch)
    return sink.getvalue()


def file_of(columns: dict[str, pa.Array], codec: str | None = "zstd") -> bytes:
    batch = pa.record_batch(columns)
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as writer:
        writer.write_batch(batch)
    return sink.getvalue()


def zeros(count: int) -> pa.Array:
    return pa.array(np.zeros(count))


def repeated(text_bytes: int, rows: int) -> pa.Array:
    """A dictionary of one long text that every row names: small on the wire, huge as Python."""
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array(["x" * text_bytes]))


def views(text_bytes: int, rows: int) -> pa.Array:
    """String views that all show the same long text."""
    view = struct.pack("<i4sii", text_bytes, b"xxxx", 0, 0)
    buffers = [None, pa.py_buffer(view * rows), pa.py_buffer(b"x" * text_bytes)]
    return pa.Array.from_buffers(pa.string_view(), rows, buffers)


def lying(data: bytes, honest: int, claim: int) -> bytes:
    """The bytes with a 64-bit number replaced wherever it stands."""
    changed = data.replace(struct.pack("<q", honest), struct.pack("<q", claim))
    assert changed != data
    return changed


BOMBS: dict[str, bytes] = {
    "zstd": stream({"x": zeros(2**27)}),
    "lz4": stream({"x": zeros(2**25)}, "lz4"),
    "many small columns": stream({f"x{i}": zeros(2**17) for i in range(100)}),
    "claimed length": lying(stream({"x": zeros(12_345)}), 8 * 12_345, 2**40),
    "negative length": lying(stream({"x": zeros(12_345)}), 8 * 12_345, -5),
    "claimed rows": lying(stream({"x": pa.nulls(12_345)}, None), 12_345, 2**40),
    "rows of nothing": lying(stream({"x": pa.nulls(12_345)}, None), 12_345, 2**31 - 1),
    "list of nothing": stream({"x": pa.FixedSizeListArray.from_arrays(pa.nulls(2**26), 2**26)}, None),
    "dictionary": stream({"x": pa.DictionaryArray.from_arrays(pa.array([0]), zeros(2**27))}),
    "one text many times": stream({"x": repeated(2**20, 20_000)}, None),
    "one view many times": stream({"x": views(2**20, 20_000)}, None),
    "runs": stream(
        {"x": pa.RunEndEncodedArray.from_arrays(pa.array([90_000], pa.int32()), pa.array(["x" * 2**20]))}, None
    ),
    "nested dictionary": stream({"x": pa.StructArray.from_arrays([repeated(2**20, 20_000)], ["y"])}, None),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("arrow")
    for i, data in enumerate(BOMBS.values()):
        (folder / str(i)).write_bytes(data)
    return folder


def test_s02_a_message_that_would_exhaust_a_worker_is_rejected_in_little_memory(files: Path) -> None:
    for (name, data), cost in zip(
        BOMBS.items(), costs("example", [files / str(i) for i in range(len(BOMBS))]), strict=True
    ):
        assert cost.outcome in ("read ['too_large']", "read ['invalid_arrow']"), (name, cost)
        assert cost.grown <= 3 * len(data) + 24 * MIB, (name, cost)


def test_s02_the_growth_of_an_honest_message_is_seen(tmp_path: Path) -> None:
    (tmp_path / "honest").write_bytes(stream({"x": zeros(50_000)}))
    (cost,) = costs("example", [tmp_path / "honest"])
    assert cost.outcome == "read ['missing_field']"
    assert cost.grown > 4 * MIB


def test_s02_a_compressed_message_is_still_read() -> None:
    from tests.core.test_decode import table
    from tests.core.worlds import CONTRACT

    sink = io.BytesIO()
    good = table()
    for codec in ("zstd", "lz4"):
        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, good.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as writer:
            writer.write_table(good)
        from stream_trainer.decode import decode

        rows = decode(CONTRACT, kafka_batch([sink.getvalue(), arrow_bytes(good)], arrow=True)).to_pylist()
        assert [code(row) for row in rows] == [None] * (2 * good.num_rows)


ABUSED_FILES: dict[str, bytes] = {
    "empty": b"",
    "magic only": b"ARROW1\0\0",
    "no magic": b"PARROT1\0" + GOOD_FILE[8:],
    "a stream": stream({"x": zeros(3)}),
    "truncated": GOOD_FILE[: len(GOOD_FILE) // 2],
    "zstd": file_of({"x": zeros(2**27)}),
    "claimed length": lying(file_of({"x": zeros(12_345)}), 8 * 12_345, 2**40),
    "claimed rows": lying(file_of({"x": pa.nulls(12_345)}, None), 12_345, 2**40),
    "list of nothing": file_of({"x": pa.FixedSizeListArray.from_arrays(pa.nulls(2**26), 2**26)}, None),
}


@pytest.mark.parametrize("name", ABUSED_FILES)
def test_s02_an_abused_arrow_file_is_corrupt(name: str) -> None:
    with pytest.raises(Corrupt):
        table_from_bytes(ABUSED_FILES[name], SMALL)


def test_s02_what_an_abused_arrow_file_costs_is_bounded(tmp_path: Path) -> None:
    for i, data in enumerate(ABUSED_FILES.values()):
        (tmp_path / str(i)).write_bytes(data)
    found = costs("table", [tmp_path / str(i) for i in range(len(ABUSED_FILES))])
    for (name, data), cost in zip(ABUSED_FILES.items(), found, strict=True):
        assert cost.outcome.startswith("Corrupt"), (name, cost)
        assert cost.grown <= 2 * len(data) + 24 * MIB, (name, cost)


def test_s02_a_footer_that_points_elsewhere_is_not_followed() -> None:
    table = pa.table({"x": [1, 2, 3]})
    assert table_from_bytes(table_to_bytes(table)[:-40]).equals(table)


def _golden_table() -> pa.Table:
    return table_from_bytes(GOOD_FILE)


def _with(name: str, column: Any) -> bytes:
    table = _golden_table()
    return table_to_bytes(table.set_column(table.schema.get_field_index(name), name, column))


ROWS = 8
STRANGE_GOLDEN: dict[str, bytes] = {
    **ABUSED_FILES,
    "no columns": table_to_bytes(pa.table({})),
    "a column less": table_to_bytes(_golden_table().drop_columns(["pressure"])),
    "a column more": table_to_bytes(_golden_table().append_column("more", pa.array(range(ROWS)))),
    "a column twice": table_to_bytes(_golden_table().append_column("distance", zeros(ROWS))),
    "text for numbers": _with("distance", pa.array(["a"] * ROWS)),
    "nested": _with("distance", pa.array([[1.0]] * ROWS)),
    "a dictionary": _with("carrier", pa.array(["AA"] * ROWS).dictionary_encode()),
    "ragged outputs": _with("_output", pa.array([[0.1], [0.1, 0.2], *[[0.1]] * 6], pa.list_(pa.float32()))),
    "no outputs": _with("_output", pa.array([None] * ROWS, pa.list_(pa.float32()))),
    "outputs that are not numbers": _with("_output", pa.array([[None]] * ROWS, pa.list_(pa.float32()))),
    "NaN outputs": _with("_output", pa.array([[float("nan")]] * ROWS, pa.list_(pa.float32()))),
    "null features": _with("distance", pa.array([None] * ROWS, pa.float64())),
    "too many rows": table_to_bytes(pa.concat_tables([_golden_table()] * 200)),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    made = ModelStore(LocalStorage(tmp_path_factory.mktemp("models"), Unsynced()), PIPELINE.name)
    commit_version(made, PIPELINE, STATE)
    commit_version(made, PIPELINE, STATE)
    return made


@pytest.mark.parametrize("name", STRANGE_GOLDEN)
def test_s02_the_service_refuses_strange_golden_rows(store: ModelStore, name: str) -> None:
    forge(store, 2, {GOLDEN: STRANGE_GOLDEN[name]})
    with pytest.raises(model.Refused) as refused:
        model.load(store, PIPELINE, 2)
    assert refused.value.reason in ("golden", "model")


@pytest.mark.parametrize("name", ABUSED_FILES)
def test_s02_a_drift_reference_that_is_none_is_corrupt(name: str) -> None:
    for data in (ABUSED_FILES[name], GOOD_FILE):
        with pytest.raises(Corrupt):
            Reference.from_bytes(data)


@settings(max_examples=300)
@given(st.integers(0, 8 * len(GOOD_FILE) - 1))
def test_s02_a_flipped_bit_in_an_arrow_file_gives_a_table_or_corrupt(bit: int) -> None:
    flipped = bytearray(GOOD_FILE)
    flipped[bit // 8] ^= 1 << (bit % 8)
    try:
        table_from_bytes(bytes(flipped), SMALL)
    except Corrupt:
        return


MESSAGE = arrow_bytes(pa.Table.from_pylist([flight(i) for i in range(4)]))


@settings(max_examples=300)
@given(st.integers(0, 8 * len(MESSAGE) - 1))
def test_s02_a_flipped_bit_in_a_message_gives_rows_or_rejections(bit: int) -> None:
    from stream_trainer.decode import decode
    from tests.core.worlds import CONTRACT

    flipped = bytearray(MESSAGE)
    flipped[bit // 8] ^= 1 << (bit % 8)
    decode(CONTRACT, kafka_batch([bytes(flipped)], arrow=True))
