"""A labelled stream in time order, as a file that every environment can read: numbers, codes of categories, labels.

What a learner may know of it beforehand is what a contract says: names, kinds, vocabularies, classes; never a value.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Task = Literal["binary", "multiclass", "regression"]
Origin = Literal["real", "generator"]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A feature: a number where `words` is None, else a category whose values are positions in `words`.

    `buckets`: our contract hashes the words into so many; the others get the words themselves.
    """

    name: str
    words: tuple[str, ...] | None = None
    buckets: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stream:
    """Rows in time order.

    Attributes:
        columns: one for each column of `x`.
        classes: names in the order of their codes; empty for numbers.
        x: float64 `[rows, columns]`; NaN is missing.
        y: float64 `[rows]`: the code of the class, or the number.
    """

    name: str
    origin: Origin
    task: Task
    columns: tuple[Column, ...]
    classes: tuple[str, ...]
    x: Floats
    y: Floats

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.y)

    @property
    def outputs(self) -> int:
        """How many numbers a forecast of one row has."""
        return max(len(self.classes), 1)

    @property
    def digest(self) -> str:
        """SHA-256 of everything in it."""
        found = hashlib.sha256(self._head().encode())
        for array in (self.x, self.y):
            found.update(np.ascontiguousarray(array).tobytes())
        return found.hexdigest()

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part.npz")
        np.savez_compressed(part, x=self.x, y=self.y, head=np.array(self._head()))
        part.replace(path)

    @classmethod
    def load(cls, path: Path) -> "Stream":
        """The inverse of `save`."""
        with np.load(path) as file:
            head: dict[str, Any] = json.loads(str(file["head"]))
            columns = tuple(
                Column(name=c["name"], words=None if c["words"] is None else tuple(c["words"]), buckets=c["buckets"])
                for c in head.pop("columns")
            )
            return cls(**head | {"classes": tuple(head["classes"])}, columns=columns, x=file["x"], y=file["y"])

    def _head(self) -> str:
        columns = [asdict(column) for column in self.columns]
        head = {"name": self.name, "origin": self.origin, "task": self.task, "classes": self.classes}
        return json.dumps(head | {"columns": columns}, sort_keys=True)


def of_labels(values: list[Any]) -> tuple[Task, tuple[str, ...], Floats]:
    """Task, classes and codes of labels that are classes of any kind; classes in alphabetical or numeric order."""
    distinct = sorted(set(values))
    codes = {value: code for code, value in enumerate(distinct)}
    task: Task = "binary" if len(distinct) == 2 else "multiclass"
    return task, tuple(str(value) for value in distinct), np.array([codes[v] for v in values], dtype=np.float64)
