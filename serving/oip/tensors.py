"""Tensor data to Python values and back: JSON arrays, and the bytes of the binary tensor data extension.

A tensor holds what its datatype can hold, so a value sent as FP32 is the same in JSON and in binary. Nothing is
allocated by a size that a request claims: what is claimed is compared with the bytes that are there first.
"""

import re
import struct
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from stream_trainer.schema import numbers

FIXED: dict[str, "np.dtype[Any]"] = {
    "BOOL": np.dtype("u1"),
    **{f"INT{8 * size}": np.dtype(f"<i{size}") for size in (1, 2, 4, 8)},
    **{f"UINT{8 * size}": np.dtype(f"<u{size}") for size in (1, 2, 4, 8)},
    **{f"FP{8 * size}": np.dtype(f"<f{size}") for size in (2, 4, 8)},
    "BF16": np.dtype("<u2"),  # the upper half of a float32
}
INTEGERS = frozenset(name for name, dtype in FIXED.items() if dtype.kind in "iu") - {"BOOL", "BF16"}
BINARY_ONLY = frozenset({"FP16", "BF16"})
FLOATS = frozenset({"FP32", "FP64"})

_EXACT = 2**53
_LENGTH = struct.Struct("<I")
_NESTED = re.compile(rb"[ \t\r\n]*\[[ \t\r\n]*\[")


Elements = list[Any] | NDArray[np.float64]  # an array when no element is missing


class Unusable(ValueError):
    """Tensor data that cannot be read; `at` is the element it is about, such as `[3]`."""

    def __init__(self, reason: str, detail: str, at: str = "") -> None:
        self.reason = reason
        self.at = at
        super().__init__(detail)


def from_json(datatype: str, raw: bytes | memoryview, rows: int, columns: int | None, *, nullable: bool) -> Elements:
    """The elements of a JSON array, in row-major order.

    Args:
        datatype: of the tensor.
        raw: the array, flat or nested as `[rows, columns]`.
        rows: of the shape.
        columns: of the shape; None where it has one dimension.
        nullable: null is an element that is missing.

    Raises:
        Unusable: another form, another number of elements, or an element its datatype does not hold.
    """
    if datatype in BINARY_ONLY:
        raise Unusable("json_datatype", f"{datatype} has no JSON form: send it as binary data, or as FP32")
    nested = columns is not None and _NESTED.match(raw) is not None
    try:
        found: list[Any] = _decoder(datatype, columns if nested else None, nullable).decode(raw)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$")
        raise Unusable("invalid_value", what, where.rstrip("`")) from None
    except UnicodeDecodeError:
        raise Unusable("bad_utf8", "the text is not UTF-8") from None
    except ValueError as error:
        raise Unusable("invalid_json", str(error)) from None
    _count(found, rows if nested else rows * (columns or 1))
    values = list(chain.from_iterable(found)) if nested else found
    match datatype:
        case "FP32":
            return _single(values)
        case "UINT64":
            return _at_most(values, 2**64 - 1)
        case "BOOL":
            return [None if v is None else int(v) for v in values]
        case _:
            return values


def from_floats(datatype: str, values: list[float], count: int) -> Elements:
    """The elements of a flat JSON array of FP32 or FP64 whose numbers were read with the request.

    Raises:
        Unusable: another number of elements, or one that FP32 does not hold.
    """
    _count(values, count)
    return _single(values) if datatype == "FP32" else values


def _count(found: Sequence[Any], expected: int) -> None:
    if len(found) != expected:
        raise Unusable("wrong_count", f"{len(found)} elements, the shape says {expected}")


def from_binary(datatype: str, part: memoryview, count: int, *, nullable: bool) -> list[Any]:
    """The elements of a tensor's bytes: little endian, row major, no padding.

    BYTES is a 4-byte length and UTF-8 each; in floats NaN is an element that is missing, where that may be.

    Raises:
        Unusable: the bytes are not exactly `count` elements, or one cannot be used.
    """
    if datatype == "BYTES":
        return _texts(part, count)
    dtype = FIXED[datatype]
    if len(part) != count * dtype.itemsize:
        raise Unusable("wrong_size", f"{len(part)} bytes, {count} elements of {datatype} are {count * dtype.itemsize}")
    array = np.frombuffer(part, dtype)
    if datatype == "BOOL" and (odd := np.flatnonzero(array > 1)).size:
        raise Unusable("invalid_value", f"a BOOL is the byte 0 or 1, not {array[odd[0]]}", f"[{odd[0]}]")
    if datatype == "BF16":
        array = (array.astype("<u4") << 16).view("<f4")
    return _floats(array, nullable=nullable) if array.dtype.kind == "f" else array.tolist()


def to_binary(datatype: str, values: Sequence[Any]) -> bytes:
    """The bytes of an output tensor of FP64 or BYTES; `values` may be nested."""
    if datatype == "BYTES":
        texts = [text.encode() for text in values]
        return b"".join(chain.from_iterable((_LENGTH.pack(len(text)), text) for text in texts))
    return np.asarray(values, FIXED[datatype]).tobytes()


def exact(values: list[Any]) -> list[Any]:
    """Integers that a float64 holds, as they are.

    Raises:
        Unusable: one of them would be rounded.
    """
    if max((abs(v) for v in values if v is not None), default=0) > _EXACT:
        for i, value in enumerate(values):
            if value is not None and int(float(value)) != value:
                raise Unusable("not_exact", f"{value} has no exact float64", f"[{i}]")
    return values


@lru_cache(maxsize=256)
def _decoder(datatype: str, columns: int | None, nullable: bool) -> msgspec.json.Decoder[Any]:
    element: Any = _element(datatype)
    array: Any = list[element | None] if nullable else list[element]
    if columns is not None:
        array = list[Annotated[array, Meta(min_length=columns, max_length=columns)]]
    return msgspec.json.Decoder(array)


def _element(datatype: str) -> Any:
    if datatype == "BYTES":
        return str
    if datatype == "BOOL":
        return bool
    if datatype not in INTEGERS:
        return float
    bounds = np.iinfo(FIXED[datatype])
    if datatype == "UINT64":  # its upper bound does not fit: see `_at_most`
        return Annotated[int, Meta(ge=0)]
    return Annotated[int, Meta(ge=int(bounds.min), le=int(bounds.max))]


def _at_most(values: list[Any], high: int) -> list[Any]:
    for i, value in enumerate(values):
        if value is not None and value > high:
            raise Unusable("invalid_value", f"Expected `int` <= {high}", f"[{i}]")
    return values


def _single(values: list[Any]) -> Elements:
    with np.errstate(over="ignore"):
        singles = numbers(values).astype(np.float32)
    if np.isfinite(singles).all():
        return singles.astype(np.float64)
    if (beyond := np.flatnonzero(np.isinf(singles))).size:
        raise Unusable("invalid_value", f"{values[beyond[0]]} is beyond FP32", f"[{beyond[0]}]")
    return _floats(singles, nullable=True)


def _floats(array: NDArray[Any], *, nullable: bool) -> list[Any]:
    missing = np.flatnonzero(np.isnan(array))
    with np.errstate(invalid="ignore"):  # a signalling NaN is a missing element like any other
        values: list[Any] = array.astype(np.float64).tolist()
    if missing.size and not nullable:
        raise Unusable("invalid_value", "NaN is not a number that can be used", f"[{missing[0]}]")
    for i in missing.tolist():
        values[i] = None
    return values


def _texts(part: memoryview, count: int) -> list[str]:
    if len(part) < _LENGTH.size * count:
        raise Unusable("wrong_size", f"{len(part)} bytes are too few for the lengths of {count} elements of BYTES")
    whole = part.tobytes()  # one copy: slices of bytes become texts faster than slices of a view
    found: list[str] = []
    at, end = 0, len(whole)
    for i in range(count):
        start = at + _LENGTH.size
        if start > end:
            raise Unusable("wrong_size", f"the bytes end before element {i} of {count}", f"[{i}]")
        at = start + _LENGTH.unpack_from(whole, at)[0]
        if at > end:
            raise Unusable("wrong_size", f"{at - start} bytes are claimed, {end - start} are left", f"[{i}]")
        try:
            found.append(whole[start:at].decode())
        except UnicodeDecodeError:
            raise Unusable("bad_utf8", "the text is not UTF-8", f"[{i}]") from None
    if at != end:
        raise Unusable("wrong_size", f"{end - at} bytes are left after {count} elements")
    return found
