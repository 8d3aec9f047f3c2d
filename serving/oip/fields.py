"""The tensors of a contract: what an input is called, which datatypes it takes, and what comes out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

import msgspec

from serving.oip.tensors import FIXED, INTEGERS
from stream_trainer.contract import Categorical, ClassLabel, Contract, Feature, Numeric, Vector
from stream_trainer.schema import field_names

Kind = Literal["number", "vector", "text", "key", "time"]

OUTPUT = "output"
PREDICTION_ID = "prediction_id"

_TAKES: Mapping[Kind, frozenset[str]] = {
    "number": frozenset(FIXED),
    "vector": frozenset(FIXED),
    "text": frozenset({"BYTES"}),
    "key": frozenset({"BYTES", *INTEGERS}),
    "time": frozenset({"BYTES", "FP64", *INTEGERS}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One input tensor.

    Attributes:
        name: the contract's field.
        kind: what its elements are read as.
        size: elements a row; 1 but for vectors.
        required: without it there is no row.
        nullable: an element may be missing: null in JSON, NaN in binary floats.
    """

    name: str
    kind: Kind
    size: int = 1
    required: bool
    nullable: bool

    @property
    def datatype(self) -> str:
        """The datatype that the metadata names: it carries every value the contract accepts."""
        return "FP64" if self.kind in ("number", "vector") else "BYTES"

    @property
    def datatypes(self) -> frozenset[str]:
        """Every datatype that is taken."""
        return _TAKES[self.kind]

    @property
    def shape(self) -> list[int]:
        """-1 stands for the rows."""
        return [-1, self.size] if self.kind == "vector" else [-1]

    def columns_of(self, shape: list[int]) -> int | None:
        """The second dimension of a shape this field takes, None where there is none.

        Raises:
            ValueError: it takes no such shape.
        """
        if self.kind != "vector" and len(shape) == 1:
            return None
        if len(shape) == 2 and shape[1] == self.size:
            return shape[1]
        wanted = f"[rows, {self.size}]" if self.kind == "vector" else "[rows] or [rows, 1]"
        raise ValueError(f"{self.name} has the shape {wanted}, not {shape[:8]}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One output tensor; `size` is None for one element a row."""

    name: str
    datatype: str
    size: int | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)

    def shape(self, rows: int) -> list[int]:
        """The shape for so many rows; -1 is any number."""
        return [rows] if self.size is None else [rows, self.size]


@lru_cache(maxsize=64)
def inputs(contract: Contract) -> tuple[Field, ...]:
    """The input tensors, in the order of the contract's rows."""
    found = [_feature(feature) for feature in contract.features]
    given: list[tuple[str, Kind]] = [(name, "text") for name in contract.extra_segments]
    given += [(contract.key, "key"), (contract.event_time, "time")]
    found += [Field(name=name, kind=kind, required=False, nullable=True) for name, kind in given]
    if tuple(f.name for f in found) != field_names(contract, "request"):  # pragma: no cover - two lists, one order
        raise AssertionError("the tensors are not the fields of a request")
    return tuple(found)


@lru_cache(maxsize=64)
def outputs(contract: Contract) -> tuple[Output, ...]:
    """The output tensors, in the order they come in when nobody asks for another."""
    label = contract.label
    if isinstance(label, ClassLabel):
        names = msgspec.json.encode(list(label.classes)).decode()
        found = Output(name=OUTPUT, datatype="FP64", size=len(label.classes), parameters={"classes": names})
    else:
        found = Output(name=OUTPUT, datatype="FP64")
    return found, Output(name=PREDICTION_ID, datatype="BYTES")


def _feature(feature: Feature) -> Field:
    match feature:
        case Numeric(name=name, optional=optional):
            return Field(name=name, kind="number", required=not optional, nullable=optional)
        case Categorical(name=name, optional=optional):
            return Field(name=name, kind="text", required=not optional, nullable=optional)
        case Vector(name=name, size=size):
            return Field(name=name, kind="vector", size=size, required=True, nullable=False)
