"""Arrow IPC bytes of strangers: how much they would unpack to is read from their metadata before anything is unpacked.

A compressed buffer begins with its uncompressed length, and Arrow allocates that much: a message of a few kilobytes may
claim gigabytes. Lengths of columns are claims too. Never a number from here is believed beyond its limit.

Source: the Arrow columnar format, "Serialization and IPC", and `Message.fbs` of it.
"""

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from stream_trainer.errors import Corrupt

_MAGIC = b"ARROW1\0\0"
_VERSION_5, _DICTIONARY, _RECORDS = 4, 2, 3
_NOT_COMPRESSED = -1
_WORTH_THREADS = 2**20
_WORTH_COMPRESSION = 2**16


@dataclass(frozen=True, slots=True)
class Limits:
    """What may come out: bytes of all buffers together, and values of all columns together, nested ones included."""

    unpacked: int
    cells: int


FILE_LIMITS = Limits(unpacked=2**30, cells=2**27)


class TooLarge(ValueError):
    """It would unpack to more than its limits."""


def check_stream(data: pa.Buffer, limits: Limits) -> None:
    """Read the metadata of an IPC stream.

    Raises:
        TooLarge: it claims more than the limits.
        pa.ArrowException, OSError, ValueError: it is not a stream.
    """
    unpacked = cells = 0
    try:
        for message in _messages(data):
            found = _Found.of(message)
            unpacked += found.unpacked
            cells += found.cells
            if unpacked > limits.unpacked or cells > limits.cells:
                raise TooLarge(
                    f"it unpacks to {unpacked} bytes and {cells} values or more, "
                    f"at most {limits.unpacked} and {limits.cells} are read"
                )
    except (struct.error, EOFError, IndexError) as error:
        raise ValueError(f"its metadata is damaged: {error}") from error


def check_file(data: bytes, where: str, limits: Limits = FILE_LIMITS) -> pa.Buffer:
    """The stream inside an IPC file; the footer, which may point anywhere, is not used.

    Raises:
        Corrupt: it is not such a file, or claims more than the limits.
    """
    if not data.startswith(_MAGIC):
        raise Corrupt(f"{where} is not an Arrow file")
    stream = pa.py_buffer(data).slice(len(_MAGIC))
    try:
        check_stream(stream, limits)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise Corrupt(f"{where} cannot be read: {first_line(error)}") from error
    return stream


def read_file(data: bytes, where: str, limits: Limits = FILE_LIMITS) -> pa.Table:
    """The table in an IPC file; every value in it is valid for its type.

    Raises:
        Corrupt: it is not such a file, or claims more than the limits.
    """
    stream = check_file(data, where, limits)
    try:
        threads = stream.size >= _WORTH_THREADS
        with pa.ipc.open_stream(stream, options=pa.ipc.IpcReadOptions(use_threads=threads)) as reader:
            table = reader.read_all()
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise Corrupt(f"{where} cannot be read: {first_line(error)}") from error
    return table


def write_file(table: pa.Table) -> bytes:
    """An Arrow IPC file, Zstandard-compressed unless it is small: each buffer of each column costs ten microseconds to unpack."""
    sink = io.BytesIO()
    compression = "zstd" if table.nbytes >= _WORTH_COMPRESSION else None
    with pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table.combine_chunks())
    return sink.getvalue()


def text_bytes(column: pa.Array) -> int:
    """How many bytes of text and binary a validated column makes in Python, where nothing is shared.

    Raises:
        ValueError: it is of a type that an example has no use for, and that can repeat values without bound.
    """
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        return text_bytes(column.storage)
    if pa.types.is_dictionary(kind):
        lengths = _lengths(column.dictionary)
        return 0 if lengths is None else _sum(lengths.take(column.indices))
    if pa.types.is_struct(kind):
        return sum(text_bytes(child) for child in column.flatten())
    if pa.types.is_map(kind):
        return text_bytes(column.keys) + text_bytes(column.items)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return text_bytes(column.flatten())
    lengths = _lengths(column)
    return 0 if lengths is None else _sum(lengths)


def _lengths(column: pa.Array) -> pa.Array | None:
    """The length of each text or binary; None for numbers and the like."""
    kind = column.type
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        views = pa.Array.from_buffers(pa.int32(), 4 * (len(column) + column.offset), [None, column.buffers()[1]])
        return views.take(pa.array(range(4 * column.offset, 4 * (len(column) + column.offset), 4), pa.int64()))
    if (
        pa.types.is_string(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
    ):
        return pc.binary_length(column)
    if pa.types.is_primitive(kind) or pa.types.is_null(kind) or pa.types.is_decimal(kind):
        return None
    raise ValueError(f"a column of type {kind} is not read")


def _sum(lengths: pa.Array) -> int:
    return int(pc.sum(lengths.cast(pa.int64())).as_py() or 0)


def _messages(data: pa.Buffer) -> Iterator[pa.ipc.Message]:
    reader = pa.ipc.MessageReader.open_stream(pa.BufferReader(data))
    while True:
        try:
            yield reader.read_next_message()
        except StopIteration:
            return


@dataclass(frozen=True, slots=True)
class _Found:
    """What one message claims."""

    unpacked: int = 0
    cells: int = 0

    @classmethod
    def of(cls, message: pa.ipc.Message) -> "_Found":
        root = _Table.root(message.metadata.to_pybytes())
        kind = root.number(1, "<B")
        records = root.table(2) if kind in (_DICTIONARY, _RECORDS) else None
        if records is not None and kind == _DICTIONARY:
            records = records.table(1)
        if records is None:
            return cls()
        if root.number(0, "<h") != _VERSION_5 and root.has(4):
            raise ValueError("an obsolete format that hides whether it is compressed")
        compressed, body = records.has(3), message.body
        unpacked = sum(_unpacked(body, start, size, compressed=compressed) for start, size in records.pairs(2))
        lengths = [length for length, _ in records.pairs(1)]
        if any(length < 0 for length in lengths) or records.number(0, "<q") < 0:
            raise ValueError("a length is negative")
        return cls(unpacked, max(records.number(0, "<q"), sum(lengths)))


def _unpacked(body: pa.Buffer | None, start: int, size: int, *, compressed: bool) -> int:
    end = 0 if body is None else body.size
    if start < 0 or size < 0 or start + size > end:
        raise ValueError("a buffer lies outside of its message")
    if not compressed or body is None or size < struct.calcsize("<q"):
        return size
    (claimed,) = struct.unpack("<q", body.slice(start, 8).to_pybytes())
    if claimed == _NOT_COMPRESSED:
        return size
    if claimed < 0:
        raise ValueError("a length is negative")
    return int(claimed)


@dataclass(frozen=True, slots=True)
class _Table:
    """A table of FlatBuffers, as far as it is needed here: fields by their number."""

    data: bytes
    at: int

    @classmethod
    def root(cls, data: bytes) -> "_Table":
        return cls(data, _read(data, "<I", 0))

    def has(self, field: int) -> bool:
        return self._place(field) is not None

    def number(self, field: int, form: str) -> int:
        place = self._place(field)
        return 0 if place is None else _read(self.data, form, place)

    def table(self, field: int) -> "_Table | None":
        place = self._place(field)
        return None if place is None else _Table(self.data, place + _read(self.data, "<I", place))

    def pairs(self, field: int) -> Iterator[tuple[int, int]]:
        """A vector of structs of two 64-bit numbers."""
        place = self._place(field)
        if place is None:
            return
        start = place + _read(self.data, "<I", place)
        numbers = struct.unpack_from(f"<{2 * _read(self.data, '<I', start)}q", self.data, start + 4)
        yield from zip(numbers[::2], numbers[1::2], strict=True)

    def _place(self, field: int) -> int | None:
        vtable = self.at - _read(self.data, "<i", self.at)
        if 4 + 2 * field >= _read(self.data, "<H", vtable):
            return None
        offset = _read(self.data, "<H", vtable + 4 + 2 * field)
        return self.at + offset if offset else None


def _read(data: bytes, form: str, at: int) -> int:
    if at < 0:
        raise ValueError("its metadata is damaged: it points before its beginning")
    (value,) = struct.unpack_from(form, data, at)
    return int(value)


def first_line(error: Exception) -> str:
    """Arrow's messages go on for lines; this is what they are about."""
    return (str(error).splitlines() or [type(error).__name__])[0]
