"""Which cells there are to fill, where each lies, and which of them are filled already."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.learning import contestants, worker
from tests.bench.learning.contestants import Contestant
from tests.bench.learning.stream import Stream
from tests.bench.learning.worker import Job


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """Where the cell of one stream, learner, block size and seed lies. `rows`: to be forecast."""

    stream: str
    contestant: Contestant
    size: int
    seed: int
    rows: int
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All slots, and the files of the streams."""

    slots: Sequence[Slot]
    files: Mapping[tuple[str, int], Path]
    limit: float

    def jobs(self) -> list[tuple[Contestant, Job]]:
        """What is missing. A cell that an earlier, shorter limit cut off is missing too."""
        wanted: dict[tuple[str, str, int], list[Slot]] = {}
        for slot in self.slots:
            if not filled(slot.path, self.limit):
                wanted.setdefault((slot.stream, slot.contestant.name, slot.seed), []).append(slot)
        return [(slots[0].contestant, self._job(slots)) for slots in wanted.values()]

    def _job(self, slots: Sequence[Slot]) -> Job:
        first = slots[0]
        return Job(
            stream=self.files[first.stream, first.seed],
            learner=first.contestant.name,
            seed=first.seed,
            shared=first.contestant.row_by_row,
            limit=self.limit,
            lengths={slot.size: slot.rows for slot in slots},
            cells={slot.size: slot.path for slot in slots},
        )


def filled(path: Path, limit: float) -> bool:
    """Whether a cell is there and a pass of this limit would not get further."""
    if not path.exists():
        return False
    cell = worker.read(path)
    return cell.finished or cell.limit >= limit


def slots(
    streams: Mapping[tuple[str, int], Stream],
    who: Sequence[Contestant],
    sizes: Sequence[int],
    single: int,
    cells: Path,
) -> list[Slot]:
    """Of what can be learned and is long enough: a block may be half of a stream at most.

    A learner that no seed changes runs once on a real stream.
    """
    found: dict[Path, Slot] = {}
    for (name, seed), stream in streams.items():
        same = stream.origin == "real"
        digest = stream.digest
        for contestant in who:
            if stream.task not in contestant.tasks:
                continue
            own = 0 if same and not contestant.seeded else seed
            code = contestants.digest(contestant, stream)
            for size in sizes:
                rows = min(stream.rows, single) if size == 1 else stream.rows
                if rows < 2 * size:
                    continue
                file = f"{contestant.name}-{size}-{own}-{key(digest, code, size, own, rows)}.json"
                path = cells / name / file
                found[path] = Slot(stream=name, contestant=contestant, size=size, seed=own, rows=rows, path=path)
    return list(found.values())


def key(*parts: object) -> str:
    """What a cell's name ends in: another stream, code, block size, seed or length is another cell."""
    return hashlib.sha256(" ".join(map(str, parts)).encode()).hexdigest()[:16]
