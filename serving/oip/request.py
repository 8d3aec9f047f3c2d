"""An inference request's body to rows of the contract, and to what is wanted of the answer.

Values are checked by the very types that `/predict` parses with, so both accept the same values. What cannot be used
is refused with the place it stands at; nothing is guessed and no unknown tensor is skipped.
"""

import math
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import UNSET, Meta, UnsetType

from serving.answers import Wish
from serving.body import UNREADABLE, unreadable
from serving.oip.fields import Field, Output, inputs, outputs
from serving.oip.tensors import FLOATS, Elements, Unusable, exact, from_binary, from_floats, from_json
from serving.problems import Problem
from serving.rows import Columns, Matrix, Rows
from stream_trainer.contract import FLOAT32_MAX, Contract
from stream_trainer.schema import numbers, request_types

HEADER_LENGTH = "Inference-Header-Content-Length"

_Size = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_LENGTH = re.compile(r"[0-9]{1,19}")
_NUMERIC = frozenset({"number", "vector"})
# A number that is read takes up to sixteen times its bytes: of larger bodies only what their shape allows is read.
_ONE_PASS_BYTES = 128 * 1024
_NO_FIELD: tuple[int, Field | None] = (-1, None)


class _TensorParameters(msgspec.Struct, frozen=True):
    binary_data_size: _Size | None = None


class _AnyTensor(msgspec.Struct, frozen=True):
    name: str
    shape: list[_Size]
    datatype: str
    parameters: _TensorParameters | None = None


class _Tensor(_AnyTensor, frozen=True):
    data: msgspec.Raw | UnsetType = UNSET


class _Floats(_AnyTensor, frozen=True):
    """A tensor whose elements are read with the request: half the work of finding their end first."""

    data: list[float] | UnsetType = UNSET


class _OutputParameters(msgspec.Struct, frozen=True):
    binary_data: bool | None = None
    classification: Any = UNSET
    shared_memory_region: Any = UNSET


class _Output(msgspec.Struct, frozen=True):
    name: str
    parameters: _OutputParameters | None = None


class _Parameters(msgspec.Struct, frozen=True):
    binary_data_output: bool = False
    min_model_version: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    max_staleness_seconds: Annotated[float, Meta(gt=0)] = math.inf
    on_conflict: Literal[409, 503] = 503


class _Rest(msgspec.Struct, frozen=True, kw_only=True):
    id: str | None = None
    parameters: _Parameters | None = None
    outputs: list[_Output] | None = None


class _Body(_Rest, frozen=True):
    inputs: Annotated[list[_Tensor], Meta(min_length=1)]


class _FloatBody(_Rest, frozen=True):
    inputs: Annotated[list[_Floats], Meta(min_length=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One output tensor of an answer, as JSON or as binary data."""

    output: Output
    binary: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One inference request.

    Attributes:
        id: to be given back; None if there was none.
        rows: of the contract.
        wish: of the request's parameters.
        wanted: the outputs, in this order.
    """

    id: str | None
    rows: Rows
    wish: Wish
    wanted: tuple[Wanted, ...]


@dataclass(frozen=True, slots=True)
class _Input:
    """A tensor that a field was found for; `position` is the field's in a row, `place` the tensor's JSON path."""

    tensor: _Tensor | _Floats
    field: Field
    position: int
    columns: int | None
    place: str


class RequestParser:
    """Bodies to `Asked`; holds what a contract's requests have in common."""

    def __init__(self, contract: Contract, max_rows: int) -> None:
        self._fields = {field.name: (i, field) for i, field in enumerate(inputs(contract))}
        self._required = [field.name for field in inputs(contract) if field.required]
        self._outputs = {output.name: output for output in outputs(contract)}
        self._types = [_list_of(kind) for kind in request_types(contract)]
        self._max_rows = max_rows
        self._decoder = msgspec.json.Decoder(_Body)
        of_floats = all(field.kind in _NUMERIC for field in inputs(contract) if field.required)
        self._of_floats = msgspec.json.Decoder(_FloatBody) if of_floats else None

    def parse(self, body: bytes, header_length: str | None) -> Asked:
        """A whole request.

        Args:
            body: JSON, and binary data after it.
            header_length: the header that says where the JSON ends; None if there is none.

        Raises:
            Problem: 400 with what is wrong and where, 413 when there are too many rows.
        """
        text, binary = _split(body, header_length)
        asked = self._decode(text)
        found = self._inputs(asked.inputs)
        rows = self._count(found)
        columns = self._columns(found, rows, binary, has_header=header_length is not None)
        parameters = asked.parameters or _Parameters()
        return Asked(
            id=asked.id,
            rows=Rows.of_columns(columns),
            wish=Wish(
                min_version=parameters.min_model_version,
                max_staleness=parameters.max_staleness_seconds,
                conflict=parameters.on_conflict == 409,
            ),
            wanted=self._wanted(asked.outputs or [], binary=parameters.binary_data_output),
        )

    def _decode(self, text: memoryview) -> _Body | _FloatBody:
        if self._of_floats is not None and len(text) <= _ONE_PASS_BYTES:
            # What fails is another kind of tensor, or a mistake, which the other decoder knows how to name.
            with suppress(*UNREADABLE):
                found = self._of_floats.decode(text)
                if all(tensor.datatype in FLOATS for tensor in found.inputs):
                    return found
        try:
            return self._decoder.decode(text)
        except UNREADABLE as error:
            raise unreadable(error, 400) from None

    def _inputs(self, tensors: Sequence[_Tensor | _Floats]) -> list[_Input]:
        found: dict[str, _Input] = {}
        for i, tensor in enumerate(tensors):
            place = f"$.inputs[{i}]"
            position, field = self._fields.get(tensor.name, _NO_FIELD)
            if field is None:
                detail = f"there is no input {tensor.name[:64]!r}, there are {', '.join(self._fields)}"
                raise _refusal("unknown_input", detail, f"{place}.name")
            if field.name in found:
                raise _refusal("duplicate_input", f"{field.name} is there twice", f"{place}.name")
            if tensor.datatype not in field.datatypes:
                detail = f"{field.name} takes {', '.join(sorted(field.datatypes))}, not {tensor.datatype[:16]!r}"
                raise _refusal("wrong_datatype", detail, f"{place}.datatype")
            try:
                columns = field.columns_of(tensor.shape)
            except ValueError as error:
                raise _refusal("wrong_shape", str(error), f"{place}.shape") from None
            found[field.name] = _Input(tensor, field, position, columns, place)
        if missing := [name for name in self._required if name not in found]:
            raise _refusal("missing_input", f"these inputs are needed as well: {', '.join(missing)}", "$.inputs")
        return list(found.values())

    def _count(self, found: Sequence[_Input]) -> int:
        rows = found[0].tensor.shape[0]
        for one in found:
            if one.tensor.shape[0] != rows:
                detail = f"{one.field.name} has {one.tensor.shape[0]} rows, {found[0].field.name} has {rows}"
                raise _refusal("wrong_shape", detail, f"{one.place}.shape")
        if rows == 0:
            raise _refusal("wrong_shape", "there are no rows", f"{found[0].place}.shape")
        if rows > self._max_rows:
            detail = f"{rows} rows, at most {self._max_rows} are answered at once"
            raise Problem(413, "too_many_rows", detail, where=f"{found[0].place}.shape")
        return rows

    def _columns(self, found: Sequence[_Input], rows: int, binary: memoryview, *, has_header: bool) -> Columns:
        """Every field's values, checked as the contract's structs check them; null for a field that nobody gave."""
        nulls = [None] * rows
        columns: list[Sequence[Any] | Matrix] = [nulls] * len(self._types)
        at = 0
        for one in found:
            size = _binary_size(one, has_header=has_header)
            if size is not None and size > len(binary) - at:
                detail = f"{size} bytes are claimed, {len(binary) - at} are left of the binary data"
                raise _refusal("wrong_size", detail, f"{one.place}.parameters.binary_data_size")
            values = _values(one, rows, None if size is None else binary[at : at + size])
            columns[one.position] = _checked(values, self._types[one.position], one)
            at += size or 0
        if at != len(binary):
            raise _refusal("wrong_size", f"{len(binary) - at} bytes after the binary data belong to no input", "$")
        return tuple(columns)

    def _wanted(self, asked: Sequence[_Output], *, binary: bool) -> tuple[Wanted, ...]:
        if not asked:
            return tuple(Wanted(output=output, binary=binary) for output in self._outputs.values())
        wanted: dict[str, Wanted] = {}
        for i, one in enumerate(asked):
            place = f"$.outputs[{i}]"
            output = self._outputs.get(one.name)
            if output is None:
                detail = f"there is no output {one.name[:64]!r}, there are {', '.join(self._outputs)}"
                raise _refusal("unknown_output", detail, f"{place}.name")
            if output.name in wanted:
                raise _refusal("duplicate_output", f"{output.name} is there twice", f"{place}.name")
            given = one.parameters or _OutputParameters()
            if given.classification is not UNSET or given.shared_memory_region is not UNSET:
                detail = "neither classification nor shared memory is supported"
                raise _refusal("unsupported", detail, f"{place}.parameters")
            wanted[output.name] = Wanted(
                output=output, binary=binary if given.binary_data is None else given.binary_data
            )
        return tuple(wanted.values())


def _split(body: bytes, header_length: str | None) -> tuple[memoryview, memoryview]:
    whole = memoryview(body)
    if header_length is None:
        return whole, whole[len(whole) :]
    if not _LENGTH.fullmatch(header_length) or int(header_length) > len(whole):
        detail = f"{HEADER_LENGTH} is the length of the JSON before the binary data, at most the body's {len(whole)}"
        raise Problem(400, "invalid_header", detail, header=HEADER_LENGTH)
    return whole[: int(header_length)], whole[int(header_length) :]


def _binary_size(one: _Input, *, has_header: bool) -> int | None:
    size = one.tensor.parameters.binary_data_size if one.tensor.parameters else None
    if (size is None) == (one.tensor.data is UNSET):
        detail = f"{one.field.name} needs either data or the parameter binary_data_size"
        raise _refusal("missing_data" if size is None else "two_data", detail, one.place)
    if size is not None and not has_header:
        raise Problem(400, "invalid_header", f"binary data needs the header {HEADER_LENGTH}", header=HEADER_LENGTH)
    return size


def _values(one: _Input, rows: int, part: memoryview | None) -> Elements:
    """The elements, as they stand in the tensor."""
    tensor, field = one.tensor, one.field
    data = f"{one.place}.data" if part is None else one.place
    try:
        values: Elements
        if part is not None:
            values = from_binary(tensor.datatype, part, rows * field.size, nullable=field.nullable)
        elif isinstance(tensor.data, list):
            values = from_floats(tensor.datatype, tensor.data, rows * field.size)
        else:
            raw = memoryview(tensor.data) if isinstance(tensor.data, msgspec.Raw) else b""
            values = from_json(tensor.datatype, raw, rows, one.columns, nullable=field.nullable)
        if field.kind in _NUMERIC and tensor.datatype in ("INT64", "UINT64"):
            values = exact(list(values))
    except Unusable as error:
        raise _refusal(error.reason, str(error), data + error.at) from None
    return values


def _checked(values: Elements, kind: Any, one: _Input) -> Sequence[Any] | Matrix:
    """A value a row, as the contract's structs would have it; the rows of a vector as one array."""
    size = one.field.size
    if one.field.kind == "vector":
        matrix: Matrix = numbers(values).reshape(-1, size)
        if np.abs(matrix).max(initial=0.0) <= FLOAT32_MAX:
            return matrix
        values = [list(values[at : at + size]) for at in range(0, len(values), size)]
    return _converted(values if isinstance(values, list) else values.tolist(), kind, one)


def _converted(values: list[Any], kind: Any, one: _Input) -> list[Any]:
    try:
        found: list[Any] = msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$")
        data = one.place if one.tensor.data is UNSET else f"{one.place}.data"
        raise _refusal("invalid_value", what, data + where.rstrip("`")) from None
    return found


def _list_of(kind: Any) -> Any:
    return list[kind]


def _refusal(reason: str, detail: str, where: str) -> Problem:
    return Problem(400, reason, detail, where=where)
