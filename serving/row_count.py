"""Refuses a body of too many rows at the first row that is too many, not after all of them were made.

msgspec looks at the length of a list when its last element is there: a million rows would hold the event loop for a
tenth of a second, only to be refused. No row is refused here for anything but its number.
"""

from typing import Any

import msgspec


class TooMany(Exception):
    """A body holds more rows than it may."""


class RowCount:
    """Counts the rows of one kind of body; not for several threads at once.

    Args:
        row: the struct of a row.
        most: so many rows may be in a body.
    """

    def __init__(self, row: type[msgspec.Struct], most: int) -> None:
        self._most = most
        self._left = 0
        self._least_bytes = most * _least_bytes(row)
        counted: Any = msgspec.defstruct(
            "Counted", [], bases=(row,), namespace={"__post_init__": self._count}, gc=False
        )
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(
            msgspec.defstruct("Instances", [("instances", list[counted])])
        )

    def check(self, body: bytes) -> None:
        """Nothing when the rows are few enough, or come after something that cannot be used.

        A row has a name for each field that it needs, and a brace, so most bodies are not read for this; one that is has
        nested values, or too many rows.

        Raises:
            TooMany: the body begins with too many usable rows.
            ValueError, RecursionError: what the body's own decoder says as well.
        """
        if len(body) <= self._least_bytes or body.count(b"{") <= self._most + 1:
            return
        self._left = self._most
        self._decoder.decode(body)

    def _count(self, *_: object) -> None:
        self._left -= 1
        if self._left < 0:
            raise TooMany


def _least_bytes(row: type[msgspec.Struct]) -> int:
    """Bytes of the shortest row that can be used, with the comma after it: `{"name":0},`."""
    needed = [field for field in msgspec.structs.fields(row) if field.required]
    return max(3, 2 + sum(len('"":0,') + len(field.encode_name) for field in needed))
