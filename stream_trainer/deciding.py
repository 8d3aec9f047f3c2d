"""An entry of an alias that a person decides on: based on the newest one, and decided anew when somebody was faster."""

from collections.abc import Callable
from typing import TypeVar

from stream_trainer.errors import UsageError

TRIES = 5

T = TypeVar("T")


class Undecidable(UsageError):
    """A decision that the store's versions do not allow; `why` is a stable code, the message names the store."""

    def __init__(self, why: str, message: str) -> None:
        self.why = why
        super().__init__(message)


def append(
    what: str,
    newest: Callable[[], tuple[int, T | None]],
    decide: Callable[[T | None], T],
    put: Callable[[T, int], int | None],
) -> tuple[int, T]:
    """Append what is decided on the newest entry; its number and the entry.

    Args:
        what: whose entry, for the message.
        newest: the newest entry's number, and itself if it can be read.
        decide: the entry that is wanted after it.
        put: appends after that number; None when somebody else has.

    Raises:
        Undecidable: others were faster `TRIES` times.
    """
    for _ in range(TRIES):
        number, before = newest()
        wanted = decide(before)
        appended = put(wanted, number)
        if appended is not None:
            return appended, wanted
    raise Undecidable("contended", f"{what} is being set by others all the time: look, and try again")
