"""Which streams there are and where their files lie; a file is made when it is not there or its maker has changed."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.learning import contestants, flights, folder, synthetic
from tests.bench.learning.stream import Stream
from tests.bench.peers.environments import PINS

RIVER_REAL = ("phishing", "bananas")
RIVER_GENERATORS = (
    "sea-abrupt", "sea-gradual", "agrawal-abrupt", "agrawal-gradual", "hyperplane", "rbf", "rbf-drift",
    "led-abrupt", "led-gradual", "stagger-abrupt", "stagger-gradual", "friedman-drift",
)  # fmt: skip
_HERE = Path(__file__).parent
RunRiver = Callable[[Path], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """How many rows: of real streams, of generated ones, and of either for blocks of one row."""

    real: int = 50_000
    generated: int = 20_480
    single: int = 8_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A stream before it is a file. `generated`: a seed makes another one."""

    name: str
    generated: bool
    river: bool
    path: Path | None = None


def sources(data: Path | None) -> list[Source]:
    """Real ones first: those of the folder `data`, River's, flights; then generators.

    Raises:
        UsageError: `data` is no folder.
    """
    found = [
        Source(name=name, generated=False, river=False, path=path)
        for name, path in (folder.names(data) if data else {}).items()
    ]
    found += [Source(name=name, generated=False, river=True) for name in RIVER_REAL]
    found += [Source(name=flights.NAME, generated=False, river=False)]
    found += [Source(name=name, generated=True, river=True) for name in RIVER_GENERATORS]
    return found + [Source(name=name, generated=True, river=False) for name in synthetic.MAKERS]


def prepare(
    wanted: Sequence[Source], seeds: Sequence[int], lengths: Lengths, cache: Path, run_river: RunRiver
) -> Mapping[tuple[str, int], Path]:
    """Files by stream and seed; a real stream's is the same for all seeds."""
    files: dict[tuple[str, int], Path] = {}
    wishes: list[dict[str, str | int]] = []
    for source in wanted:
        rows = lengths.generated if source.generated else lengths.real
        for seed in seeds:
            own = seed if source.generated else 0
            path = cache / "streams" / f"{source.name}-{own}-{_digest(source, rows)}.npz"
            files[source.name, seed] = path
            if path.exists() or any(wish["path"] == str(path) for wish in wishes):
                continue
            if source.river:
                wishes.append({"name": source.name, "rows": rows, "seed": own, "path": str(path)})
            else:
                _make(source, rows, own).save(path)
    if wishes:
        todo = cache / "streams" / "wishes.json"
        todo.parent.mkdir(parents=True, exist_ok=True)
        todo.write_text(json.dumps(wishes))
        run_river(todo)
    return files


def _make(source: Source, rows: int, seed: int) -> Stream:
    if source.path is not None:
        return folder.load(source.name, source.path, rows)
    return flights.make(rows) if source.name == flights.NAME else synthetic.make(source.name, rows, seed)


def _digest(source: Source, rows: int) -> str:
    found = hashlib.sha256(str(rows).encode())
    if source.river:
        found.update((PINS / "river.txt").read_bytes())
        makers = ["peers/river_streams.py"]
    elif source.path is not None:
        found.update(source.path.read_bytes())
        makers = ["folder.py"]
    else:
        makers = ["flights.py"] if source.name == flights.NAME else ["synthetic.py"]
    for maker in (*makers, "stream.py"):
        found.update(contestants.code_of(_HERE / maker).encode())
    return found.hexdigest()[:16]
