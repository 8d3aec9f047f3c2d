"""The highest of numbered folders, found without looking at each.

Numbers are dense: found by doubling steps, in as many looks as the number has bits. A person may have deleted some,
so a listing has the last word wherever it is cheap, and whenever no hint was right.
"""

from stream_trainer.store.storage import Storage

_MISSES = 3
_GAP = 16
_FURTHER = tuple(2**bits for bits in range(5, 17))


class Numbers:
    """The folders `<20 digits>` under one folder that hold an object called `member`."""

    def __init__(self, storage: Storage, folder: str, member: str) -> None:
        self._storage = storage
        self._folder = folder
        self._member = member
        self._seen = 0

    def folder(self, number: int) -> str:
        """The path of a number's folder."""
        return f"{self._folder}/{number:020d}"

    def has(self, number: int) -> bool:
        """Whether the number's folder holds the member."""
        return self._storage.exists(f"{self.folder(number)}/{self._member}")

    def highest(self, hint: int) -> int:
        """The highest number that has the member; 0 when there is none.

        With a right hint this costs the same however many there are. A hint is at most one behind when a writer has
        died: one that is further behind, or wrong, costs a listing. In a folder of this machine a number is then
        overlooked only behind more than 16 deleted ones, with nothing at any `_FURTHER` step above the hint either.
        """
        start = next((n for n in (max(hint, self._seen), hint, self._seen) if n > 0 and self.has(n)), 0)
        at = self._climb(start or self._first_step())
        if self._storage.seekable or not 0 < start <= at <= start + 1 or self._has_above(at):
            at = next((n for n in reversed(self._listed(at)) if self.has(n)), at)
        self._seen = at
        return at

    def up_to_highest(self) -> list[int]:
        """Every number that has a folder, ascending, up to the highest one that has the member."""
        found = self._listed(0)
        while found and not self.has(found[-1]):
            found.pop()
        return found

    def _has_above(self, at: int) -> bool:
        return any(self.has(at + step) for step in (*range(2, _GAP + 1), *_FURTHER))

    def _listed(self, after: int) -> list[int]:
        names = self._storage.names(self._folder, after=f"{after:020d}" if after else "")
        return sorted(int(name) for name in names if name.isascii() and name.isdigit())

    def _first_step(self) -> int:
        """Some number that is there, a high one if possible: the powers of two, until a few in a row are missing."""
        best, step, misses = 0, 1, 0
        while misses < _MISSES:
            found = self.has(step)
            best, misses = (step, 0) if found else (best, misses + 1)
            step *= 2
        return best

    def _climb(self, at: int) -> int:
        """From a number that is there to the last one before the next that is not."""
        step = 1
        while at and self.has(at + step):
            at += step
            step *= 2
        while at and step > 1:
            step //= 2
            if self.has(at + step):
                at += step
        return at
