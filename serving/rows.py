"""Parsed rows of requests: whoever needs them as columns shares one transposition, and single rows need none.

The fields are those of `schema.field_names(contract, "request")`, in that order; every value is as the contract's
structs parse it. Rows are never changed.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

_FEW = 9  # rows; so few are joined as structs, more as columns that are there already

Matrix = NDArray[np.float64]
Columns = tuple[Sequence[Any] | Matrix, ...]


class Rows:
    """Rows as structs, as columns, or as both; the columns are made when somebody asks for them, once."""

    __slots__ = ("_columns", "_count", "_parts", "structs")

    def __init__(
        self,
        count: int,
        structs: Sequence[msgspec.Struct] | None,
        columns: Columns | None,
        parts: "Sequence[Rows] | None" = None,
    ) -> None:
        self._count = count
        self.structs = structs
        self._columns = columns
        self._parts = parts

    @classmethod
    def of(cls, structs: Sequence[msgspec.Struct]) -> "Rows":
        """Rows as `/predict` parses them: `schema.struct_type(contract, "request")`."""
        return cls(len(structs), structs, None)

    @classmethod
    def of_columns(cls, columns: Columns) -> "Rows":
        """Rows of columns, one at least, which are equally long."""
        return cls(len(columns[0]), None, columns)

    def __len__(self) -> int:
        return self._count

    @property
    def columns(self) -> Columns:
        """A column a field, each with a value a row; vectors may be the rows of an array."""
        if self._columns is None:
            self._columns = tuple(zip(*self.tuples(), strict=True))
        return self._columns

    @property
    def parts(self) -> "Sequence[Rows]":
        """The very rows that these were joined of."""
        return (self,) if self._parts is None else self._parts

    def tuples(self) -> Iterator[tuple[Any, ...]]:
        """The values of each row."""
        if self.structs is None:
            return zip(*map(listed, self.columns), strict=True)
        return map(msgspec.structs.astuple, self.structs)

    def first(self, field: int) -> Any:
        """A field's value in the first row."""
        return getattr(self.structs[0], f"f{field}") if self.structs is not None else listed(self.columns[field][:1])[0]

    def part(self, start: int, end: int) -> "Rows":
        """Some of the rows, as a slice."""
        if start == 0 and end >= self._count:
            return self
        return Rows.of_columns(tuple(column[start:end] for column in self.columns))

    @staticmethod
    def joined(some: Sequence["Rows"]) -> "Rows":
        """The rows of several requests, one after the other."""
        if len(some) == 1:
            return some[0]
        structs = [rows.structs for rows in some if rows.structs is not None and len(rows) < _FEW]
        if len(structs) == len(some):
            together = list(chain.from_iterable(structs))
            return Rows(len(together), together, None, some)
        by_field = zip(*(rows.columns for rows in some), strict=True)
        columns = tuple(map(_chained, by_field))
        return Rows(sum(map(len, some)), None, columns, some)


def listed(column: Sequence[Any] | Matrix) -> Sequence[Any]:
    """A column whose values are Python's own."""
    return column.tolist() if isinstance(column, np.ndarray) else column


def _chained(parts: Sequence[Sequence[Any] | Matrix]) -> Sequence[Any] | Matrix:
    arrays = [part for part in parts if isinstance(part, np.ndarray)]
    if len(arrays) == len(parts):
        return np.concatenate(arrays)
    return list(chain.from_iterable(map(listed, parts)))
