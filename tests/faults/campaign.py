"""Kills trainers and asks the oracle: used by the tests with a few seeds and by `make faults` with many."""

import json
import random
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue

from tests.faults import oracle
from tests.faults.nursery import Nursery
from tests.faults.scenario import Life, reborn

KILLED = -9
# Points that only a trainer reaches which has something to recover: its predecessor dies here first.
FIRST_DEATH = "microbatch.learned"
_MEMORY = Path("/dev/shm")  # noqa: S108 - a kill leaves the page cache alone: what a power cut does is tested elsewhere

Kill = tuple[str, int]


@dataclass(slots=True)
class Outcome:
    """One history: who was killed where, and what was wrong; nothing, if all is well."""

    seed: int
    kills: list[Kill]
    wrong: list[str] = field(default_factory=list)
    lives: int = 0

    def __str__(self) -> str:
        return f"seed {self.seed}, killed at {self.kills}: {'; '.join(self.wrong) or 'nothing wrong'}"


class Campaign:
    """Nurseries, and the undisturbed histories that others are compared with."""

    def __init__(self, folder: Path, nurseries: Sequence[Nursery]) -> None:
        self._folder = folder
        self._free: SimpleQueue[Nursery] = SimpleQueue()
        for nursery in nurseries:
            self._free.put(nursery)
        self._workers = len(nurseries)
        self._calm: dict[int, dict[str, int]] = {}

    def arrivals(self, seed: int) -> dict[str, int]:
        """How often an undisturbed process reaches each point."""
        if seed not in self._calm:
            folder = self._calm_folder(seed)
            folder.mkdir()
            code = self._run(Life(folder=str(folder), seed=seed))
            wrong = oracle.at_the_end(folder, seed)
            assert not code, f"an undisturbed process ended with {code}"
            assert not wrong, wrong
            self._calm[seed] = json.loads((folder / "arrivals.json").read_text())
        return self._calm[seed]

    def kill_each(self, point: str, seeds: Sequence[int]) -> list[Outcome]:
        """One history a seed in which a process dies at the point, at a random one of its arrivals."""
        for seed in seeds:
            self.arrivals(seed)
        with ThreadPoolExecutor(self._workers) as pool:
            return list(pool.map(lambda seed: self.history(seed, self.plan(point, seed)), seeds))

    def plan(self, point: str, seed: int) -> list[Kill]:
        """Where processes have to die so that one dies at the point."""
        rng = random.Random(f"{point}/{seed}")
        arrivals = self.arrivals(seed)
        if point in arrivals:
            return [(point, rng.randint(1, arrivals[point]))]
        return [(FIRST_DEATH, rng.randint(2, arrivals[FIRST_DEATH])), (point, 1)]

    def history(self, seed: int, kills: Sequence[Kill], **options: object) -> Outcome:
        """Let process after process die as planned, and the last one live."""
        outcome = Outcome(seed, list(kills))
        with tempfile.TemporaryDirectory(dir=self._folder) as name:
            folder = Path(name)
            life = Life(folder=name, seed=seed, **options)  # type: ignore[arg-type]
            for kill in kills:
                code = self._run(reborn(life, kill))
                outcome.lives += 1
                if code not in (0, KILLED):
                    outcome.wrong.append(f"the process that was to die at {kill} ended with {code}")
                elif code == 0 and kill[0] != "*":
                    outcome.wrong.append(f"the process that was to die at {kill} never got there")
                outcome.wrong += oracle.after_a_kill(folder)
            code = self._run(life)
            outcome.lives += 1
            if code:
                outcome.wrong.append(f"the last process ended with {code}")
            outcome.wrong += oracle.at_the_end(folder, seed)
            if life.live:
                outcome.wrong += oracle.replayed(folder, seed)
            elif life.cuts_per_version == 1:
                outcome.wrong += oracle.differences(folder, self._calm_folder(seed))
        return outcome

    def _calm_folder(self, seed: int) -> Path:
        return self._folder / f"calm-{seed}"

    def _run(self, life: Life) -> int:
        nursery = self._free.get()
        try:
            return nursery.run(life)
        finally:
            self._free.put(nursery)


@contextmanager
def campaign(workers: int = 2) -> Iterator[Campaign]:
    """A campaign in a folder of its own, in memory where there is such a thing."""
    with ExitStack() as stack:
        base = str(_MEMORY) if _MEMORY.is_dir() else None
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kills-", dir=base)))
        log = folder / "stderr.log"
        yield Campaign(folder, [stack.enter_context(Nursery(log)) for _ in range(workers)])
