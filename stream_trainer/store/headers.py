"""The header of a safetensors file, read before anything else sees the file: what claims much costs little.

What it describes has to be exactly the bytes that follow, without holes, overlaps or names that come twice. No torch:
a command that only verifies does not pay for it.
"""

import json
import math
from typing import Any

import msgspec

from stream_trainer.errors import Corrupt

MAX_HEADER_BYTES = 4 * 2**20
MAX_TENSORS = 20_000
MAX_DIMENSIONS = 16
_LENGTH = 8
_BYTES_EACH = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "U16": 2,
    "I16": 2,
    "F16": 2,
    "BF16": 2,
    "U32": 4,
    "I32": 4,
    "F32": 4,
    "U64": 8,
    "I64": 8,
    "F64": 8,
}


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the header says of one tensor."""

    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


def check(data: bytes, where: str) -> None:
    """Look at the header only.

    Raises:
        Corrupt: it is not one, or describes something else than the bytes behind it.
    """
    try:
        header = _header(data)
        end = 0
        for name, entry in sorted(header.items(), key=lambda item: item[1].data_offsets):
            end = _end(name, entry, end)
    except (ValueError, RecursionError) as error:
        raise Corrupt(f"{where} is not safetensors: {error}") from error
    rest = len(data) - _LENGTH - int.from_bytes(data[:_LENGTH], "little")
    if end != rest:
        raise Corrupt(f"{where} is not safetensors: its tensors take {end} bytes, {rest} follow the header")


def _header(data: bytes) -> dict[str, _Entry]:
    length = int.from_bytes(data[:_LENGTH], "little")
    if len(data) < _LENGTH or length > len(data) - _LENGTH:
        raise ValueError("the header does not end in the file")
    if length > MAX_HEADER_BYTES:
        raise ValueError(f"a header of {length} bytes, at most {MAX_HEADER_BYTES} are read")
    text = data[_LENGTH : _LENGTH + length].decode()
    found: Any = json.loads(text, object_pairs_hook=_object)
    header = msgspec.convert(found, dict[str, _Entry])
    if len(header) > MAX_TENSORS:
        raise ValueError(f"{len(header)} tensors, at most {MAX_TENSORS} are read")
    return header


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name comes twice")
    return found


def _end(name: str, entry: _Entry, start: int) -> int:
    """Where a tensor ends, if it begins where the one before ended and is as long as its shape."""
    first, end = entry.data_offsets
    if entry.dtype not in _BYTES_EACH:
        raise ValueError(f"tensor {name[:80]!r} has an unknown type")
    if len(entry.shape) > MAX_DIMENSIONS or any(not 0 <= size < 2**63 for size in entry.shape):
        raise ValueError(f"tensor {name[:80]!r} has an impossible shape")
    if first != start or end - first != math.prod(entry.shape) * _BYTES_EACH[entry.dtype]:
        raise ValueError(f"tensor {name[:80]!r} does not lie where its shape and its neighbours put it")
    return end
